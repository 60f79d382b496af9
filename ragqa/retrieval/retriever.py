"""The question's way to its candidates: exact titles, nearest titles, shared words, order, reranking, confidence."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np

from ragqa.records import Candidate, Product, Question, Retrieval
from ragqa.retrieval import confidence as confidence_
from ragqa.retrieval import fuse
from ragqa.retrieval.confidence import Confidence
from ragqa.retrieval.dense import DenseIndex
from ragqa.retrieval.embed import Embedder, Vectors
from ragqa.retrieval.lexical import LexicalIndex, LexicalSearch, RankBM25
from ragqa.retrieval.question import parse_question
from ragqa.retrieval.rerank import Reranker, relevances, reranked
from ragqa.retrieval.rows import rows_that_are_there
from ragqa.retrieval.terms import terms
from ragqa.retrieval.text import fold, overlaps
from ragqa.retrieval.titles import TitleTable
from ragqa.settings import Fusion, Lexical

# How many are taken from the search by vectors, and from that by words, before they are put in order. Of words 30 were
# measured to give the same first products as 100, on questions that nothing is reported of, in two thirds of the time.
_DEPTH: Final = 100
_LEXICAL_DEPTH: Final = 30
# How many of them, best by what is known without reading them, are read: their trigrams are compared. Measured likewise.
_READ: Final = 20
# Questions whose candidates are held at once, to be reranked together.
_BLOCK: Final = 256
# From this share of a question's trigrams in a title on, the title has all its words, give or take a plural.
_ALL_WORDS: Final = 0.95
# At most this many products of one exact title are shown: "Circus" may be a hundred books.
_MAX_EXACT: Final = 50


class Products(Protocol):
    """Products by row: a `ProductStore`, or a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> Product: ...


