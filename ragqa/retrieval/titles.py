"""Exact look-up of titles: from a folded title to the rows that bear it, memory-mapped."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from ragqa.errors import IndexDamagedError
from ragqa.files import HashingFile
from ragqa.retrieval.rows import GONE, new_rows
from ragqa.retrieval.text import fold


def title_hash(title: str) -> int:
    """64-bit hash of a folded title; a title of punctuation alone is taken as it is."""
    return xxhash.xxh3_64_intdigest((fold(title) or title.strip()).encode())


class TitleTable:
    """The hashes of all folded titles, sorted, each with its row: an array (2, n) of uint64.

    Different titles may share a hash, and titles that differ in case or punctuation do; who asks compares
    the titles themselves.
    """

    def __init__(self, table: npt.NDArray[np.uint64]) -> None:
        self._hashes, self._rows = table

    @classmethod
    def build(cls, titles: Iterable[str]) -> TitleTable:
        """The table of titles, given in the order of their rows."""
        hashes = np.fromiter((title_hash(title) for title in titles), np.uint64)
        order = np.argsort(hashes, kind="stable")
        return cls(np.stack([hashes[order], order.astype(np.uint64)]))

    def updated(self, kept: npt.NDArray[np.int64], titles: Iterable[str]) -> TitleTable:
        """The table after an update, as `build` makes it of all its titles.

        Args:
            kept: the rows that stay, ascending; they come first.
            titles: those of the rows after them, in their order.
        """
        rows = new_rows(kept, len(self))[self._rows.astype(np.int64)]
        stay = rows != GONE
        added = np.fromiter((title_hash(title) for title in titles), np.uint64)
        hashes = np.concatenate([self._hashes[stay], added])
        rows = np.concatenate([rows[stay].astype(np.uint64), np.arange(len(added), dtype=np.uint64) + len(kept)])
        order = np.argsort(hashes, kind="stable")
        return TitleTable(np.stack([hashes[order], rows[order]]))

    @classmethod
    def load(cls, path: Path) -> TitleTable:
        """Map a table written by `save`.

        Raises:
            IndexDamagedError: the file's size fits no table.
        """
        size = path.stat().st_size
        if not size or size % 16:
            raise IndexDamagedError(f"{path}: {size} bytes are no whole title table; build the index anew")
        return cls(np.asarray(np.memmap(path, "<u8", "r", shape=(2, size // 16))))

    def __len__(self) -> int:
        return len(self._hashes)

    def save(self, file: HashingFile) -> None:
        """Write the table, little-endian."""
        for part in (self._hashes, self._rows):
            file.write(np.ascontiguousarray(part, "<u8"))

    def rows(self, title: str) -> list[int]:
        """Rows whose title may be this one, ascending."""
        wanted = np.uint64(title_hash(title))
        start, stop = (np.searchsorted(self._hashes, wanted, side) for side in ("left", "right"))
        return [int(row) for row in self._rows[start:stop]]
