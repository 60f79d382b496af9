"""The rows that share a question's words, best first by BM25 over titles and, with less weight, over descriptions.

A question touches few of the rows that have any of its words: lists are taken from the one that can add most to the one
that adds least, and once a row that is only in the rest of them cannot be among the best k any more (the MaxScore bound
of Turtle, Flood 1995), they are looked up for the rows found so far alone. The result is that of adding all.
"""

from __future__ import annotations

import functools
import math
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from ragqa.files import HashingFile
from ragqa.records import Product
from ragqa.retrieval.postings import K1, B, Postings, PostingsWriter, Rows, Scores
from ragqa.retrieval.spelling import Spelling
from ragqa.retrieval.terms import terms

TITLE_WORDS: Final = "title-words.bin"
DESCRIPTION_WORDS: Final = "description-words.bin"
SPELLING: Final = "spelling.bin"
FILES: Final = (TITLE_WORDS, DESCRIPTION_WORDS, SPELLING)
# What a description's word adds to a score, against a title's.
DESCRIPTION_WEIGHT: Final = 0.5
# Words that more than this share of the descriptions have say nothing and would be most of the file: of them it is only
# known that they are words.
_MOST_COMMON: Final = 0.25
_BLOCK: Final = 4096


class LexicalSearch(Protocol):
    """What finds rows by their words."""

    def search(self, question: Sequence[str], k: int) -> tuple[Rows, Scores]:
        """The best k rows and their scores, best first."""


class RankBM25:
    """`rank_bm25.BM25Plus` over titles: the reference that `LexicalIndex` agrees with, reading all titles each time."""

    def __init__(self, titles: Sequence[str]) -> None:
        from rank_bm25 import BM25Plus

        self._bm25 = BM25Plus([terms(title) for title in titles], k1=K1, b=B)

    def search(self, question: Sequence[str], k: int) -> tuple[Rows, Scores]:
        """The best k rows and their scores, best first, equal ones by row."""
        scores = np.asarray(self._bm25.get_scores(list(question)), np.float32)
        best = _best(np.arange(len(scores), dtype=np.uint32), scores, k)
        return best.astype(np.uint32), scores[best]


class LexicalIndex:
    """BM25 search over titles and descriptions.

    Args:
        titles: postings of the titles.
        descriptions: those of as many descriptions; None to search titles alone.
        spelling: of the titles' words; None to take words as they are.
    """

    def __init__(
        self, titles: Postings, descriptions: Postings | None = None, spelling: Spelling | None = None
    ) -> None:
        self.titles = titles
        self.descriptions = descriptions
        self.spelling = spelling
        self._fields = [(titles, 1.0)] + ([(descriptions, DESCRIPTION_WEIGHT)] if descriptions else [])
        # A question's words are looked up for its search and for the coverage of what was found.
        self._mine = threading.local()
        self._places = functools.lru_cache(maxsize=1024)(self._looked_up)

    @classmethod
    def load(cls, folder: Path, in_memory: bool = False) -> LexicalIndex:
        """Map, or read, what `write_lexical` wrote.

        Raises:
            IndexDamagedError: a file is not whole.
        """
        titles, descriptions = (Postings.load(folder / name, in_memory) for name in (TITLE_WORDS, DESCRIPTION_WORDS))
        return cls(titles, descriptions, Spelling.load(folder / SPELLING, in_memory))

    def __len__(self) -> int:
        return self.titles.count

    def without_descriptions(self) -> LexicalIndex:
        """The same over titles alone, words taken as they are: what `rank_bm25.BM25Plus` ranks alike."""
        return LexicalIndex(self.titles)

    def search(self, question: Sequence[str], k: int) -> tuple[Rows, Scores]:
        """The best k rows and their scores, best first, equal ones by row; fewer where fewer have any of the terms.

        Args:
            question: its terms; one that stands there twice counts twice.
            k: how many.
        """
        lists = []
        for (_, places), times in self._counted(question).items():
            for place, (postings, weight) in zip(places, self._fields, strict=True):
                if place is not None:
                    here, adding = postings.entries(place)
                    factor = times * weight
                    if len(here):
                        lists.append((here, adding, factor, factor * float(postings.most[place])))
        lists.sort(key=lambda one: -one[3])
        # What the lists from each one on can add to a row.
        bounds = np.cumsum([most for *_, most in lists][::-1])[::-1]
        rows, scores, rest = self._merged(lists, bounds, k)
        for number in range(rest, len(lists)):
            least = float(np.partition(scores, -k)[-k])
            alive = scores > least - bounds[number] * 1.000001
            rows, scores = rows[alive], scores[alive]
            here, adding, factor, _ = lists[number]
            at, there = _find(here, rows)
            scores = scores + np.where(there, adding[at] * np.float32(factor), np.float32(0))
        best = _best(rows, scores, k)
        return rows[best], scores[best]

    def _merged(
        self, lists: Sequence[tuple[Rows, Scores, float, float]], bounds: Scores, k: int
    ) -> tuple[Rows, Scores, int]:
        """The rows of the first lists with their scores, and how many lists: what none of these has is not among the best."""
        if not hasattr(self._mine, "total"):
            self._mine.total = np.zeros(len(self), np.float32)
        # By row; all zeros between searches.
        total: Scores = self._mine.total
        found: list[Rows] = []
        try:
            for number, (here, adding, factor, _) in enumerate(lists):
                # None can have more than the lists before can add.
                if bounds[0] - bounds[number] > bounds[number] and sum(map(len, found)) >= k:
                    rows = np.concatenate(found)
                    found, scores = [rows], total[rows]
                    if float(np.partition(scores, -k)[-k]) > bounds[number]:
                        return rows, scores, number
                before = total[here]
                found.append(here[before == 0])
                total[here] = before + adding * np.float32(factor)
            rows = np.concatenate(found) if found else np.empty(0, np.uint32)
            return rows, total[rows], len(lists)
        finally:
            for rows in found:
                total[rows] = 0

    def coverage(self, question: Sequence[str], rows: Rows) -> Scores:
        """The share of a question's terms that rows have, in title or description, (len(rows),) in [0, 1].

        Terms weigh as much as they are rare; one that no product has counts as the rarest there could be. One that too
        many descriptions have counts as if none had it.
        """
        covered, total = np.zeros(len(rows), np.float32), 0.0
        for _, places in self._counted(question):
            held, common = np.zeros(len(rows), np.bool_), 1
            for place, (postings, _) in zip(places, self._fields, strict=True):
                if place is not None:
                    here, _ = postings.entries(place)
                    if len(here):
                        held |= _find(here, rows)[1]
                        common = max(common, len(here))
            rarity = math.log((len(self) + 1) / common)
            total += rarity
            covered += held * np.float32(rarity)
        return covered / np.float32(max(total, 1e-9))

    def _counted(self, question: Sequence[str]) -> dict[tuple[str, tuple[int | None, ...]], int]:
        """Each term with its places in the fields, and how often it stands in the question."""
        return {(term, self._places(term)): times for term, times in Counter(question).items()}

    def _looked_up(self, term: str) -> tuple[int | None, ...]:
        # One that too many descriptions have has a place there too, and is no mistake for another.
        places: tuple[int | None, ...] = tuple(postings.find(term) for postings, _ in self._fields)
        if self.spelling is None or any(place is not None for place in places):
            return places
        meant = self.spelling.meant(term, self.titles)
        if meant is None:
            return places
        known = int(self.titles.terms[meant])
        return (meant, *(postings.find_hash(known) for postings, _ in self._fields[1:]))


