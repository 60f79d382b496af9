"""Which rows have a term, and what it adds to each one's BM25 score: one file, written in one pass, memory-mapped.

The variant is BM25+ (Lv, Zhai 2011) with the constants of `rank_bm25.BM25Plus`; its delta, which is added to all rows alike
and changes no order, is left out. What a term adds to a row is how rare the term is, times how much the row's text is about
it, and the second depends on no more than how often the text has the term and how long it is. Texts share few such pairs,
so that a file says for each row of a term which pair it is, in 2 bytes, exactly, where the score itself would take 4. With
the pairs it has all that an update needs, which reads no text.

A file holds rows, the table of terms, lengths, pairs, the pair of each row, then 48 bytes that tell their numbers. Terms are
known by 64-bit hashes alone: no vocabulary has to be read when a file is opened.
"""

from __future__ import annotations

import functools
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from ragqa.errors import IndexDamagedError
from ragqa.files import HashingFile, storage_errors
from ragqa.retrieval.rows import GONE, new_rows
from ragqa.retrieval.text import LONGEST_KEPT

K1: Final = 1.5
B: Final = 0.75
# At first a term's rows are kept by the first bits of its hash, in so many files: memory is bounded by the largest.
_PARTS: Final = 16
_SHIFT: Final = np.uint64(60)
_ENTRY: Final = np.dtype([("term", "<u8"), ("row", "<u4"), ("count", "u1")])
_FOOTER: Final = struct.Struct("<8sQQQQQ")
_MAGIC: Final = b"ragqa-p3"
_MOST_IN_TWO_BYTES: Final = 1 << 16
_MOST_COUNTED: Final = 255  # one that a text has more often counts as this many

Rows = npt.NDArray[np.uint32]
Scores = npt.NDArray[np.float32]
Counts = npt.NDArray[np.uint8]
Pairs = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


def term_hash(term: str) -> int:
    """64-bit hash of a term."""
    return _known_hash(term) if len(term) <= LONGEST_KEPT else _hash(term)


def _hash(term: str) -> int:
    return xxhash.xxh3_64_intdigest(term.encode("utf-8", "surrogatepass"))


_known_hash = functools.lru_cache(maxsize=1 << 17)(_hash)


@dataclass(frozen=True, slots=True)
class Postings:
    """The rows of all terms.

    Attributes:
        count: number of texts, with or without terms.
        terms: (T,) uint64, ascending hashes.
        starts: (T + 1,) int64: a term's rows are those from its start up to the next one's; none where the term was
            left out as too common.
        most: (T,) float32, the largest of a term's scores, 0 where it has none.
        rows: (E,) uint32, ascending within a term.
        pairs: (E,) uint16, or uint32 where there are more than 65,536 of them: which pair a row and a term are.
        lengths: (count,) uint32, the texts' lengths in terms.
        counts: (P,) uint8, how often a text of each pair has its term, 255 for more.
        saturation: (P,) float32, above 0: how much such a text is about it.
    """

    count: int
    terms: npt.NDArray[np.uint64]
    starts: npt.NDArray[np.int64]
    most: Scores
    rows: Rows
    pairs: Pairs
    lengths: npt.NDArray[np.uint32]
    counts: Counts
    saturation: Scores

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
            magic, count, terms, entries, pairs, length = _FOOTER.unpack(file.read())
        width = _width(pairs)
        whole = (4 + width) * entries + 4 * (entries % 2) + 20 * terms + 8 + 4 * count + 5 * pairs + _FOOTER.size
        if magic != _MAGIC or size != whole:
            raise IndexDamagedError(f"{path}: not whole postings; build the index anew")
        # As a plain array: slices of a `memmap` take several times as long to make.
        held = np.fromfile(path, np.uint8) if in_memory else np.asarray(np.memmap(path, np.uint8, "r"))
        place = 0

        def take(kind: str, length: int) -> Any:
            nonlocal place
            start, place = place, place + length * np.dtype(kind).itemsize
            return held[start:place].view(kind)

        rows = take("<u4", entries + entries % 2)[:entries]
        table = take("<u8", terms), take("<i8", terms + 1), take("<f4", terms)
        lengths, of_pairs = take("<u4", count), take("<u4", pairs)
        which, counts = take(f"<u{width}", entries), take("u1", pairs)
        return cls(count, *table, rows, which, lengths, counts, _saturation(counts, of_pairs, length / max(count, 1)))

    def find(self, term: str) -> int | None:
        """The place of a term in the table; None if no text has it. One that was left out is there, without rows."""
        return self.find_hash(term_hash(term))

    def find_hash(self, hashed: int) -> int | None:
        """The place of the term with this hash."""
        wanted = np.uint64(hashed)
        place = int(np.searchsorted(self.terms, wanted))
        return place if place < len(self.terms) and self.terms[place] == wanted else None

    def entries(self, place: int) -> tuple[Rows, Pairs]:
        """The rows that have the term in a place of the table, ascending, and which pair each is with it."""
        start, stop = int(self.starts[place]), int(self.starts[place + 1])
        return self.rows[start:stop], self.pairs[start:stop]

    def rarity(self, place: int) -> np.float32:
        """How rare the term in a place of the table is."""
        return np.float32(_rarities(self.starts[place + 1] - self.starts[place], self.count))