class Retriever:
    """Finds the products a question is about.

    Args:
        store: the products, by row.
        dense: unit vectors of their titles, by row.
        titles: rows by exact title.
        lexical: rows by words of titles and descriptions.
        embedder: the encoder that made the vectors.
        confidence: the model fitted with the index.
    """

    def __init__(
        self,
        store: Products,
        dense: DenseIndex,
        titles: TitleTable,
        lexical: LexicalIndex,
        embedder: Embedder,
        confidence: Confidence = confidence_.DEFAULT,
    ) -> None:
        self._store = store
        self._dense = dense
        self._titles = titles
        self._lexical = lexical
        self.embedder = embedder
        self._confidence = confidence
        self._reference: LexicalSearch | None = None

    def retrieve(
        self,
        questions: Sequence[str],
        top_k: int = 5,
        max_chars: int = 4000,
        without: frozenset[int] = frozenset(),
        fusion: Fusion = "weighted",
        lexical: Lexical = "postings",
        reranker: Reranker | None = None,
        rerank_depth: int = 20,
    ) -> list[Retrieval]:
        """The best `top_k` products for each question, in the order of the questions.

        Args:
            questions: what users typed.
            top_k: how many candidates to give back.
            max_chars: longer questions are refused.
            without: rows that are held out, as if the index did not have them; for training and evaluation.
            fusion, lexical, rerank_depth: see `AnswerSettings`.
            reranker: reads the first candidates of each question again, see `ragqa.retrieval.rerank`.

        Raises:
            QuestionError: a question is empty or longer than `max_chars`.
            IndexDamagedError: parts of the index name rows that are not there.
        """
        parsed = [parse_question(question, max_chars) for question in questions]
        if not parsed:
            return []
        vectors = self.embed([question.subject for question in parsed])
        if reranker is None:
            rerank_depth = 0
        wanted = max(top_k, rerank_depth)
        count, words_depth = max(_READ, wanted), max(_LEXICAL_DEPTH, wanted)
        search = self._searcher(lexical)
        nearest, found = self._nearest(vectors, max(_DEPTH, wanted)), []
        for start in range(0, len(parsed), _BLOCK):
            block, ranked = parsed[start : start + _BLOCK], []
            with rows_that_are_there():
                for place, question in enumerate(block, start):
                    exact = self._exact_rows(question, without)
                    words = terms(question.subject)
                    lists = (nearest[place], search.search(words, words_depth)[0].tolist())
                    ranked.append(
                        self._ranked(question.subject, words, vectors[place], lists, exact, count, without, fusion)
                    )
            read: Sequence[list[float] | None] = [None] * len(block)
            if reranker is not None and rerank_depth:
                read = relevances(reranker, [question.subject for question in block], ranked, rerank_depth)
            found += [self._judged(*one, top_k) for one in zip(block, ranked, read, strict=True)]
        return found

    def embed(self, subjects: Sequence[str]) -> Vectors:
        """Unit vectors of what questions name, (len(subjects), dimension)."""
        return self.embedder.embed_questions(subjects)

    def fit_confidence(self, sample: int = 400, seed: int = 0) -> Confidence:
        """Fit the confidence model on questions about a sample of the products, and keep it.

        Args:
            sample: how many products to ask about; each gives six questions.
            seed: chooses the products and the questions.
        """
        random_ = random.Random(seed)  # noqa: S311  (not for secrets)
        rows = sorted(random_.sample(range(len(self._store)), min(sample, len(self._store))))
        products = [self._store[row] for row in rows]
        asked = list(confidence_.fitting_questions(products, seed))
        subjects = list(dict.fromkeys(subject for _, subject, _ in asked))
        vectors = self.embed(subjects)
        found = {}
        for subject, vector, near in zip(subjects, vectors, self._nearest(vectors, _DEPTH), strict=True):
            words = terms(subject)
            lists = (near, self._lexical.search(words, _LEXICAL_DEPTH)[0].tolist())
            found[subject] = self._ranked(subject, words, vector, lists)
        inputs, right = [], []
        for number, subject, held_out in asked:
            title = fold(products[number].title)
            ranked = [c for c in found[subject] if not held_out or fold(c.product.title) != title]
            if ranked:
                inputs.append(confidence_.features(ranked))
                right.append(fold(ranked[0].product.title) == title)
        self._confidence = confidence_.fit(inputs, right)
        return self._confidence

    def _nearest(self, vectors: Vectors, depth: int) -> list[list[int]]:
        """For each question the rows of the nearest titles, nearest first."""
        return [[row for row in rows if row >= 0] for rows in self._dense.search(vectors, depth)[1].tolist()]

    def _searcher(self, lexical: Lexical) -> LexicalSearch:
        if lexical == "postings":
            return self._lexical
        if self._reference is None:
            self._reference = RankBM25([self._store[row].title for row in range(len(self._store))])
        return self._reference

    def _judged(
        self, question: Question, ranked: Sequence[Candidate], relevance: Sequence[float] | None, top_k: int
    ) -> Retrieval:
        if not ranked:
            return Retrieval(question, (), 0.0)
        own = ranked
        if relevance is not None:
            ranked, as_found = reranked(ranked, relevance), {c.row: c for c in ranked}
            # The confidence model was fitted to the retriever's own scores; the reranker gives the order alone.
            own = [as_found[c.row] for c in ranked]
        sure = 1.0 if ranked[0].exact else self._confidence(confidence_.features(own))
        fitting = () if ranked[0].exact else tuple(c for c in ranked if c.overlap >= _ALL_WORDS)
        return Retrieval(question, tuple(ranked[:top_k]), sure, fitting if len(fitting) > 1 else ())

    def _exact_rows(self, question: Question, without: frozenset[int]) -> frozenset[int]:
        """Rows whose title is one of the question's readings, whole; the longest reading that has any."""
        for reading in question.readings:
            rows = [row for row in self._titles.rows(reading) if row not in without]
            same = [row for row in rows if fold(self._store[row].title) == fold(reading)]
            # Titles that agree to the letter but for case go before those that differ in punctuation.
            literal = [row for row in same if self._store[row].title.casefold() == reading.casefold()]
            if literal or same:
                return frozenset((literal or same)[:_MAX_EXACT])
        return frozenset()

    def _ranked(
        self,
        subject: str,
        words: Sequence[str],
        vector: Vectors,
        lists: Sequence[Sequence[int]],
        exact: frozenset[int] = frozenset(),
        count: int = _READ,
        without: frozenset[int] = frozenset(),
        fusion: Fusion = "weighted",
    ) -> list[Candidate]:
        """The best of the rows that searches found; ties are broken by product id.

        Args:
            words: the subject's terms.
            lists: rows found by each search, best first.
            count: how many to read.
        """
        rows = np.array(sorted({row for found in lists for row in found} | exact), np.uint32)
        if len(rows) and rows[-1] >= len(self._store):
            raise IndexError(f"row {rows[-1]}")  # FAISS would read beyond its vectors
        if without:
            rows = rows[~np.isin(rows, list(without))]
        cosines, coverage = self._dense.vectors(rows) @ vector, self._lexical.coverage(words, rows)
        known = cosines + coverage if fusion == "weighted" else fuse.reciprocal_rank(lists, rows.tolist())
        order = np.lexsort((rows, -known, ~np.isin(rows, list(exact)))) if exact else np.lexsort((rows, -known))
        candidates = []
        for place in order[: max(count, len(exact))].tolist():
            row, product = int(rows[place]), self._store[int(rows[place])]
            forth, back = overlaps(subject, product.title)
            cosine, covered = float(cosines[place]), float(coverage[place])
            score = float(known[place]) if fusion != "weighted" else fuse.weighted((cosine, covered, forth, back))
            score = 1.0 if row in exact else max(0.0, min(0.9999, score))
            candidates.append(Candidate(product, row, score, cosine, forth, row in exact, back, covered))
        return sorted(candidates, key=lambda c: (-c.score, c.product.id))
