"""Words that no product has -> the words that were meant: for titles as people mistype them.

A word is found by what is left of it without one of its letters (Garbe 2012, SymSpell): of two words that differ by one
letter too many, too few, another one or two swapped, some such remainders agree. The first letter is taken to be right,
as it mostly is (Yannakoudakis, Fawthrop 1983). Only hashes are kept, so that no vocabulary has to be read.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ragqa.errors import IndexDamagedError
from ragqa.files import HashingFile
from ragqa.retrieval.postings import Postings, term_hash

_LENGTHS: Final = range(4, 25)
_WHOLE: Final = np.uint32(1 << 31)  # marks the remainder that is the word itself
_PLACE: Final = ~_WHOLE


def remainders(word: str) -> Iterator[str]:
    """The word, then it without each letter but the first; nothing of what is no word, or too short to be told apart."""
    if len(word) in _LENGTHS and word.isalpha():
        yield word
        yield from dict.fromkeys(word[:i] + word[i + 1 :] for i in range(1, len(word)))


@dataclass(frozen=True, slots=True)
class Spelling:
    """The remainders of all words of the titles.

    Attributes:
        hashes: (n,) uint64, ascending, equal ones by place.
        places: (n,) uint32, the word's place in the titles' postings, and `_WHOLE` where the remainder is the word.
    """

    hashes: npt.NDArray[np.uint64]
    places: npt.NDArray[np.uint32]

    @classmethod
    def build(cls, words: Iterable[str], postings: Postings) -> Spelling:
        """The table of these words, each given once; the postings have all of them."""
        found, sizes = array("Q"), array("Q")
        for word in words:
            before = len(found)
            found.extend(map(term_hash, remainders(word)))
            sizes.append(len(found) - before)
        hashes, counts = np.array(found, np.uint64), np.array(sizes, np.int64)
        counts = counts[counts > 0]
        whole = np.cumsum(counts) - counts  # a word's first remainder is the word itself
        places = np.repeat(np.searchsorted(postings.terms, hashes[whole]).astype(np.uint32), counts)
        places[whole] |= _WHOLE
        return cls._sorted(hashes, places)

    @classmethod
    def _sorted(cls, hashes: npt.NDArray[np.uint64], places: npt.NDArray[np.uint32]) -> Spelling:
        order = np.lexsort((places & _PLACE, hashes))
        return cls(hashes[order], places[order])

    def updated(self, old: Postings, new: Postings, words: Iterable[str]) -> Spelling:
        """The table after an update, as `build` makes it of all words of the new titles.

        Args:
            old: the postings that this table belongs to.
            new: those it shall belong to. Words that they do not have are dropped.
            words: of the titles that were added, each given once.
        """
        places = np.searchsorted(new.terms, old.terms)
        stay = np.zeros(len(places), np.bool_)
        if len(new.terms):
            stay = new.terms[np.minimum(places, len(new.terms) - 1)] == old.terms
        mine = self.places & _PLACE
        kept = stay[mine]
        moved = places[mine[kept]].astype(np.uint32) | (self.places[kept] & _WHOLE)
        added = self.build((word for word in words if old.find(word) is None), new)
        return self._sorted(np.concatenate([self.hashes[kept], added.hashes]), np.concatenate([moved, added.places]))

    @classmethod
    def load(cls, path: Path, in_memory: bool = False) -> Spelling:
        """Map, or read, a table written by `save`.

        Raises:
            IndexDamagedError: the file's size fits no table.
        """
        size = path.stat().st_size
        if size % 12:
            raise IndexDamagedError(f"{path}: {size} bytes are no whole spelling table; build the index anew")
        if not size:
            return cls(np.empty(0, np.uint64), np.empty(0, np.uint32))
        held = np.fromfile(path, np.uint8) if in_memory else np.asarray(np.memmap(path, np.uint8, "r"))
        return cls(held[: size // 12 * 8].view("<u8"), held[size // 12 * 8 :].view("<u4"))

    def save(self, file: HashingFile) -> None:
        """Write the table, little-endian."""
        file.write(np.ascontiguousarray(self.hashes, "<u8"))
        file.write(np.ascontiguousarray(self.places, "<u4"))

    def meant(self, word: str, postings: Postings) -> int | None:
        """The place of the word that was most likely meant: near in letters first, then frequent; None for none.

        Args:
            word: that no title has.
            postings: of the titles.
        """
        best: tuple[bool, int, int] | None = None
        for number, remainder in enumerate(remainders(word)):
            wanted = np.uint64(term_hash(remainder))
            start, stop = (int(np.searchsorted(self.hashes, wanted, side)) for side in ("left", "right"))
            for marked in self.places[start:stop]:
                place, whole = int(marked & _PLACE), bool(marked & _WHOLE)
                common = int(postings.starts[place + 1] - postings.starts[place])
                # One letter more or less before another letter or two swapped.
                found = (bool(number) and not whole, -common, place)
                best = min(best, found) if best else found
        return best[2] if best else None
