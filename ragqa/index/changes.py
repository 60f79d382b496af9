"""What a new catalogue changes in an index: which rows stay, and the products that are added or not the same any more.

A product is known by its id. One whose id, title and description are all the same stays. Texts are not compared but
their 128-bit hashes: with a million products on either side, the probability that any two different ones are taken for
the same is below 10⁻²⁶.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ragqa.catalogue.store import ProductStore, StoreWriter, to_batch
from ragqa.progress import progress_bar
from ragqa.records import Product

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Changes:
    """What the catalogue changes.

    Attributes:
        kept: (unchanged,) int64, the rows that stay, ascending.
        added: number of products whose id is new.
        changed: number of those whose title or description is not what it was.
        deleted: number of those that the catalogue does not have any more.
    """

    kept: npt.NDArray[np.int64]
    added: int
    changed: int
    deleted: int

    @property
    def unchanged(self) -> int:
        """Number of products that stay as they are."""
        return len(self.kept)

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.deleted)


class Comparison:
    """Takes the products of a new catalogue, and keeps those that the old store does not have.

    Args:
        old: the products of the index.
        fresh: takes the products that are new or changed, in the order of the catalogue.
    """

    def __init__(self, old: ProductStore, fresh: StoreWriter) -> None:
        contents, ids = [np.empty((0, 2), np.uint64)], [np.empty(0, np.uint64)]
        with progress_bar("comparing", len(old), "products") as bar:
            for _, batch in old.batches():
                contents.append(_content_hashes(batch))
                ids.append(_id_hashes(batch))
                bar.update(len(batch))
        hashes = np.concatenate(contents)
        self._rows = np.argsort(hashes[:, 0])
        self._contents = hashes[self._rows]
        self._firsts = np.ascontiguousarray(self._contents[:, 0])
        self._ids = np.sort(np.concatenate(ids))
        self._stays = np.zeros(len(old), np.bool_)
        self._fresh = fresh
        self._changed = 0

    def add(self, products: Sequence[Product]) -> None:
        """Take a block of cleaned products; no id comes twice in a catalogue."""
        batch = to_batch(products)
        hashes = _content_hashes(batch)
        places, same = _find(self._firsts, hashes[:, 0])
        same &= self._contents[places, 1] == hashes[:, 1]
        self._stays[self._rows[places[same]]] = True
        others = np.flatnonzero(~same)
        self._changed += int(_find(self._ids, _id_hashes(batch.take(pa.array(others))))[1].sum())
        self._fresh.add([products[number] for number in others.tolist()])

    def changes(self) -> Changes:
        """What all products together change."""
        kept = np.flatnonzero(self._stays)
        return Changes(
            kept,
            added=self._fresh.count - self._changed,
            changed=self._changed,
            deleted=len(self._stays) - len(kept) - self._changed,
        )


def _find(table: Hashes, wanted: Hashes) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Where each hash stands in an ascending table, not empty, and whether it does."""
    places = np.minimum(np.searchsorted(table, wanted), len(table) - 1)
    return places, table[places] == wanted


def _content_hashes(batch: pa.RecordBatch) -> Hashes:
    """128-bit hashes of id, title and description, (len(batch), 2)."""
    joined = pc.binary_join_element_wise(*batch.columns, "\0")  # a sign that cleaning takes out of all texts
    return np.frombuffer(b"".join(map(xxhash.xxh3_128_digest, _texts(joined))), np.uint64).reshape(-1, 2)


def _id_hashes(batch: pa.RecordBatch) -> Hashes:
    """64-bit hashes of the ids, (len(batch),), as cleaning has them."""
    return np.fromiter(map(xxhash.xxh3_64_intdigest, _texts(batch.column("id"))), np.uint64, len(batch))


def _texts(column: pa.StringArray) -> Iterator[memoryview]:
    """The UTF-8 bytes of each text, without a copy."""
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].tolist() if offsets else []
    view = memoryview(data or b"")
    return (view[start:end] for start, end in itertools.pairwise(ends))
