"""Groups of products that must not be parted by a split: the same title, or near-identical descriptions.

Near-identical is a Jaccard similarity of at least 0.8 between the sets of four-word shingles, estimated by
MinHash (Broder 1997) with banding, so that not every pair is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import xxhash

from ragqa.records import Product
from ragqa.retrieval.text import fold

_SHINGLE: Final = 4
_ROWS: Final = 4
_BANDS: Final = 16
_SIMILAR: Final = 0.8


class _Union:
    """Disjoint sets; the smallest member stands for its set."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def find(self, member: int) -> int:
        while self._parent[member] != member:
            self._parent[member] = self._parent[self._parent[member]]
            member = self._parent[member]
        return member

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.find(one), self.find(other)))
        self._parent[high] = low


def product_groups(products: Sequence[Product]) -> list[int]:
    """For each product the number of its group: the first product in it.

    Products of one folded title belong together, and those with near-identical descriptions; both relations
    are followed through, so a group may join titles by way of a shared description.
    """
    union = _Union(len(products))
    first_of: dict[str, int] = {}
    for row, product in enumerate(products):
        union.join(row, first_of.setdefault(fold(product.title) or product.title, row))
    signatures = np.stack([_signature(product.description) for product in products])
    for band in range(_BANDS):
        part = np.ascontiguousarray(signatures[:, band * _ROWS : (band + 1) * _ROWS])
        keys = part.view(f"V{8 * _ROWS}").ravel()
        order = np.argsort(keys, kind="stable")
        same = keys[order[1:]] == keys[order[:-1]]
        start = 0
        for i in range(1, len(order)):
            if not same[i - 1]:
                start = i
                continue
            # Against the first and the previous of the bucket: enough to chain what is alike.
            for other in {int(order[start]), int(order[i - 1])}:
                row = int(order[i])
                if union.find(row) != union.find(other) and _alike(signatures[row], signatures[other]):
                    union.join(row, other)
    return [union.find(row) for row in range(len(products))]


def _alike(one: npt.NDArray[np.uint64], other: npt.NDArray[np.uint64]) -> bool:
    return bool(np.mean(one == other) >= _SIMILAR)


_RANDOM: Final = np.random.Generator(np.random.PCG64(20231)).integers(
    0, 2**64, size=(2, _BANDS * _ROWS), dtype=np.uint64
)
_MULTIPLY: Final = _RANDOM[0] | np.uint64(1)
_ADD: Final = _RANDOM[1]


def _signature(text: str) -> npt.NDArray[np.uint64]:
    """MinHash signature of a description, (bands * rows,); texts under four words have one shingle."""
    words = fold(text).split()
    shingles = {" ".join(words[i : i + _SHINGLE]) for i in range(max(len(words) - _SHINGLE + 1, 1))}
    hashes = np.fromiter((xxhash.xxh3_64_intdigest(s.encode()) for s in shingles), np.uint64, len(shingles))
    with np.errstate(over="ignore"):
        mixed = hashes[:, None] * _MULTIPLY + _ADD
    result: npt.NDArray[np.uint64] = (mixed ^ (mixed >> np.uint64(29))).min(axis=0)
    return result
