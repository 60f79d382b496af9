"""Which rows have a term, and what it adds to each one's BM25 score: one file, written in one pass, memory-mapped.

Scores are computed once, when the file is written (Lù 2024, BM25S, arXiv 2407.03618), so that a search only adds. The
variant is BM25+ (Lv, Zhai 2011) with the constants of `rank_bm25.BM25Plus`; its delta, which is added to all rows alike
and changes no order, is left out.

A file holds rows, scores and the table of terms, then 32 bytes that tell their numbers. Terms are known by 64-bit hashes
alone: no vocabulary has to be read when a file is opened.
"""

from __future__ import annotations

import functools
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash

from ragqa.errors import IndexDamagedError
from ragqa.files import HashingFile, storage_errors

K1: Final = 1.5
B: Final = 0.75
# At first a term's rows are kept by the first bits of its hash, in so many files: memory is bounded by the largest.
_PARTS: Final = 16
_ENTRY: Final = np.dtype([("term", "<u8"), ("row", "<u4"), ("count", "<u2")])
_FOOTER: Final = struct.Struct("<8sQQQ")
_MAGIC: Final = b"ragqa-p1"

Rows = npt.NDArray[np.uint32]
Scores = npt.NDArray[np.float32]


@functools.lru_cache(maxsize=1 << 17)
def term_hash(term: str) -> int:
    """64-bit hash of a term."""
    return xxhash.xxh3_64_intdigest(term.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class Postings:
    """The rows of all terms.

    Attributes:
        count: number of texts, with or without terms.
        terms: (T,) uint64, ascending hashes.
        starts: (T + 1,) int64: a term's rows are those from its start up to the next one's.
        most: (T,) float32, the largest of a term's scores.
        rows: (E,) uint32, ascending within a term.
        scores: (E,) float32, above 0.
    """

    count: int
    terms: npt.NDArray[np.uint64]
    starts: npt.NDArray[np.int64]
    most: Scores
    rows: Rows
    scores: Scores

    @classmethod
    def load(cls, path: Path, in_memory: bool = False) -> Postings:
        """Map, or read, a file written by `PostingsWriter`.

        Raises:
            IndexDamagedError: the file is not whole.
        """
        size = path.stat().st_size
        if size < _FOOTER.size:
            raise IndexDamagedError(f"{path}: {size} bytes are no postings; build the index anew")
        with path.open("rb") as file:
            file.seek(size - _FOOTER.size)
            magic, count, terms, entries = _FOOTER.unpack(file.read())
        if magic != _MAGIC or size != 8 * entries + 20 * terms + 8 + _FOOTER.size:
            raise IndexDamagedError(f"{path}: not whole postings; build the index anew")
        held = np.fromfile(path, np.uint8) if in_memory else np.memmap(path, np.uint8, "r")
        place = 0

        def take(kind: str, length: int) -> Any:
            nonlocal place
            start, place = place, place + length * np.dtype(kind).itemsize
            return held[start:place].view(kind)

        rows, scores = take("<u4", entries), take("<f4", entries)
        return cls(count, take("<u8", terms), take("<i8", terms + 1), take("<f4", terms), rows, scores)

    def find(self, term: str) -> int | None:
        """The place of a term in the table; None if no text has it."""
        return self.find_hash(term_hash(term))

    def find_hash(self, hashed: int) -> int | None:
        """The place of the term with this hash."""
        wanted = np.uint64(hashed)
        place = int(np.searchsorted(self.terms, wanted))
        return place if place < len(self.terms) and self.terms[place] == wanted else None

    def entries(self, place: int) -> tuple[Rows, Scores]:
        """The rows that have the term in a place of the table, ascending, and what it adds to their scores."""
        start, stop = int(self.starts[place]), int(self.starts[place + 1])
        return np.asarray(self.rows[start:stop]), np.asarray(self.scores[start:stop])


class PostingsWriter:
    """Collects the terms of texts, row by row, and writes their postings.

    Args:
        scratch: a folder for what is collected; its files are removed by `write`.
    """

    def __init__(self, scratch: Path) -> None:
        with storage_errors(scratch):
            scratch.mkdir(parents=True, exist_ok=True)
            self._files = [scratch / f"part-{number:02d}" for number in range(_PARTS)]
            for file in self._files:
                file.write_bytes(b"")
        self._scores = scratch / "scores"
        self._lengths: list[npt.NDArray[np.uint32]] = []
        self._count = 0

    def add(self, texts: Sequence[Sequence[str]]) -> None:
        """Append texts, each as its terms."""
        counters = [Counter(terms) for terms in texts]
        sizes = np.fromiter(map(len, counters), np.int64, len(counters))
        entries = np.empty(int(sizes.sum()), _ENTRY)
        hashes = (term_hash(term) for counter in counters for term in counter)
        entries["term"] = np.fromiter(hashes, np.uint64, len(entries))
        counts = (min(count, 65535) for counter in counters for count in counter.values())
        entries["count"] = np.fromiter(counts, np.uint16, len(entries))
        entries["row"] = np.repeat(np.arange(self._count, self._count + len(texts), dtype=np.uint32), sizes)
        parts = (entries["term"] >> np.uint64(60)).astype(np.intp)
        for number, file in enumerate(self._files):
            mine = entries[parts == number]
            with storage_errors(file), file.open("ab") as out:
                out.write(mine.tobytes())
        self._lengths.append(np.fromiter(map(len, texts), np.uint32, len(texts)))
        self._count += len(texts)

    def write(self, file: HashingFile, most_common: float = 1.0) -> None:
        """Write the postings.

        Args:
            file: where to.
            most_common: terms that a larger share of the texts has are left out.
        """
        lengths = np.concatenate(self._lengths) if self._lengths else np.empty(0, np.uint32)
        average = max(float(lengths.mean()) if len(lengths) else 0.0, 1e-9)
        norms = (K1 * (1 - B + B * lengths / average)).astype(np.float32)
        tables, entries = [], 0
        with storage_errors(self._scores), self._scores.open("wb") as scores:
            for part in self._files:
                terms, counts, rows, added = _scored(np.fromfile(part, _ENTRY), norms, most_common * self._count)
                part.unlink()
                file.write(rows)
                scores.write(added.tobytes())
                starts = np.cumsum(counts) - counts
                most = np.maximum.reduceat(added, starts) if len(terms) else added
                tables.append((terms, starts + entries, most))
                entries += len(rows)
        for block in _blocks(self._scores):
            file.write(block)
        self._scores.unlink()
        terms, starts, most = (np.concatenate(column) for column in zip(*tables, strict=True))
        for array, kind in ((terms, "<u8"), (np.append(starts, entries), "<i8"), (most, "<f4")):
            file.write(np.ascontiguousarray(array, kind))
        file.write(_FOOTER.pack(_MAGIC, self._count, len(terms), entries))


def _scored(entries: Any, norms: Scores, limit: float) -> tuple[Any, Any, Rows, Scores]:
    """Terms, their numbers of rows, and rows and scores of all of them, from entries in the order of their rows."""
    entries = entries[np.argsort(entries["term"], kind="stable")]
    terms, counts = np.unique(entries["term"], return_counts=True)
    kept = counts <= limit
    entries = entries[np.repeat(kept, counts)]
    terms, counts = terms[kept], counts[kept]
    weights = np.log((len(norms) + 1) / counts).astype(np.float32)
    often, rows = entries["count"].astype(np.float32), np.ascontiguousarray(entries["row"])
    scores = np.repeat(weights, counts) * often * np.float32(K1 + 1) / (often + norms[rows])
    return terms, counts, rows, scores.astype("<f4")


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            yield block
