"""The question's way to its candidates: exact titles, nearest titles, order, confidence."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final, Protocol

from ragqa.records import Candidate, Product, Question, Retrieval
from ragqa.retrieval import confidence as confidence_
from ragqa.retrieval.confidence import Confidence
from ragqa.retrieval.dense import DenseIndex
from ragqa.retrieval.embed import Embedder, Vectors
from ragqa.retrieval.question import parse_question
from ragqa.retrieval.text import fold, overlap
from ragqa.retrieval.titles import TitleTable

# How many nearest titles are looked at before they are put in order. Measured on three catalogues, 300 questions
# each: the right one is among 100 for 99.7 to 100 % of questions with 65 % of the title's words, and for 92 to 100 %
# of those with 40 %.
_DEPTH: Final = 100
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
        embedder: the encoder that made the vectors.
        confidence: the model fitted with the index.
    """

    def __init__(
        self,
        store: Products,
        dense: DenseIndex,
        titles: TitleTable,
        embedder: Embedder,
        confidence: Confidence = confidence_.DEFAULT,
    ) -> None:
        self._store = store
        self._dense = dense
        self._titles = titles
        self._embedder = embedder
        self._confidence = confidence

    def retrieve(
        self,
        questions: Sequence[str],
        top_k: int = 5,
        max_chars: int = 4000,
        without: frozenset[int] = frozenset(),
    ) -> list[Retrieval]:
        """The best `top_k` products for each question, in the order of the questions.

        Args:
            questions: what users typed.
            top_k: how many candidates to give back.
            max_chars: longer questions are refused.
            without: rows that are held out, as if the index did not have them; for training and evaluation.

        Raises:
            QuestionError: a question is empty or longer than `max_chars`.
        """
        parsed = [parse_question(question, max_chars) for question in questions]
        if not parsed:
            return []
        vectors = self._embedder.embed_questions([question.subject for question in parsed])
        found = self._nearest(vectors, max(_DEPTH, top_k))
        return [
            self._order(question, vector, {r: c for r, c in cosines.items() if r not in without}, top_k, without)
            for question, vector, cosines in zip(parsed, vectors, found, strict=True)
        ]

    def fit_confidence(self, sample: int = 400, seed: int = 0) -> Confidence:
        """Fit the confidence model on questions about a sample of the products, and keep it.

        Args:
            sample: how many products to ask about; each gives four questions.
            seed: chooses the products and the questions.
        """
        random_ = random.Random(seed)  # noqa: S311  (not for secrets)
        rows = sorted(random_.sample(range(len(self._store)), min(sample, len(self._store))))
        products = [self._store[row] for row in rows]
        asked = list(confidence_.fitting_questions([product.title for product in products], seed))
        subjects = list(dict.fromkeys(subject for _, subject, _ in asked))
        found = dict(zip(subjects, self._nearest(self._embedder.embed_questions(subjects)), strict=True))
        inputs, right = [], []
        for number, subject, held_out in asked:
            title = fold(products[number].title)
            ranked = self._ranked(subject, found[subject], frozenset())
            if held_out:
                ranked = [c for c in ranked if fold(c.product.title) != title]
            if ranked:
                inputs.append(self._features(subject, ranked))
                right.append(fold(ranked[0].product.title) == title)
        self._confidence = confidence_.fit(inputs, right)
        return self._confidence

    def _nearest(self, vectors: Vectors, depth: int = _DEPTH) -> list[dict[int, float]]:
        """For each question the nearest rows with their cosine similarities."""
        scores, rows = self._dense.search(vectors, depth)
        return [
            {int(row): float(score) for row, score in zip(r, s, strict=True) if row >= 0}
            for r, s in zip(rows, scores, strict=True)
        ]

    def _order(
        self, question: Question, vector: Vectors, cosines: dict[int, float], top_k: int, without: frozenset[int]
    ) -> Retrieval:
        exact = self._exact_rows(question, without)
        for row in exact - cosines.keys():
            cosines[row] = self._dense.similarity(vector, row)
        ranked = self._ranked(question.subject, cosines, exact)
        if not ranked:
            return Retrieval(question, (), 0.0)
        sure = 1.0 if ranked[0].exact else self._confidence(self._features(question.subject, ranked))
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

    def _ranked(self, subject: str, cosines: dict[int, float], exact: frozenset[int]) -> list[Candidate]:
        """Candidates best first; ties are broken by product id."""
        candidates = []
        for row, cosine in cosines.items():
            product = self._store[row]
            agreement = overlap(subject, product.title)
            score = 1.0 if row in exact else max(0.0, min(0.9999, (cosine + agreement) / 2))
            candidates.append(Candidate(product, row, score, cosine, agreement, row in exact))
        return sorted(candidates, key=lambda c: (-c.score, c.product.id))

    def _features(self, subject: str, ranked: Sequence[Candidate]) -> tuple[float, ...]:
        return confidence_.features(ranked, overlap(ranked[0].product.title, subject))
