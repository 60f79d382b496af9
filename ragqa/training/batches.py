"""Examples as the batches a model takes, and the loss of a batch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from ragqa.generation.generator import decoder_start
from ragqa.training.lora import computing
from ragqa.training.packs import Pack, encoder_decoder_batch, length_grouped, pack, packed_batch, padded_batch
from ragqa.training.recipe import Recipe
from ragqa.training.tokens import Tokens
from ragqa.training.tree_attention import holding, segments

# Packed and padded losses of one model agree to rounding; where a model does not honour the tree they differ widely.
# The second is in nats a token: a half-precision logit of 20 is known to 0.06.
_SAME = 0.02
_ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.01}
_STILL = 1e-4
# What a batch holds that is not for the model.
_OURS = ("sources", "targets", "weights", "numbers", "segments", "seed")


class Batches:
    """Examples as the batches a model takes, each made into tensors when asked for."""

    def __init__(self, items: Sequence[Any], make: Any) -> None:
        self.items = items
        self._make = make

    def size(self, number: int) -> int:
        """How many tokens a batch computes, padding included."""
        item = self.items[number]
        return len(item.ids) if isinstance(item, Pack) else len(item) * max(len(e.ids) for e in item)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> dict[str, Any]:
        batch: dict[str, Any] = self._make(self.items[number])
        return batch


def make_batches(examples: Sequence[Tokens], model: Any, tokenizer: Any, recipe: Recipe, packed: bool) -> Batches:
    """Examples as batches for the model.

    Args:
        examples: the examples.
        model: decoder-only or encoder-decoder.
        tokenizer: its tokenizer.
        recipe: sizes and weights.
        packed: see `packs_agree`; an encoder-decoder is always padded.
    """
    pad, weight = tokenizer.pad_token_id, recipe.number_weight
    if packed and not model.config.is_encoder_decoder:
        packs = pack(examples, recipe.batch_tokens, recipe.batch_size, weight)
        # On a GPU the library's attention over all pairs is the faster one.
        cut = model.device.type == "cpu"
        return Batches(
            packs, lambda one: packed_batch(one, model.dtype) | ({"segments": segments(one.parents)} if cut else {})
        )
    groups = length_grouped(examples, recipe.batch_tokens, recipe.batch_size, recipe.training_seed)
    if model.config.is_encoder_decoder:
        start = decoder_start(model)
        return Batches(groups, lambda group: encoder_decoder_batch(group, pad, start, weight))
    return Batches(groups, lambda group: padded_batch(group, pad, weight))


def answer_loss(model: Any, batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses of a batch's trained tokens, (N,) in nats, unweighted, and the logits they come from, (N, vocabulary)."""
    inputs = {k: v for k, v in batch.items() if k not in _OURS}
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    base = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    keeps = "logits_to_keep" in inspect.signature(base.forward).parameters
    kept = inputs.pop("logits_to_keep", None) if not keeps else None
    if "position_ids" not in inspect.signature(base.forward).parameters:
        inputs.pop("position_ids", None)
    with holding(batch.get("segments")):
        logits = model(**inputs, use_cache=False).logits
    if kept is not None:
        logits = logits[:, kept] if isinstance(kept, torch.Tensor) else logits[:, -kept:]
    logits = logits.flatten(0, 1)[batch["sources"]].float()
    return torch.nn.functional.cross_entropy(logits, batch["targets"], reduction="none"), logits


def packs_agree(model: Any, tokenizer: Any, examples: Sequence[Tokens]) -> bool:
    """Whether the model computes a pack as it computes its examples one by one: some do not take such a mask."""
    # Rounding is lost in the mean over whole answers, not in that of a number or two.
    answered = [e for e in examples if e.answered]
    few = sorted(answered if len(answered) > 1 else examples, key=lambda e: e.ids)[:2]
    both = pack(few, sum(len(e.ids) for e in few), len(few))[0]
    batch = on_device(model.device, packed_batch(both, model.dtype) | {"segments": segments(both.parents)})
    singles = [on_device(model.device, padded_batch([e], tokenizer.pad_token_id)) for e in few]
    # Other tokens where the last example does not look: its losses must not move.
    unseen = batch["attention_mask"][0, 0, -1] < 0
    other = dict(batch, input_ids=torch.where(unseen, batch["input_ids"].flip(-1), batch["input_ids"]))
    last = len(few[-1].ids) - few[-1].prompt
    with torch.no_grad(), computing(model):
        try:
            together, moved = answer_loss(model, batch)[0], answer_loss(model, other)[0]
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError):
            return False
        alone = torch.cat([answer_loss(model, single)[0] for single in singles])
    same = (together.mean() - alone.mean()).abs() <= _SAME * alone.mean() + _ROUNDING.get(model.dtype, 0.0)
    return bool(same and (together[-last:] - moved[-last:]).abs().max() < _STILL)


def on_device(device: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch with its tensors on the device."""
    return {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
