"""The question's way to its candidates: exact titles, nearest titles, shared words, order, reranking, confidence."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from ragqa.records import Candidate, Product, Question, Retrieval
from ragqa.retrieval import confidence as confidence_
from ragqa.retrieval import fuse
from ragqa.retrieval.confidence import Confidence
from ragqa.retrieval.embed import Embedder, Vectors
from ragqa.retrieval.question import parse_question
from ragqa.retrieval.rerank import Reranker, relevances, reranked
from ragqa.retrieval.rows import rows_that_are_there
from ragqa.retrieval.searcher import Found, Searcher, Titled
from ragqa.retrieval.terms import terms
from ragqa.retrieval.text import fold, overlaps
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


class _Depths(NamedTuple):
    """How many rows are taken from the search by vectors, from that by words, and how many of them are read."""

    nearest: int = _DEPTH
    words: int = _LEXICAL_DEPTH
    read: int = _READ


_DEFAULT: Final = _Depths()


class Retriever:
    """Finds the products a question is about.

    Args:
        searcher: finds rows.
        embedder: the encoder that made the vectors.
        confidence: the model fitted with the index.
    """

    def __init__(self, searcher: Searcher, embedder: Embedder, confidence: Confidence = confidence_.DEFAULT) -> None:
        self._searcher = searcher
        self.embedder = embedder
        self._confidence = confidence

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
        if reranker is None:
            rerank_depth = 0
        wanted, found = max(top_k, rerank_depth), []
        depths = _Depths(max(_DEPTH, wanted), max(_LEXICAL_DEPTH, wanted), max(_READ, wanted))
        for start in range(0, len(parsed), _BLOCK):
            block = parsed[start : start + _BLOCK]
            subjects = [question.subject for question in block]
            with rows_that_are_there():
                exact = self._exact_rows(block, without)
                ranked = self._ranked(subjects, exact, depths, without, fusion, lexical)
            read: Sequence[list[float] | None] = [None] * len(block)
            if reranker is not None and rerank_depth:
                read = relevances(reranker, subjects, ranked, rerank_depth)
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
        rows = sorted(random_.sample(range(len(self._searcher)), min(sample, len(self._searcher))))
        products = self._searcher.products(rows)
        asked = list(confidence_.fitting_questions(products, seed))
        subjects = list(dict.fromkeys(subject for _, subject, _ in asked))
        found: dict[str, list[Candidate]] = {}
        for start in range(0, len(subjects), _BLOCK):
            block = subjects[start : start + _BLOCK]
            found |= zip(block, self._ranked(block, [frozenset()] * len(block)), strict=True)
        inputs, right = [], []
        for number, subject, held_out in asked:
            title = fold(products[number].title)
            ranked = [c for c in found[subject] if not held_out or fold(c.product.title) != title]
            if ranked:
                inputs.append(confidence_.features(ranked))
                right.append(fold(ranked[0].product.title) == title)
        self._confidence = confidence_.fit(inputs, right)
        return self._confidence

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

    def _exact_rows(self, questions: Sequence[Question], without: frozenset[int]) -> list[frozenset[int]]:
        """For each question the rows whose title is one of its readings, whole; the longest reading that has any."""
        titled = self._searcher.titled([reading for question in questions for reading in question.readings])
        return [_bearing(question, titled, without) for question in questions]

    def _ranked(
        self,
        subjects: Sequence[str],
        exact: Sequence[frozenset[int]],
        depths: _Depths = _DEFAULT,
        without: frozenset[int] = frozenset(),
        fusion: Fusion = "weighted",
        lexical: Lexical = "postings",
    ) -> list[list[Candidate]]:
        """For each subject the best of the rows that searches found; ties are broken by product id."""
        vectors, words = self.embed(subjects), [terms(subject) for subject in subjects]
        found = self._searcher.search(vectors, words, exact, (depths.nearest, depths.words), lexical)
        chosen = [_best(one, same, depths.read, without, fusion) for one, same in zip(found, exact, strict=True)]
        rows = sorted({int(one.rows[place]) for one, best in zip(found, chosen, strict=True) for place, _ in best})
        products = dict(zip(rows, self._searcher.products(rows), strict=True))
        return [
            _read(subject, one, best, same, products, fusion)
            for subject, one, best, same in zip(subjects, found, chosen, exact, strict=True)
        ]


def _bearing(question: Question, titled: Titled, without: frozenset[int]) -> frozenset[int]:
    for reading in question.readings:
        folded = fold(reading)
        same = [(row, title) for row, title in titled(reading) if row not in without and fold(title) == folded]
        # Titles that agree to the letter but for case go before those that differ in punctuation.
        literal = [(row, title) for row, title in same if title.casefold() == reading.casefold()]
        if same:
            return frozenset(row for row, _ in (literal or same)[:_MAX_EXACT])
    return frozenset()


def _best(
    found: Found, exact: frozenset[int], count: int, without: frozenset[int], fusion: Fusion
) -> list[tuple[int, float]]:
    """Places of the rows that are read, and what is known of them without that, best first."""
    rows = found.rows
    weighted = fusion == "weighted"
    known = found.cosines + found.coverage if weighted else fuse.reciprocal_rank(found.lists, rows.tolist())
    places = np.flatnonzero(~np.isin(rows, list(without))) if without else np.arange(len(rows))
    keys = [rows[places], -known[places]] + ([~np.isin(rows[places], list(exact))] if exact else [])
    order = places[np.lexsort(keys)][: max(count, len(exact))]
    return [(int(place), float(known[place])) for place in order]


def _read(
    subject: str,
    found: Found,
    best: Sequence[tuple[int, float]],
    exact: frozenset[int],
    products: Mapping[int, Product],
    fusion: Fusion,
) -> list[Candidate]:
    candidates = []
    for place, known in best:
        row = int(found.rows[place])
        product = products[row]
        forth, back = overlaps(subject, product.title)
        cosine, covered = float(found.cosines[place]), float(found.coverage[place])
        score = known if fusion != "weighted" else fuse.weighted((cosine, covered, forth, back))
        score = 1.0 if row in exact else max(0.0, min(0.9999, score))
        candidates.append(Candidate(product, row, score, cosine, forth, row in exact, back, covered))
    return sorted(candidates, key=lambda c: (-c.score, c.product.id))
