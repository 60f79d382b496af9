"""Decoder-only models of Llama's kind, with fewer and larger operations: for reading and writing on a CPU.

Most small language models are of this kind. Against the general way the three products of attention's inputs are one, as
are the two of the gate; keys and values lie in one piece that grows, so that what is taken back costs nothing; heads that
share keys read them once; of the last layer only the tokens whose logits are asked for are computed; and what is added up
between the products is in float32 whatever the weights' format. It computes the same, see tests/test_llama.py; what is no
such model takes the general way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from ragqa.models.attention import by_blocks
from ragqa.models.precision import Product

# Places by which keys and values grow: an answer's.
_GROWTH: Final = 256
# Tokens of a pass that attention takes at once; more go by blocks.
_FEW: Final = 32


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """What a model's ``config.json`` says of its form.

    Attributes:
        layers, heads, size: how many there are, of a head its numbers.
        shared: heads of keys and values; as many heads share one of them as there are more.
        vocab_size, max_position_embeddings: tokens there are, and tokens it reads.
        eps: what the variance is kept above 0 by.
        theta: base of the rotary positions.
        tied: whether the weights of words are those of the logits, too.
        ends: tokens that end a text.
    """

    layers: int
    heads: int
    size: int
    shared: int
    vocab_size: int
    max_position_embeddings: int
    eps: float
    theta: float
    tied: bool
    ends: tuple[int, ...] = ()
    is_encoder_decoder: bool = False

    def get_text_config(self) -> LlamaConfig:
        """Itself, as in `transformers`."""
        return self


@dataclass(slots=True)
class Layer:
    """Keys and values of one layer, (answers, heads, places, size) each; places beyond those in use are spare."""

    keys: torch.Tensor
    values: torch.Tensor


class KeyValues:
    """The keys and values of a `LlamaReader`, in the way of `transformers.DynamicCache`.

    Args:
        layers: what is known already, by layer, (answers, heads, places, size) each.
    """

    def __init__(self, layers: Sequence[tuple[torch.Tensor, torch.Tensor]] = ()) -> None:
        self._places = layers[0][0].shape[2] if layers else 0
        self._kept = [Layer(*(_grown(one, self._places + _GROWTH) for one in layer)) for layer in layers]

    @classmethod
    def joined(cls, caches: Sequence[KeyValues]) -> KeyValues:
        """Several as one, filled up with zeros in front so that all end together; they themselves are emptied."""
        whole = cls()
        whole._places = max(cache._places for cache in caches)
        for parts in zip(*(cache._kept for cache in caches), strict=True):
            answers = sum(part.keys.shape[0] for part in parts)
            shape = (answers, parts[0].keys.shape[1], whole._places + _GROWTH, parts[0].keys.shape[3])
            layer = Layer(parts[0].keys.new_zeros(shape), parts[0].values.new_zeros(shape))
            row = 0
            for cache, part in zip(caches, parts, strict=True):
                here = (
                    slice(row, row + part.keys.shape[0]),
                    slice(None),
                    slice(whole._places - cache._places, whole._places),
                )
                layer.keys[here], layer.values[here] = (
                    part.keys[:, :, : cache._places],
                    part.values[:, :, : cache._places],
                )
                row += part.keys.shape[0]
                part.keys = part.values = part.keys[:0, :, :0].clone()
            whole._kept.append(layer)
        return whole

    @property
    def layers(self) -> list[Layer]:
        """What is in use of each layer."""
        used = self._places
        return [Layer(layer.keys[:, :, :used], layer.values[:, :, :used]) for layer in self._kept]

    def get_seq_length(self) -> int:
        """Places in use."""
        return self._places

    def crop(self, length: int) -> None:
        """Keep so many places, or, below 0, all but so many."""
        self._places = length if length >= 0 else self._places + length

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some of the answers."""
        for layer in self._kept:
            layer.keys, layer.values = layer.keys[indices], layer.values[indices]

    def begin(self, answers: int, count: int, config: LlamaConfig, dtype: torch.dtype) -> None:
        """Make room for a pass.

        Args:
            answers: how many there are.
            count: places that it adds to each.
            config: the model's.
            dtype: of keys and values.
        """
        places = self._places + count
        if not self._kept:
            shape = (answers, config.shared, places + _GROWTH, config.size)
            self._kept = [Layer(*(torch.empty(shape, dtype=dtype) for _ in range(2))) for _ in range(config.layers)]
        if places > self._kept[0].keys.shape[2]:
            for layer in self._kept:
                layer.keys, layer.values = (_grown(one, places + _GROWTH) for one in (layer.keys, layer.values))

    def put(self, number: int, keys: torch.Tensor, values: torch.Tensor) -> Layer:
        """Add a layer's keys and values, (answers, new places, heads, size); gives all of that layer."""
        layer, stop = self._kept[number], self._places + keys.shape[1]
        layer.keys[:, :, self._places : stop] = keys.transpose(1, 2)
        layer.values[:, :, self._places : stop] = values.transpose(1, 2)
        return Layer(layer.keys[:, :, :stop], layer.values[:, :, :stop])

    def end(self, count: int) -> None:
        """What was put is in use."""
        self._places += count


@dataclass(frozen=True, slots=True)
class Read:
    """What a pass gives: logits, (answers, tokens asked for, vocabulary), in the weights' format."""

    logits: torch.Tensor


