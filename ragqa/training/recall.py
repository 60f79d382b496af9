"""How often retrieval finds the right title: by the vectors alone, and by the whole `Retriever`."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from ragqa.records import Product
from ragqa.retrieval.dense import DenseIndex
from ragqa.retrieval.embed import Embedder, Vectors
from ragqa.retrieval.lexical import build_lexical
from ragqa.retrieval.question import parse_question
from ragqa.retrieval.retriever import Retriever
from ragqa.retrieval.searcher import LocalSearcher
from ragqa.retrieval.text import fold
from ragqa.retrieval.titles import TitleTable
from ragqa.training.questions import LabelledQuestion

Way = Literal["dense", "retriever"]
WAYS: Final[tuple[Way, ...]] = ("dense", "retriever")
DEPTHS: Final = (1, 3, 10)
# Questions searched at once.
_BLOCK: Final = 256


@dataclass(frozen=True, slots=True)
class Ranked:
    """Where the right title of one question was found.

    Attributes:
        kind: the question's.
        sure: only one product fits the question.
        dense: rank from 1 by the vectors alone, None beyond the deepest of `DEPTHS`.
        retriever: the same by the whole `Retriever`.
    """

    kind: str
    sure: bool
    dense: int | None
    retriever: int | None


def rank_titles(
    products: Sequence[Product], vectors: Vectors, embedder: Embedder, asked: Sequence[LabelledQuestion]
) -> list[Ranked]:
    """Search for each question's product, in the order of the questions.

    A title that folds to the right one's counts as right: nobody could tell the two apart by the question.

    Args:
        products: those that can be found.
        vectors: of their titles (len(products), dimension), by `embedder`.
        embedder: the encoder.
        asked: questions whose products are among `products`.
    """
    dense = DenseIndex.empty(vectors.shape[1])
    dense.add(vectors)
    titles = TitleTable.build(product.title for product in products)
    retriever = Retriever(LocalSearcher(products, dense, titles, build_lexical(products)), embedder)
    title_of = {product.id: fold(product.title) for product in products}
    ranked = []
    for start in range(0, len(asked), _BLOCK):
        block = asked[start : start + _BLOCK]
        subjects = [parse_question(question.text).subject for question in block]
        _, nearest = dense.search(embedder.embed_questions(subjects), max(DEPTHS))
        found = retriever.retrieve([question.text for question in block], max(DEPTHS))
        for question, rows, retrieval in zip(block, nearest.tolist(), found, strict=True):
            right = title_of[question.product_id or ""]
            by_vectors = _rank(right, [products[row].title for row in rows])
            by_all = _rank(right, [candidate.product.title for candidate in retrieval.candidates])
            ranked.append(Ranked(question.kind, not question.ambiguous, by_vectors, by_all))
    return ranked


def _rank(right: str, titles: Sequence[str]) -> int | None:
    return next((rank for rank, title in enumerate(titles, 1) if fold(title) == right), None)


def recalls(ranked: Sequence[Ranked]) -> dict[str, dict[str, Any]]:
    """Recall at each of `DEPTHS`, by kind of question, for all, and for those of all that are "sure".

    Returns:
        By kind, "all" and "sure": ``questions`` (their number), ``sure`` (share of those that only one product fits), and for each of
        `WAYS` the recalls in [0, 1] by depth, and ``mrr``, the mean reciprocal rank; what was not found counts 0.
    """
    table: dict[str, dict[str, Any]] = {}
    for kind in [*sorted({one.kind for one in ranked}), "all", "sure"]:
        here = [one for one in ranked if kind in (one.kind, "all") or (kind == "sure" and one.sure)]
        table[kind] = {
            "questions": len(here),
            "sure": round(sum(one.sure for one in here) / max(len(here), 1), 4),
            **{way: _summary([getattr(one, way) for one in here]) for way in WAYS},
        }
    return table


def _summary(ranks: Sequence[int | None]) -> dict[str, float]:
    count = max(len(ranks), 1)
    values = {str(depth): sum(r is not None and r <= depth for r in ranks) / count for depth in DEPTHS}
    values["mrr"] = sum(1 / r for r in ranks if r is not None) / count
    return {name: round(value, 4) for name, value in values.items()}


def change(before: Sequence[Ranked], after: Sequence[Ranked], way: Way, depth: int = 1) -> dict[str, float]:
    """How many sure questions were `won` and `lost`, and the two-sided `p` of an exact sign test (McNemar 1947).

    Those that several products fit are left out: which of them is first is chance, and the answerer asks back.

    Args:
        before, after: of the same questions in the same order.
        way: by the vectors alone, or by the whole retriever.
        depth: found means found among so many.
    """

    def found(one: Ranked) -> bool:
        rank: int | None = getattr(one, way)
        return rank is not None and rank <= depth

    hits = [(found(b), found(a)) for b, a in zip(before, after, strict=True) if b.sure]
    won, lost = hits.count((False, True)), hits.count((True, False))
    total = won + lost
    tail = sum(math.comb(total, i) for i in range(min(won, lost) + 1)) / 2**total
    return {"won": won, "lost": lost, "p": float(f"{min(1.0, 2 * tail):.3g}")}


def searched_rows(
    rows: Sequence[int], row_of: Mapping[str, int], asked: Sequence[LabelledQuestion], limit: int, seed: int
) -> list[int]:
    """The rows to search in, ascending: all of `rows`, or a sample of `limit` that has the products asked about.

    Args:
        rows: those that may be found.
        row_of: rows by product id.
        asked: the questions.
        limit: how many rows at most, unless more are asked about.
        seed: of the sample.
    """
    if len(rows) <= limit:
        return sorted(rows)
    needed = {row_of[question.product_id or ""] for question in asked}
    others = [row for row in rows if row not in needed]
    random_ = random.Random(f"titles/{seed}")  # noqa: S311
    return sorted(needed.union(random_.sample(others, max(0, limit - len(needed)))))
