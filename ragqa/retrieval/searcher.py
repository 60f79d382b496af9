"""What a retriever asks: which rows are near a question, share its words, or bear its title, and what is known of them.

A searcher finds; the retriever puts in order. So every index, on this machine or on others, gives the same answers as far as
it finds the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from ragqa.records import Product
from ragqa.retrieval.dense import DenseIndex
from ragqa.retrieval.embed import Vectors
from ragqa.retrieval.lexical import LexicalIndex, LexicalSearch, RankBM25
from ragqa.retrieval.postings import Rows, Scores
from ragqa.retrieval.rows import rows_that_are_there
from ragqa.retrieval.titles import TitleTable
from ragqa.settings import Lexical

# For a title the rows that may bear it, each with its own title.
Titled = Callable[[str], Sequence[tuple[int, str]]]


class Products(Protocol):
    """Products by row: a `ProductStore`, or a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> Product: ...


class Found(NamedTuple):
    """The rows that searches found for a question.

    Attributes:
        lists: those of the nearest titles and those that share its words, each best first.
        rows: (n,) all of them and those that bear its title, ascending.
        cosines: (n,) of their titles' vectors and the question's.
        coverage: (n,) see `LexicalIndex.coverage`.
    """

    lists: tuple[Sequence[int], Sequence[int]]
    rows: Rows
    cosines: Vectors
    coverage: Scores


class Searcher(Protocol):
    """Finds rows for questions, several at once."""

    def __len__(self) -> int:
        """How many products there are."""

    def products(self, rows: Sequence[int]) -> list[Product]:
        """The products of these rows, in their order."""

    def titled(self, readings: Sequence[str]) -> Titled:
        """What finds the rows of these titles, and of no others."""

    def search(
        self,
        vectors: Vectors,
        words: Sequence[Sequence[str]],
        exact: Sequence[frozenset[int]],
        depths: tuple[int, int],
        lexical: Lexical = "postings",
    ) -> list[Found]:
        """What is found for each question.

        Args:
            vectors: (n, dimension) unit vectors of the questions.
            words: their terms.
            exact: for each the rows that bear its title.
            depths: how many rows of the nearest titles, and how many that share words.
            lexical: see `AnswerSettings`.

        Raises:
            IndexDamagedError: parts of the index name rows that are not there.
        """


class LocalSearcher:
    """Searches an index on this machine.

    Args:
        store: the products, by row.
        dense: unit vectors of their titles, by row.
        titles: rows by exact title.
        lexical: rows by words of titles and descriptions.
    """

    def __init__(self, store: Products, dense: DenseIndex, titles: TitleTable, lexical: LexicalIndex) -> None:
        self._store = store
        self._dense = dense
        self._titles = titles
        self._lexical = lexical
        self._reference: LexicalSearch | None = None

    def __len__(self) -> int:
        return len(self._store)

    def products(self, rows: Sequence[int]) -> list[Product]:
        """The products of these rows, in their order."""
        return [self._store[row] for row in rows]

    def titled(self, readings: Sequence[str]) -> Titled:  # noqa: ARG002  (each is looked up when it is asked for)
        """What finds the rows of a title."""
        return lambda reading: [(row, self._store[row].title) for row in self._titles.rows(reading)]

    def search(
        self,
        vectors: Vectors,
        words: Sequence[Sequence[str]],
        exact: Sequence[frozenset[int]],
        depths: tuple[int, int],
        lexical: Lexical = "postings",
    ) -> list[Found]:
        """What is found for each question, see `Searcher.search`."""
        nearest = self._dense.search(vectors, depths[0])[1].tolist()
        by_words = self._by_words(lexical)
        with rows_that_are_there():
            return [
                self._found(vector, asked, ([row for row in near if row >= 0], by_words(asked, depths[1])), same)
                for vector, asked, near, same in zip(vectors, words, nearest, exact, strict=True)
            ]

    def _found(
        self, vector: Vectors, words: Sequence[str], lists: tuple[list[int], list[int]], exact: frozenset[int]
    ) -> Found:
        rows = np.array(sorted({row for found in lists for row in found} | exact), np.uint32)
        if len(rows) and rows[-1] >= len(self._store):
            raise IndexError(f"row {rows[-1]}")  # FAISS would read beyond its vectors
        return Found(lists, rows, self._dense.vectors(rows) @ vector, self._lexical.coverage(words, rows))

    def _by_words(self, lexical: Lexical) -> Callable[[Sequence[str], int], list[int]]:
        search: LexicalSearch = self._lexical
        if lexical != "postings":
            if self._reference is None:
                self._reference = RankBM25([self._store[row].title for row in range(len(self._store))])
            search = self._reference
        return lambda words, depth: search.search(words, depth)[0].tolist()
