"""The rows that share a question's words, best first by BM25 over titles and, with less weight, over descriptions.

A question touches few of the rows that have any of its words: lists are added from the one that can add most for each row
it has, and once a row that is only in the rest of them cannot be among the best k any more (the MaxScore bound of Turtle,
Flood 1995), they are looked up for the rows found so far alone. The result is that of adding all.
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
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ragqa.files import HashingFile
from ragqa.records import Product
from ragqa.retrieval.postings import K1, B, Pairs, Postings, PostingsWriter, Rows, Scores
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
MOST_COMMON: Final = 0.25
_BLOCK: Final = 4096
# Looking a row up in a list takes about as long as adding up so many of the list's rows.
_LOOKED_UP: Final = 10
# Rows of the lists that add most, by which it is told how good the k-th best must be at least.
_TRIED: Final = 4096
# From so many more rows on it is asked again.
_ADDED: Final = 32768


class _List(NamedTuple):
    """The rows that have a term, ascending, which pair each is, what it adds to each pair, and the most to one."""

    rows: Rows
    pairs: Pairs
    adding: Scores
    most: float


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
        self._rarity = functools.lru_cache(maxsize=4096)(lambda field, place: self._fields[field][0].rarity(place))

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
        if not hasattr(self._mine, "total"):
            self._mine.total = np.zeros(len(self), np.float32)
        # By row; all zeros between searches.
        total: Scores = self._mine.total
        found: list[Rows] = []
        try:
            lists, least = _add(self._lists(question), total, found, k)
            rows = np.concatenate(found) if found else np.empty(0, np.uint32)
            if lists:
                rows = _look_up(lists, total, rows, least)
            scores = total.take(rows)
            best = _best(rows, scores, k)
            return rows[best], scores[best]
        finally:
            for rows in found:
                total[rows] = 0

    def _lists(self, question: Sequence[str]) -> list[_List]:
        """The rows of each term in each field."""
        lists = []
        for (_, places), times in self._counted(question).items():
            for field, (place, (postings, weight)) in enumerate(zip(places, self._fields, strict=True)):
                if place is not None:
                    rows, pairs = postings.entries(place)
                    if len(rows):
                        factor = times * weight
                        adding = postings.saturation * (np.float32(factor) * self._rarity(field, place))
                        lists.append(_List(rows, pairs, adding, factor * float(postings.most[place])))
        return lists

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
    for name, writer, limit in ((TITLE_WORDS, titles, 1.0), (DESCRIPTION_WORDS, descriptions, MOST_COMMON)):
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


def _add(lists: Sequence[_List], total: Scores, found: list[Rows], k: int) -> tuple[list[_List], float]:
    """Add lists to the scores, until what is in none of them cannot be among the best k any more.

    Args:
        lists: those of a question.
        total: scores by row, all zero.
        found: gets the rows that are in any of the lists that were added.

    Returns:
        The other lists, and what the k-th best row will have at least.
    """
    # What adds most for each row that is read comes first.
    lists = sorted(lists, key=lambda one: -one.most / len(one.rows))
    rest, least, added = _rest(lists), -math.inf, 0
    for number, one in enumerate(lists):
        if added + len(one.rows) > _ADDED:
            least, added = max(least, _surely(lists[number:], total, found, k)), 0
        if least > rest[number]:
            return lists[number:], least
        places = one.rows.astype(np.intp)  # numpy would do so for each use of them
        before = total.take(places)
        found.append(one.rows[before == 0])
        total[places] = before + one.adding.take(one.pairs)
        added += len(places)
    return [], least


def _look_up(lists: Sequence[_List], total: Scores, rows: Rows, least: float) -> Rows:
    """Add lists to the scores of those rows that can still come to `least`; gives them back, ascending."""
    # With the ones that add most the rows soon get few.
    lists = sorted(lists, key=lambda one: -one.most)
    bounds = _rest(lists)
    rows = np.sort(rows[total.take(rows) > least - bounds[0]])
    for one, rest in zip(lists, bounds, strict=True):
        scores = total.take(rows)
        alive = scores > least - rest
        rows, scores = rows[alive], scores[alive]
        if len(rows) * _LOOKED_UP < len(one.rows):
            total[rows] = scores + _given(one, rows)
        else:
            places = one.rows.astype(np.intp)
            before = total.take(places)
            total[places] = np.where(before > 0, before + one.adding.take(one.pairs), np.float32(0))
    return rows


def _given(one: _List, rows: Rows) -> Scores:
    """What a list adds to each of some rows, (len(rows),)."""
    at, there = _find(one.rows, rows)
    return np.where(there, one.adding.take(one.pairs[at]), np.float32(0))


def _rest(lists: Sequence[_List]) -> list[float]:
    """What the lists from each one on can add to a row, and a little, for float32 adds with errors."""
    return [1.000001 * sum(one.most for one in lists[number:]) for number in range(len(lists))]


def _surely(lists: Sequence[_List], total: Scores, found: Sequence[Rows], k: int) -> float:
    """What the k-th best row will have at least: the k-th best of those that are best so far, once all lists are added."""
    tried = np.concatenate([rows[:_TRIED] for rows in found])[: max(_TRIED, k)] if found else np.empty(0, np.uint32)
    if len(tried) < k:
        return -math.inf
    rows = tried[np.argpartition(total[tried], -min(2 * k, len(tried)))[-2 * k :]]
    scores = total[rows]
    for one in lists:
        scores += _given(one, rows)
    # Added in this order or in another, a sum may differ by what float32 leaves out.
    return float(np.partition(scores, -k)[-k]) * 0.999999


def _best(rows: Rows, scores: Scores, k: int) -> npt.NDArray[np.intp]:
    if len(rows) > 4 * k:
        kept = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
        return kept[np.lexsort((rows[kept], -scores[kept]))][:k]
    return np.lexsort((rows, -scores))[:k]
