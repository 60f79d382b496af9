"""From a raw result's texts to arrays: every question's scores under every arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt

from ragqa.errors import InputError
from ragqa.evaluation import scores
from ragqa.evaluation.corpus import CorpusMetric, statistics
from ragqa.evaluation.ranking import ranked_scores
from ragqa.evaluation.scores import MEASURES, Array

Raw = Mapping[str, Any]
COLUMN: Final = {measure.name: column for column, measure in enumerate(MEASURES)}
CORPUS_METRICS: Final[tuple[CorpusMetric, ...]] = get_args(CorpusMetric)


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to some questions, with what they are compared with.

    Attributes:
        texts: the answers, "" for a missing one.
        references: the right answers.
        named: id of each answer's source, None where it has none.
        wanted: id of each question's product.
    """

    texts: list[str]
    references: list[str]
    named: list[str | None]
    wanted: list[str]


@dataclass(frozen=True, slots=True)
class Table:
    """Scores of the n questions that have a product.

    Attributes:
        rows: (n,) where each stands among all questions.
        products: (n,) a number for each product.
        sets: (n,) "seen" or "unseen".
        groups: for each group of questions, in the order of tables, which are in it, (n,).
        scores: by arm, (runs, n, len(MEASURES)); NaN where the arm names no sources or a source's text is unknown.
        corpus: by metric and arm, (runs, n, 10 or 18), sufficient statistics.
        curve: for each entry of the raw result's learning curve, the rows it asked and their scores.
        retrieval: by retriever, (n, len(RANKING_MEASURES)).
    """

    rows: npt.NDArray[np.intp]
    products: npt.NDArray[np.intp]
    sets: npt.NDArray[np.str_]
    groups: dict[str, npt.NDArray[np.bool_]]
    scores: dict[str, Array]
    corpus: dict[CorpusMetric, dict[str, Array]]
    curve: list[tuple[npt.NDArray[np.intp], Array]]
    retrieval: dict[str, Array]


def score_table(raw: Raw) -> Table:
    """Score every answer of a raw result.

    Raises:
        InputError: an arm has not one answer for each question.
    """
    questions: Sequence[Raw] = raw["questions"]
    rows = [row for row, question in enumerate(questions) if question["product_id"] is not None]
    asked = [questions[row] for row in rows]
    texts = {q["product_id"]: q["reference"] for q in asked} | dict(raw.get("sources") or {})
    place = {row: i for i, row in enumerate(rows)}

    batches: list[Answers] = []
    runs: dict[str, int] = {}
    for name, arm in raw["arms"].items():
        runs[name] = len(arm["runs"])
        for number, run in enumerate(arm["runs"]):
            if len(run["answers"]) != len(questions):
                raise InputError(
                    f"arm {name!r}, run {number}: {len(run['answers'])} answers to {len(questions)} questions; "
                    "one for each is needed, empty if need be"
                )
            batches.append(_answers([run["answers"][row] for row in rows], asked))
    curve_rows = []
    for entry in raw.get("curve") or []:
        kept = [i for i, row in enumerate(entry["questions"]) if row in place]
        curve_rows.append(np.array([entry["questions"][i] for i in kept], np.intp))
        batches.append(_answers([entry["answers"][i] for i in kept], [questions[entry["questions"][i]] for i in kept]))

    scored = _score(batches, texts)
    sums: dict[CorpusMetric, list[Array]] = {m: _corpus(m, batches[: sum(runs.values())]) for m in CORPUS_METRICS}
    ends = dict(zip(runs, np.cumsum(list(runs.values())).tolist(), strict=True))
    spans = {name: slice(ends[name] - count, ends[name]) for name, count in runs.items() if count}
    return Table(
        rows=np.array(rows, np.intp),
        products=np.unique([q["product_id"] for q in asked], return_inverse=True)[1],
        sets=np.array([q["set"] for q in asked], np.str_),
        groups=_groups(asked),
        scores={name: np.stack(scored[span]) for name, span in spans.items()},
        corpus={m: {name: np.stack(sums[m][span]) for name, span in spans.items()} for m in CORPUS_METRICS},
        curve=list(zip(curve_rows, scored[len(scored) - len(curve_rows) :], strict=True)),
        retrieval={
            retriever: ranked_scores([q.get(key) for q in asked])
            for retriever, key in (("ragqa", "rank"), ("bm25", "bm25_rank"))
            if any(key in q for q in asked)
        },
    )


def _answers(answers: Sequence[Raw], asked: Sequence[Raw]) -> Answers:
    return Answers(
        [answer["text"] or "" for answer in answers],
        [question["reference"] or "" for question in asked],
        [answer.get("source") for answer in answers],
        [question["product_id"] for question in asked],
    )


def _score(batches: Sequence[Answers], texts: Mapping[str, str]) -> list[Array]:
    """(n, len(MEASURES)) for each batch. Arms often give the same answer: each is compared once."""
    pairs = list(dict.fromkeys(pair for b in batches for pair in zip(b.texts, b.references, strict=True)))
    answers, references = [answer for answer, _ in pairs], [reference for _, reference in pairs]
    row_of = {pair: row for row, pair in enumerate(pairs)}
    by_text = np.column_stack(
        [
            scores.exact_match(answers, references),
            scores.token_overlap(answers, references),
            scores.rouge(answers, references),
        ]
    )
    found = []
    for b in batches:
        table = np.full((len(b.texts), len(MEASURES)), np.nan)
        table[:, : by_text.shape[1]] = by_text[[row_of[pair] for pair in zip(b.texts, b.references, strict=True)]]
        if any(name is not None for name in b.named):
            # An answer without a source, from an arm that names them, comes from nowhere.
            sources = ["" if name is None else texts.get(name) for name in b.named]
            known = np.array([text is not None for text in sources])
            table[:, COLUMN["grounded"]] = np.where(known, scores.grounded(b.texts, sources), np.nan)
            table[:, COLUMN["right_product"]] = scores.right_product(b.named, b.wanted)
        found.append(table)
    return found


def _corpus(metric: CorpusMetric, batches: Sequence[Answers]) -> list[Array]:
    pairs = list(dict.fromkeys(pair for b in batches for pair in zip(b.texts, b.references, strict=True)))
    row_of = {pair: row for row, pair in enumerate(pairs)}
    every = statistics(metric, [answer for answer, _ in pairs], [reference for _, reference in pairs])
    return [every[[row_of[pair] for pair in zip(b.texts, b.references, strict=True)]] for b in batches]


def _groups(asked: Sequence[Raw]) -> dict[str, npt.NDArray[np.bool_]]:
    several = np.array([bool(q["ambiguous"]) for q in asked], bool)
    ranks = np.array([np.inf if q.get("rank") is None else q["rank"] for q in asked], float)
    groups = {"all": np.ones(len(asked), bool)}
    for kind in dict.fromkeys(q["kind"] for q in asked):
        groups[f"kind:{kind}"] = np.array([q["kind"] == kind for q in asked], bool)
    groups |= {"one_product": ~several, "several": several}
    for name, first, last in (("1", 0, 0), ("2-3", 1, 2), ("4-10", 3, 9)):
        groups[f"rank:{name}"] = (first <= ranks) & (ranks <= last)
    return groups | {"rank:none": ranks > 9}