class LlamaReader:
    """Token ids -> logits, called as a model of `transformers` is.

    Args:
        weights: name in `transformers` -> the model's weights of that name, in the format to compute in.
        biased: whether there are weights of that name.
        config: its form.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        weights: Callable[[str], torch.Tensor],
        biased: Callable[[str], bool],
        config: LlamaConfig,
    ) -> None:
        self.config = config
        self._heads, self._shared, self._size = config.heads, config.shared, config.size
        self._words = weights("model.embed_tokens.weight")
        self.dtype = self._words.dtype
        self._layers = [_Block(weights, f"model.layers.{number}.", biased) for number in range(config.layers)]
        self._norm = weights("model.norm.weight").float()
        self._head = Product(self._words if config.tied else weights("lm_head.weight"), None)
        self._turns = config.theta ** -(torch.arange(0, self._size, 2) / self._size)

    def parameters(self) -> Iterator[torch.Tensor]:
        """The weights that were not brought into another order: those of words."""
        yield self._words

    def __call__(
        self,
        input_ids: torch.Tensor,
        past_key_values: KeyValues | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> Read:
        """Read tokens after what is known.

        Args:
            input_ids: (answers, tokens).
            past_key_values: what is known; it knows these tokens, too, afterwards.
            attention_mask: 1 for places that count, (answers, places with those of the tokens); None where all do.
            position_ids: (answers, tokens); None counts on from what is known.
            logits_to_keep: of how many of the last tokens logits are wanted; 0 for all.
        """
        cache = KeyValues() if past_key_values is None else past_key_values
        answers, count = input_ids.shape
        before = cache.get_seq_length()
        kept = min(logits_to_keep or count, count)
        cache.begin(answers, count, self.config, self.dtype)
        if position_ids is None:
            position_ids = torch.arange(before, before + count)[None]
        angles = position_ids[..., None].float() * self._turns
        turn = (angles.cos()[:, :, None], angles.sin()[:, :, None])
        mask = None if attention_mask is None else self._mask(attention_mask, count)
        hidden = nn.functional.embedding(input_ids, self._words).float()
        for number, block in enumerate(self._layers):
            inputs = block.inputs(self._normed(hidden, block.before)).view(answers, count, -1, self._size)
            turned = _turned(inputs[:, :, : self._heads + self._shared], turn)
            known = cache.put(number, turned[:, :, self._heads :], inputs[:, :, self._heads + self._shared :])
            queries = turned[:, :, : self._heads]
            if number == len(self._layers) - 1:
                queries, hidden = queries[:, -kept:], hidden[:, -kept:]
            hidden = hidden + block.outputs(self._attended(queries, known, mask))
            hidden = hidden + block.forward(self._normed(hidden, block.after))
        cache.end(count)
        return Read(self._head(self._normed(hidden, self._norm)))

    def _normed(self, hidden: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return nn.functional.rms_norm(hidden, hidden.shape[-1:], scale, self.config.eps)

    def _attended(self, queries: torch.Tensor, known: Layer, mask: torch.Tensor | None) -> torch.Tensor:
        """(answers, n, heads, size) -> (answers, n, heads * size)."""
        answers, count = queries.shape[:2]
        scale, times = self._size**-0.5, self._heads // self._shared
        queries = queries.transpose(1, 2)
        if mask is None and count > _FEW:
            return by_blocks(queries, known.keys, known.values, scale).flatten(2)
        if mask is None and count > 1:
            mask = self._mask(torch.ones(1, known.keys.shape[2]), count)
        # Heads that share keys are so many queries more.
        asked = queries.reshape(answers, self._shared, times * count, self._size)
        if mask is not None:
            mask = mask[:, :, -count:].repeat(1, 1, times, 1)
        found = nn.functional.scaled_dot_product_attention(asked, known.keys, known.values, mask, scale=scale)
        return found.view(answers, self._heads, count, -1).transpose(1, 2).flatten(2)

    def _mask(self, counts: torch.Tensor, count: int) -> torch.Tensor:
        """What is added to the products of the last `count` places with all, (answers, 1, count, places)."""
        places = counts.shape[1]
        seen = torch.ones(count, places, dtype=torch.bool).tril(places - count) & counts[:, None, None].bool()
        # A place that fills up sees nothing; not all of its products are infinite, so that they stay numbers.
        return torch.zeros(seen.shape, dtype=self.dtype).masked_fill_(~seen, torch.finfo(self.dtype).min)


class _Block:
    """One layer's weights."""

    def __init__(self, weights: Callable[[str], torch.Tensor], name: str, biased: Callable[[str], bool]) -> None:
        def product(*parts: str) -> Product:
            matrices = [weights(f"{name}{part}.weight") for part in parts]
            biases = [weights(f"{name}{part}.bias") for part in parts] if biased(f"{name}{parts[0]}.bias") else []
            return Product(torch.cat(matrices), torch.cat(biases) if biases else None)

        self.before = weights(f"{name}input_layernorm.weight").float()
        self.after = weights(f"{name}post_attention_layernorm.weight").float()
        self.inputs = product("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        self.outputs = product("self_attn.o_proj")
        self._gates = product("mlp.gate_proj", "mlp.up_proj")
        self._down = product("mlp.down_proj")

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(answers, n, hidden) -> (answers, n, hidden)."""
        gate, up = self._gates(hidden).chunk(2, -1)
        return self._down(nn.functional.silu(gate) * up)


def _grown(tensor: torch.Tensor, places: int) -> torch.Tensor:
    """A copy with room for so many places."""
    grown = tensor.new_empty(*tensor.shape[:2], places, tensor.shape[3])
    grown[:, :, : tensor.shape[2]] = tensor
    return grown


def _turned(inputs: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864), the halves of a head being turned against one another."""
    one, other = inputs.float().chunk(2, -1)
    cos, sin = turn
    return torch.cat([one * cos - other * sin, other * cos + one * sin], -1).to(inputs.dtype)
