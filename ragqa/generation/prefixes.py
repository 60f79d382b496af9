"""What a model has read of prompts, kept for those that begin alike.

All prompts of one template begin with the same instructions, and those about the same candidates go on alike up to the
question. Keys and values of the longest beginning that a prompt shares with one that was read before are used again;
what was read longest ago is forgotten.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Known:
    """Keys and values of a prompt, by layer, (1, heads, tokens, n) each."""

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(one.numel() * one.element_size() for layer in self.layers for one in layer)

    def beginning(self, tokens: int, rows: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Those of the first tokens, by layer, (rows, heads, tokens, n) each."""
        return [
            (keys[:, :, :tokens].expand(rows, -1, -1, -1), values[:, :, :tokens].expand(rows, -1, -1, -1))
            for keys, values in self.layers
        ]


class Prefixes:
    """Keys and values of the prompts read last. May be shared between threads.

    Args:
        most: bytes of keys and values that are kept; one prompt is always kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[tuple[int, ...], Known] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._size

    def longest(self, prompts: Sequence[Sequence[int]]) -> tuple[int, Known | None]:
        """The longest beginning that is known and that all of some prompts share; not the whole of any of them.

        Returns:
            How many tokens it has, and what is known; 0 and None where nothing is.
        """
        most = min(map(len, prompts)) - 1
        for prompt in prompts[1:]:
            most = min(most, _alike(prompts[0], prompt))
        with self._lock:
            best, place = max(
                ((min(most, _alike(prompts[0], known)), number) for number, known in enumerate(self._known)),
                default=(0, 0),
            )
            if best < 1:
                return 0, None
            ids = next(known for number, known in enumerate(self._known) if number == place)
            self._known.move_to_end(ids)
            return best, self._known[ids]

    def keep(self, prompt: Sequence[int], cache: Any, row: int) -> None:
        """Keep what a model has just read.

        Args:
            prompt: token ids; the first that the cache has in this row.
            cache: of the model.
            row: of the cache.
        """
        here, tokens = slice(row, row + 1), len(prompt)
        # Copied: a view would hold all of the cache.
        known = Known(
            tuple(
                (layer.keys[here, :, :tokens].clone(), layer.values[here, :, :tokens].clone()) for layer in cache.layers
            )
        )
        with self._lock:
            if self._known.pop(tuple(prompt), None) is None:
                self._size += known.size
            self._known[tuple(prompt)] = known
            for ids in list(self._beyond()):
                self._size -= self._known.pop(ids).size

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._known.clear()
            self._size = 0

    def _beyond(self) -> Iterator[tuple[int, ...]]:
        size = self._size
        for ids, known in list(self._known.items())[:-1]:
            if size <= self._most:
                return
            size -= known.size
            yield ids


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two prompts begin with alike."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
