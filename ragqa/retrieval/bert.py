"""The BERT encoder of a sentence-transformers model, with fewer and larger operations: for a CPU.

Most small sentence encoders are BERTs. Against the general way the three products of attention's inputs are one, a text's
padding goes through no product, the activation is computed inside the product before it, and each number is brought into
16 bits once. It computes the same, which is tried when it is made; what is no such model takes the general way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ragqa.models.precision import Product

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Texts on which the model and this are compared: long and short, with capitals and accents, as questions and titles.
_TRIED: Final = (
    "lamp",
    "Rede de Dormir Casal Maracatu, Azul 4.20 x 1.60 m, com varanda de crochê e punho reforçado",
    "LT-350 headlamp",
)
_AS_NEAR: Final = 0.9995
_MASKED: Final = -1e9
_VECTOR: Final = 16
_PROMPTS: Final = {"document": ("document", "passage", "corpus"), "query": ("query",)}


class BertEncoder:
    """Token ids -> sentence vectors. Made by `fused`."""

    def __init__(self, model: SentenceTransformer) -> None:
        transformer, pooling = model[0], model[1]
        bert: Any = transformer.auto_model
        self._tokenizer, self._most = model.tokenizer, model.max_seq_length
        self.prompts = {
            kind: next((prompt for name in names if (prompt := model.prompts.get(name))), "")
            for kind, names in _PROMPTS.items()
        }
        self._mean = pooling.pooling_mode == "mean"
        self._heads = int(bert.config.num_attention_heads)
        table = bert.embeddings
        self._words = table.word_embeddings.weight.detach()
        self._places = (table.position_embeddings.weight + table.token_type_embeddings.weight[0]).detach()
        self._norm = table.LayerNorm
        self._layers = [_Layer(layer) for layer in bert.encoder.layer]

    def tokens(self, texts: Sequence[str], kind: str) -> list[list[int]]:
        """Token ids of texts, as the model reads them.

        Args:
            kind: "document" or "query".
        """
        prompted = [self.prompts[kind] + text for text in texts]
        found = self._tokenizer(prompted, truncation=self._most is not None, max_length=self._most)
        ids: list[list[int]] = found["input_ids"]
        return ids

    def encode(self, ids: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Vectors (len(ids), dimension) in float32, not of unit length."""
        with torch.inference_mode():
            found: npt.NDArray[np.float32] = self._encode(ids).numpy()
            return found

    def _encode(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        lengths = torch.tensor([len(one) for one in ids])
        count, longest = len(ids), int(lengths.max())
        here = torch.arange(longest)
        real = here < lengths[:, None]
        whole = bool(real.all())
        flat = torch.tensor([token for one in ids for token in one])
        places = here.expand(count, longest)[real]
        hidden = self._words[flat] + self._places[places]
        hidden = nn.functional.layer_norm(
            hidden, self._norm.normalized_shape, self._norm.weight, self._norm.bias, self._norm.eps
        )
        shape = _Shape(count, longest, self._heads, None if whole else real)
        for layer in self._layers:
            hidden = layer(hidden, shape)
        padded = shape.padded(hidden)
        if not self._mean:
            return padded[:, 0]
        return padded.sum(1) / lengths[:, None]


class _Shape:
    """Where the tokens of a batch stand: rows of one matrix, or places in padded texts."""

    def __init__(self, count: int, longest: int, heads: int, real: torch.Tensor | None) -> None:
        self.count, self.longest, self.heads = count, longest, heads
        self._rows = None if real is None else real.flatten().nonzero()[:, 0]
        self.bias = None if real is None else torch.zeros(real.shape).masked_fill_(~real, _MASKED)[:, None, None]

    def padded(self, rows: torch.Tensor) -> torch.Tensor:
        """(tokens, n) -> (count, longest, n), zeros in the padding."""
        if self._rows is not None:
            full = rows.new_zeros(self.count * self.longest, rows.shape[1])
            full[self._rows] = rows
            rows = full
        return rows.view(self.count, self.longest, -1)

    def rows(self, padded: torch.Tensor) -> torch.Tensor:
        """(count, longest, n) -> (tokens, n)."""
        flat = padded.reshape(self.count * self.longest, -1)
        return flat if self._rows is None else flat[self._rows]


class _Layer:
    def __init__(self, layer: Any) -> None:
        own, out = layer.attention.self, layer.attention.output
        parts = (own.query, own.key, own.value)
        self._inputs = Product(torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts]))
        self._attended = Product(out.dense.weight, out.dense.bias)
        self._up = Product(layer.intermediate.dense.weight, layer.intermediate.dense.bias, gelu=True)
        self._down = Product(layer.output.dense.weight, layer.output.dense.bias)
        self._norms = out.LayerNorm, layer.output.LayerNorm

    def __call__(self, hidden: torch.Tensor, shape: _Shape) -> torch.Tensor:
        inputs = shape.padded(self._inputs(hidden)).view(shape.count, shape.longest, 3, shape.heads, -1)
        # Copied into the order of the products below, which would otherwise each copy them for itself.
        queries, keys, values = inputs.permute(2, 0, 3, 1, 4).contiguous().float()
        weights = torch.matmul(queries, keys.transpose(-1, -2)).mul_(queries.shape[-1] ** -0.5)
        if shape.bias is not None:
            weights += shape.bias
        seen = torch.matmul(_softmax(weights), values).transpose(1, 2)
        hidden = self._normed(self._attended(shape.rows(seen)), hidden, 0)
        return self._normed(self._down(self._up(hidden)), hidden, 1)

    def _normed(self, found: torch.Tensor, before: torch.Tensor, number: int) -> torch.Tensor:
        norm = self._norms[number]
        return nn.functional.layer_norm(
            found.float().add_(before), norm.normalized_shape, norm.weight, norm.bias, norm.eps
        )


def _softmax(weights: torch.Tensor) -> torch.Tensor:
    if weights.shape[-1] >= _VECTOR:
        return weights.softmax(-1)
    # torch's own takes five times as long as this on rows that do not fill a register of the processor.
    weights = (weights - weights.amax(-1, keepdim=True)).exp_()
    return weights.div_(weights.sum(-1, keepdim=True))


def fused(model: SentenceTransformer) -> BertEncoder | None:
    """The model's encoder, if it is a BERT on a CPU whose vectors this computes; otherwise None."""
    try:
        if model.device.type != "cpu":
            return None
        names = [type(module).__name__ for module in model]
        bert: Any = model[0].auto_model
        config = bert.config
        if (
            type(bert).__name__ != "BertModel"
            or names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
            or model[1].pooling_mode not in ("mean", "cls")
            or config.hidden_act != "gelu"
            or getattr(config, "position_embedding_type", "absolute") != "absolute"
            or getattr(config, "is_decoder", False)
        ):
            return None
        encoder = BertEncoder(model)
        return encoder if _same(encoder, model) else None
    except (AttributeError, KeyError, TypeError, RuntimeError):
        return None  # another release may have other parts under these names: the general way is right everywhere


def _same(encoder: BertEncoder, model: SentenceTransformer) -> bool:
    texts = list(_TRIED)
    for kind, encode in (("document", model.encode_document), ("query", model.encode_query)):
        wanted = np.asarray(encode(texts, show_progress_bar=False), np.float32)
        found = encoder.encode(encoder.tokens(texts, kind))
        lengths = np.linalg.norm(wanted, axis=1) * np.linalg.norm(found, axis=1)
        if not ((wanted * found).sum(1) >= _AS_NEAR * lengths).all():
            return False
    return True
