"""Attention over a pack, computing only what its tree holds.

PyTorch's attention on a CPU takes the mask of a pack as it takes any: it computes all pairs of nodes, of which a tree
uses a third, and its backward pass is slower than plain multiplications; together that was 44 % of a training step.
Here a pack is cut into segments, runs of nodes without a branch: each attends to the segments it descends from, whole,
and to itself, causally. All of it is dense multiplications.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import torch

NAME: Final = "ragqa_tree"
_SEGMENTS: ContextVar[tuple[Segment, ...] | None] = ContextVar("segments", default=None)


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of nodes without a branch.

    Attributes:
        start, stop: its nodes.
        ranges: what it attends to, as ranges of nodes in their order; the last one ends with itself.
    """

    start: int
    stop: int
    ranges: tuple[tuple[int, int], ...]


def segments(parents: Sequence[int]) -> tuple[Segment, ...]:
    """A tree, each node after its parent, as segments.

    Args:
        parents: the node before each node, -1 for none.
    """
    size = len(parents)
    branches = [node for node in range(size) if node == 0 or parents[node] != node - 1]
    cuts = [*sorted({*branches, *(parents[node] + 1 for node in branches)} - {size}), size]
    found: dict[int, Segment] = {}  # by last node
    for start, stop in pairwise(cuts):
        parent = parents[start]
        ranges = found[parent].ranges if parent >= 0 else ()
        if ranges and ranges[-1][1] == start:
            ranges = (*ranges[:-1], (ranges[-1][0], stop))
        else:
            ranges = (*ranges, (start, stop))
        found[stop - 1] = Segment(start, stop, ranges)
    return tuple(found.values())


def use_tree_attention(model: Any) -> None:
    """Let the model attend by `attend` where a pack says what it holds; elsewhere as before."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


@contextmanager
def holding(parts: tuple[Segment, ...] | None) -> Iterator[None]:
    """Within, attention is over a pack of these segments."""
    token = _SEGMENTS.set(parts)
    try:
        yield
    finally:
        _SEGMENTS.reset(token)


def attend(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None, **more: Any
) -> tuple[torch.Tensor, None]:
    """An attention function as transformers calls it.

    Args:
        module: the attention layer.
        query: (1, heads, T, d).
        key, value: (1, key-value heads, T, d).
        attention_mask: used where no segments are known, or the layer wants what these do not give.
        scaling: of the products; 1 / sqrt(d) if None.
        more: windows, soft caps, dropout and such.

    Returns:
        (1, T, heads, d), and no weights.
    """
    parts = _SEGMENTS.get()
    special = any(
        more.get(name) for name in ("dropout", "sliding_window", "softcap", "position_bias", "s_aux", "cache")
    )
    if parts is None or special or query.shape[0] != 1 or query.shape[2] != parts[-1].stop:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        out: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **more
        )
        return out
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    heads: torch.Tensor = _Attention.apply(query[0], key[0], value[0], parts, scale)  # type: ignore[no-untyped-call]
    return heads.transpose(0, 1)[None], None


class _Attention(torch.autograd.Function):
    """softmax(q k' scale) v within a tree; heads that share a key are multiplied together."""

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, parts: tuple[Segment, ...], scale: float) -> Any:
        # query (heads, T, d); key, value (keys, T, d)
        keys, size, depth = key.shape
        query = query.reshape(keys, -1, size, depth)
        out = torch.empty_like(query)
        weights = []
        for part in parts:
            q, k, v = _rows(query, part), _path(key, part), _path(value, part)
            w = torch.bmm(q, k.transpose(1, 2)).mul_(scale)  # (keys, group * L, path)
            length = part.stop - part.start
            own = w.view(keys, -1, length, w.shape[-1])[..., -length:]
            own.masked_fill_(torch.ones(length, length, dtype=torch.bool, device=w.device).triu_(1), float("-inf"))
            w = w.softmax(-1)
            out[:, :, part.start : part.stop] = torch.bmm(w, v).view(keys, -1, length, depth)
            weights.append(w)
        ctx.save_for_backward(query, key, value, *weights)
        ctx.parts, ctx.scale = parts, scale
        return out.view(-1, size, depth)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        query, key, value, *weights = ctx.saved_tensors
        grad = gradients[0].reshape(query.shape)
        to_query = torch.empty_like(query)
        to_key, to_value = (torch.zeros(key.shape, dtype=torch.float32, device=key.device) for _ in range(2))
        for part, w in zip(ctx.parts, weights, strict=True):
            q, k, v, g = _rows(query, part), _path(key, part), _path(value, part), _rows(grad, part)
            _add(to_value, torch.bmm(w.transpose(1, 2), g), part)
            inner = torch._softmax_backward_data(torch.bmm(g, v.transpose(1, 2)), w, -1, w.dtype)
            inner.mul_(ctx.scale)
            length = part.stop - part.start
            to_query[:, :, part.start : part.stop] = torch.bmm(inner, k).view(
                query.shape[0], -1, length, query.shape[-1]
            )
            _add(to_key, torch.bmm(inner.transpose(1, 2), q), part)
        return to_query.flatten(0, 1), to_key.to(key.dtype), to_value.to(value.dtype), None, None


def _rows(x: Any, part: Segment) -> Any:
    """The segment's nodes of all heads that share a key, (keys, group * L, d)."""
    return x[:, :, part.start : part.stop].flatten(1, 2)


def _path(x: Any, part: Segment) -> Any:
    """What the segment attends to, (keys, path, d)."""
    if len(part.ranges) == 1:
        return x[:, part.ranges[0][0] : part.ranges[0][1]]
    return torch.cat([x[:, start:stop] for start, stop in part.ranges], 1)


def _add(total: Any, rows: Any, part: Segment) -> None:
    done = 0
    for start, stop in part.ranges:
        total[:, start:stop] += rows[:, done : done + stop - start]
        done += stop - start
