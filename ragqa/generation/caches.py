"""What the caches of keys and values of `transformers` can do, and several of them as one."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from ragqa.models.llama import KeyValues, LlamaReader

if TYPE_CHECKING:
    import torch

# Log-probabilities that differ by less are the same, in float32 and in 16 bits; and places that are tried.
_SAME: Final = 0.001
_SAME_HALF: Final = 0.3
_HOLE: Final = 24


def new_cache(model: Any, layers: Sequence[tuple[torch.Tensor, torch.Tensor]] = ()) -> Any:
    """A model's cache of keys and values, with what is known already, by layer, (answers, heads, places, size) each."""
    if isinstance(model, LlamaReader):
        return KeyValues(layers)
    from transformers import DynamicCache

    return DynamicCache(layers or None, config=model.config)


def can_roll_back(model: Any, most: int) -> bool:
    """Whether a model has a cache of keys and values that forgets its last places without a trace.

    Args:
        model: a language model.
        most: tokens that prompt and answer have at most: a window that is longer slides over nothing.
    """
    if isinstance(model, LlamaReader):
        return True
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    takes = {"past_key_values", "attention_mask"} <= set(inspect.signature(whole.forward).parameters)
    if model.config.is_encoder_decoder or whole._is_stateful or not takes:
        return False
    try:
        layers = DynamicCache(config=model.config).layers
    except (AttributeError, KeyError, TypeError, ValueError):
        return False  # a kind of model that has another cache altogether
    return bool(layers) and all(
        type(layer) is DynamicLayer or (type(layer) is DynamicSlidingWindowLayer and layer.sliding_window > most)
        for layer in layers
    )


def takes_holes(model: Any) -> bool:
    """Whether a model computes the same where places of the cache count for nothing, as most do.

    One that tells positions by the place in the cache does not.
    """
    import torch

    last = int(model.config.get_text_config().vocab_size) - 1
    ids = [min(4 + step, last) for step in range(6)]
    found = []
    for hole in (0, _HOLE):
        tokens, counts = [*ids[:2], *[last] * hole, *ids[2:]], [1, 1, *[0] * hole, 1, 1, 1, 1]
        at = [sum(counts[: place + 1]) - 1 for place in range(len(tokens))]
        cache = new_cache(model)
        with torch.inference_mode():
            for start, stop in ((0, 2 + hole), (2 + hole, len(tokens))):
                logits = model(
                    input_ids=torch.tensor([tokens[start:stop]], device=model.device),
                    attention_mask=torch.tensor([counts[:stop]], device=model.device),
                    position_ids=torch.tensor([at[start:stop]], device=model.device),
                    past_key_values=cache,
                    use_cache=True,
                ).logits
        found.append(logits[0, -1].float().log_softmax(-1))
    same = _SAME if model.dtype.itemsize > 2 else _SAME_HALF
    return bool((found[0] - found[1]).abs().max() < same)


def joined(caches: Sequence[Any], model: Any) -> Any:
    """Several caches as one, filled up in front so that all end together; they themselves are emptied."""
    if isinstance(model, LlamaReader):
        return KeyValues.joined(caches)
    places = max(cache.get_seq_length() for cache in caches)
    layers: list[tuple[torch.Tensor, torch.Tensor]] = []
    for parts in zip(*(cache.layers for cache in caches), strict=True):
        keys, values = (_stacked([getattr(part, name) for part in parts], places) for name in ("keys", "values"))
        layers.append((keys, values))
        for part in parts:
            part.keys = part.values = None
    return new_cache(model, layers)


def _stacked(tensors: Sequence[torch.Tensor], places: int) -> torch.Tensor:
    """Keys or values, (answers, heads, places, n) each, under one another."""
    import torch

    return torch.cat([torch.nn.functional.pad(one, (0, 0, places - one.shape[2], 0)) for one in tensors])