class _Lists(NamedTuple):
    """Rows by term.

    Attributes:
        terms: (t,) uint64, ascending hashes.
        sizes: (t,) int64, how many rows each has; none for one that is left out.
        rows: (e,) uint32, those of the first term, ascending, then those of the second, ...
        counts: (e,) uint8.
    """

    terms: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.int64]
    rows: Rows
    counts: Counts


class PostingsWriter:
    """Collects the terms of texts, row by row, and writes their postings.

    With `old` postings it updates them: what it writes is, byte for byte, what it would write if all texts were added
    in the order of their rows, but that a term once left out as too common stays left out.

    Args:
        scratch: a folder for what is collected; its files are removed by `write`.
        old: postings whose rows stand before those of the texts that are added.
        kept: which of their rows, ascending int64.
    """

    def __init__(self, scratch: Path, old: Postings | None = None, kept: npt.NDArray[np.int64] | None = None) -> None:
        with storage_errors(scratch):
            scratch.mkdir(parents=True, exist_ok=True)
            self._files = [scratch / f"part-{number:02d}" for number in range(_PARTS)]
            for file in self._files:
                file.write_bytes(b"")
        self._pairs = scratch / "pairs"
        self._old, self._kept = old, np.empty(0, np.int64) if kept is None else kept
        self._lengths = [old.lengths[self._kept]] if old else []
        self._count = len(self._kept)

    def add(self, texts: Sequence[Sequence[str]]) -> None:
        """Append texts, each as its terms."""
        counters = [Counter(terms) for terms in texts]
        sizes = np.fromiter(map(len, counters), np.int64, len(counters))
        entries = np.empty(int(sizes.sum()), _ENTRY)
        hashes = (term_hash(term) for counter in counters for term in counter)
        entries["term"] = np.fromiter(hashes, np.uint64, len(entries))
        counts = (min(count, _MOST_COUNTED) for counter in counters for count in counter.values())
        entries["count"] = np.fromiter(counts, np.uint8, len(entries))
        entries["row"] = np.repeat(np.arange(self._count, self._count + len(texts), dtype=np.uint32), sizes)
        parts = (entries["term"] >> _SHIFT).astype(np.intp)
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
            most_common: of terms that a larger share of the texts has, it is only kept that they are there.
        """
        lengths = np.concatenate(self._lengths) if self._lengths else np.empty(0, np.uint32)
        # Each pair there could be, by number: so many of one count, then of the next one.
        distinct, of_row = np.unique(lengths, return_inverse=True)
        of_row, several = of_row.astype(np.uint32), np.arange(_MOST_COUNTED + 1, dtype=np.uint8).repeat(len(distinct))
        length = int(lengths.sum(dtype=np.int64))
        saturation = _saturation(several, np.tile(distinct, _MOST_COUNTED + 1), length / max(len(lengths), 1))
        used = np.zeros(len(saturation), np.bool_)
        moved = new_rows(self._kept, self._old.count) if self._old else np.empty(0, np.uint32)
        tables, entries = [], 0
        with storage_errors(self._pairs), self._pairs.open("wb") as scratch:
            for number, part in enumerate(self._files):
                lists = _listed(np.fromfile(part, _ENTRY))
                part.unlink()
                if self._old:
                    lists = _joined(_remaining(self._old, number, moved), lists)
                lists = _without_common(lists, most_common * self._count)
                file.write(np.ascontiguousarray(lists.rows, "<u4"))
                pairs = lists.counts * np.uint32(len(distinct)) + of_row[lists.rows]
                used[pairs] = True
                scratch.write(pairs.tobytes())
                starts = np.cumsum(lists.sizes) - lists.sizes
                most = _most(saturation.take(pairs), lists.sizes, starts, len(lengths))
                tables.append((lists.terms, starts + entries, most))
                entries += len(lists.rows)
        file.write(bytes(4 * (entries % 2)))  # what follows begins at a multiple of 8 bytes
        terms, starts, most = (np.concatenate(column) for column in zip(*tables, strict=True))
        there = np.flatnonzero(used)
        of_pairs = np.tile(distinct, _MOST_COUNTED + 1)[there]
        for array, kind in (
            (terms, "<u8"), (np.append(starts, entries), "<i8"), (most, "<f4"), (lengths, "<u4"), (of_pairs, "<u4")
        ):  # fmt: skip
            file.write(np.ascontiguousarray(array, kind))
        which = (np.cumsum(used) - 1).astype(f"<u{_width(len(there))}")
        with storage_errors(self._pairs), self._pairs.open("rb") as scratch:
            while len(block := np.fromfile(scratch, np.uint32, 1 << 20)):
                file.write(which[block])
        self._pairs.unlink()
        file.write(several[there])
        file.write(_FOOTER.pack(_MAGIC, self._count, len(terms), entries, len(there), length))


def _listed(entries: Any) -> _Lists:
    """Rows by term, from entries in the order of their rows."""
    entries = entries[np.argsort(entries["term"], kind="stable")]
    terms = np.ascontiguousarray(entries["term"])
    starts = np.flatnonzero(np.append(True, terms[1:] != terms[:-1])[: len(terms)])
    sizes = np.diff(starts, append=len(terms))
    return _Lists(terms[starts], sizes, np.ascontiguousarray(entries["row"]), np.ascontiguousarray(entries["count"]))


def _remaining(old: Postings, part: int, moved: Rows) -> _Lists:
    """What remains of a part of old postings: the new rows of each term, without terms that no row has any more.

    Args:
        old: the old postings.
        part: its number.
        moved: the new row of each old one, or `GONE`.
    """
    first, last = (
        int(np.searchsorted(old.terms, np.uint64(at) << _SHIFT)) if at < _PARTS else len(old.terms)
        for at in (part, part + 1)
    )
    starts = old.starts[first : last + 1]
    here = slice(int(starts[0]), int(starts[-1]))
    rows = moved[old.rows[here]]
    stay = rows != GONE
    # How many stay before each start.
    before = np.concatenate([[0], np.cumsum(stay)])[starts - starts[0]]
    sizes = np.diff(before)
    known = (sizes > 0) | (np.diff(starts) == 0)
    return _Lists(old.terms[first:last][known], sizes[known], rows[stay], old.counts[old.pairs[here][stay]])


def _joined(one: _Lists, other: _Lists) -> _Lists:
    """Two lists as one; the first one's rows come before the other's, and a term it leaves out stays left out."""
    places = np.searchsorted(one.terms, other.terms)
    known = np.append(one.terms, np.uint64(0))[places] == other.terms
    known &= places < len(one.terms)
    wanted = ~known | (np.append(one.sizes, 0)[places] > 0)
    if not wanted.all():
        entries = np.repeat(wanted, other.sizes)
        other = _Lists(other.terms[wanted], other.sizes[wanted], other.rows[entries], other.counts[entries])
        places, known = places[wanted], known[wanted]
    # The table of both: the other one's new terms between those of the first.
    terms = np.insert(one.terms, places[~known], other.terms[~known])
    sizes = np.zeros((len(terms), 2), np.int64)
    sizes[:, 0] = np.insert(one.sizes, places[~known], 0)
    sizes[places + np.cumsum(~known) - ~known, 1] = other.sizes
    # Whose each entry is: a term's from the first, then its from the other.
    later = np.repeat(np.tile([False, True], len(terms)), sizes.ravel())
    rows, counts = np.empty(len(later), np.uint32), np.empty(len(later), np.uint8)
    rows[later], counts[later] = other.rows, other.counts
    rows[~later], counts[~later] = one.rows, one.counts
    return _Lists(terms, sizes.sum(1), rows, counts)


def _without_common(lists: _Lists, limit: float) -> _Lists:
    """The lists without the rows of terms that have more of them than `limit`."""
    wanted = lists.sizes <= limit
    if wanted.all():
        return lists
    entries = np.repeat(wanted, lists.sizes)
    return _Lists(lists.terms, lists.sizes * wanted, lists.rows[entries], lists.counts[entries])


def _width(pairs: int) -> int:
    """The bytes that it takes to say which of so many pairs one is."""
    return 2 if pairs <= _MOST_IN_TWO_BYTES else 4


def _saturation(counts: Counts, lengths: npt.NDArray[np.uint32], average: float) -> Scores:
    """How much texts of these lengths are about a term that they have so often, (len(counts),)."""
    often, norms = counts.astype(np.float32), K1 * (1 - B + B * lengths / max(average, 1e-9))
    found: Scores = often * np.float32(K1 + 1) / (often + norms.astype(np.float32))
    return found


def _rarities(sizes: Any, count: int) -> Any:
    """How rare terms are that so many of `count` texts have."""
    return np.log((count + 1) / np.maximum(sizes, 1)).astype(np.float32)


def _most(saturation: Scores, sizes: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], count: int) -> Scores:
    """The largest score of each term, 0 where it has no rows."""
    most, there = np.zeros(len(sizes), np.float32), sizes > 0
    if len(saturation):
        most[there] = np.maximum.reduceat(saturation, starts[there])
    most *= _rarities(sizes, count)
    return most
