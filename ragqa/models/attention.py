"""Causal attention on a CPU, a block of questions ("queries") at a time.

torch's own kernel takes 17 ms a layer for a prompt of 900 tokens of SmolLM2-135M on 2 cores, and 23 ms where a part of the
prompt is known already, since it then adds up a mask; products over the places that a block may look at take 11 ms in
both cases, and 9 ms where the shares that multiply values are rounded to bfloat16, as torch's own kernel does with them.
Products of queries and keys are in float32 whatever the model's format.
"""

from __future__ import annotations

from typing import Any, Final

import torch

NAME: Final = "ragqa"
# Queries in a block: 32, 64 and 96 are alike, with 16 and 128 it is slower.
_BLOCK: Final = 64
# What some models give attention besides, and this does not know.
_MORE: Final = ("position_bias", "cache", "softcap", "s_aux")


def use_blocks(model: Any) -> bool:
    """Have a decoder-only model on a CPU attend by blocks, where it is asked without a mask; returns whether it does.

    A model that chose another kind of attention than `sdpa`, or has its own, keeps it.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if getattr(inner.config, "_attn_implementation", None) != "sdpa" or not inner._supports_attention_backend:
        return False
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _mask)
    try:
        inner.set_attn_implementation(NAME)
    except (ValueError, AttributeError):
        return False
    return True


def by_blocks(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
    """What each query sees of the values up to its own place; the last query's place is the last one.

    Args:
        queries: (batch, heads, n, size).
        keys, values: (batch, heads of keys, places, size), where as many heads share one of these as there are more.
        scale: of the products.

    Returns:
        (batch, n, heads, size), in the values' format.
    """
    batch, heads, count, size = queries.shape
    shared, known = heads // keys.shape[1], keys.shape[2] - count
    asked = (queries * scale).float().view(batch, keys.shape[1], shared, count, size)
    turned, told = keys.float().transpose(2, 3), values if values.dtype == torch.bfloat16 else values.float()
    later = torch.full((_BLOCK, _BLOCK), float("-inf")).triu(1)
    seen = torch.empty(batch, count, keys.shape[1], shared, values.shape[3], dtype=told.dtype)
    for start in range(0, count, _BLOCK):
        stop = min(count, start + _BLOCK)
        here = known + stop
        products = asked[:, :, :, start:stop].reshape(batch, keys.shape[1], -1, size) @ turned[..., :here]
        each = products.view(batch, keys.shape[1], shared, stop - start, here)
        each[..., known + start :] += later[: stop - start, : stop - start]
        found = products.softmax(-1).to(told.dtype) @ told[:, :, :here]
        seen[:, start:stop] = found.view(batch, keys.shape[1], shared, stop - start, -1).permute(0, 3, 1, 2, 4)
    return seen.view(batch, count, heads, -1).to(values.dtype)


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if attention_mask is None and query.shape[2] > 1:
        if not torch.is_grad_enabled() and all(more.get(name) is None for name in _MORE):
            return by_blocks(query, key, value, query.shape[3] ** -0.5 if scaling is None else scaling), None
        places = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
        attention_mask = places.tril(key.shape[2] - query.shape[2])
    found: tuple[torch.Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **more
    )
    return found


def _mask(*, kv_length: int, attention_mask: torch.Tensor | None = None, **more: Any) -> Any:
    """No mask where each place sees all before it, else `sdpa`'s."""
    from transformers.masking_utils import causal_mask_function, sdpa_mask

    if (places := more.get("cache_position")) is not None:  # as transformers 5.0 tells it
        stop = int(places[-1]) + 1
    else:
        stop = more.get("q_offset", 0) + more["q_length"]
    whole = stop == kv_length and more.get("kv_offset", 0) == 0
    plain = more.get("mask_function", causal_mask_function) is causal_mask_function
    if attention_mask is None and whole and plain and more.get("allow_is_causal_skip", True):
        return None
    return sdpa_mask(kv_length=kv_length, attention_mask=attention_mask, **more)