def write_lexical(
    products: Iterable[Product],
    folder: Path,
    scratch: Path,
    progress: Callable[[int], Any] | None = None,
    old: LexicalIndex | None = None,
    kept: npt.NDArray[np.int64] | None = None,
) -> dict[str, HashingFile]:
    """Write the lexical index of products, given in the order of their rows.

    Args:
        products: with `old`, those that come after the rows kept of it; no others are read.
        folder: where `FILES` are written.
        scratch: a folder for what is collected meanwhile; removed at the end.
        progress: is told how many more products are read.
        old: an index that is updated; what is written is what would be written of all products, but that a word which
            once too many descriptions had stays left out.
        kept: its rows that stay, ascending; they come first.

    Returns:
        The files, closed.
    """
    titles = PostingsWriter(scratch / "titles", None if old is None else old.titles, kept)
    descriptions = PostingsWriter(scratch / "descriptions", None if old is None else old.descriptions, kept)
    words: set[str] = set()
    for block in _blocks(products):
        found = [terms(product.title) for product in block]
        words.update(*found)
        titles.add(found)
        descriptions.add([terms(product.description) for product in block])
        if progress:
            progress(len(block))
    files = {}
    for name, writer, limit in ((TITLE_WORDS, titles, 1.0), (DESCRIPTION_WORDS, descriptions, _MOST_COMMON)):
        with HashingFile(folder / name) as file:
            writer.write(file, limit)
        files[name] = file
    written = Postings.load(folder / TITLE_WORDS)
    with HashingFile(folder / SPELLING) as file:
        if old is not None and old.spelling is not None:
            old.spelling.updated(old.titles, written, words).save(file)
        else:
            Spelling.build(words, written).save(file)
    shutil.rmtree(scratch)
    return files | {SPELLING: file}


def build_lexical(products: Iterable[Product]) -> LexicalIndex:
    """The lexical index of products that is kept nowhere."""
    with tempfile.TemporaryDirectory() as folder:
        write_lexical(products, Path(folder), Path(folder) / "scratch")
        return LexicalIndex.load(Path(folder), in_memory=True)


def _blocks(products: Iterable[Product]) -> Iterable[list[Product]]:
    block: list[Product] = []
    for product in products:
        block.append(product)
        if len(block) == _BLOCK:
            yield block
            block = []
    if block:
        yield block


def _find(here: Rows, rows: Rows) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Where each of some rows would stand in a list, and whether it does."""
    places = np.minimum(np.searchsorted(here, rows), len(here) - 1)
    return places, here[places] == rows


def _best(rows: Rows, scores: Scores, k: int) -> npt.NDArray[np.intp]:
    if len(rows) > 4 * k:
        kept = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
        return kept[np.lexsort((rows[kept], -scores[kept]))][:k]
    return np.lexsort((rows, -scores))[:k]
