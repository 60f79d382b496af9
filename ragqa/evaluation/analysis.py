"""What a raw result says: means with intervals, comparisons of arms, abstention, cost; from the texts alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ragqa.evaluation.abstention import (
    ABSTENTION_MEASURES,
    Asked,
    bootstrap_abstention,
    risk_coverage,
)
from ragqa.evaluation.cells import (
    COMPARED,
    Chance,
    Rows,
    cells_and_pairs,
    interval,
    means_with_intervals,
    numbered,
    over_runs,
    parts,
)
from ragqa.evaluation.corpus import CorpusMetric, corpus_score
from ragqa.evaluation.ranking import RANKING_MEASURES
from ragqa.evaluation.scores import MEASURES, Array
from ragqa.evaluation.significance import bootstrap, cluster_sums, percentile_interval
from ragqa.evaluation.table import COLUMN, CORPUS_METRICS, Raw, Table, score_table
from ragqa.settings import AnswerSettings


def analyse(raw: Raw, resamples: int = 10_000, seed: int = 0) -> dict[str, Any]:
    """Turn a raw result into the tables and curves of a report.

    Intervals are 95 % percentile bootstraps by product. An arm's score of a question is its mean over the arm's runs.
    A value that is not defined is None.

    Args:
        raw: setup, questions, and each arm's answers. ``raw["sources"]``, texts by product id, is optional: without it
            an answer taken from a product that no question asks about counts in no mean of ``grounded``.
        resamples: of each bootstrap and permutation test.
        seed: of their draws; the same arguments give the same result.

    Returns:
        JSON-ready rows: ``metrics``, ``cells``, ``pairs``, ``corpus`` (0 to 100, as sacrebleu has it), ``retrieval``,
        ``abstention``, ``cost``, ``curve``, ``seeds``, ``ceiling``.

    Raises:
        InputError: an arm has not one answer for each question.
    """
    table, chance = score_table(raw), Chance(resamples, seed)
    cells, pairs = cells_and_pairs(table, chance)
    return {
        "metrics": [asdict(measure) for measure in MEASURES],
        "cells": cells,
        "pairs": pairs,
        "corpus": _corpus(table, chance),
        "retrieval": _retrieval(table, chance),
        "abstention": _abstention(raw, table, chance),
        "cost": _cost(raw),
        "curve": _curve(raw, table, chance),
        "seeds": _seeds(table),
        "ceiling": _ceiling(raw, table, chance),
    }


def _corpus(table: Table, chance: Chance) -> Rows:
    rows: Rows = []
    for set_, group, here in parts(table):
        if group != "all":
            continue
        clusters = numbered(table.products[here])
        for arm in table.scores:
            for metric in CORPUS_METRICS:
                runs = table.corpus[metric][arm][:, here]
                sums = cluster_sums(np.hstack(list(runs)), clusters)
                statistic = partial(_mean_corpus_score, metric, len(runs))
                replicates = bootstrap(sums, statistic, chance.resamples, chance.seed)
                mean = statistic(sums.sum(axis=0, keepdims=True))[0, 0]
                (low,), (high,) = percentile_interval(replicates)
                rows.append(
                    {"arm": arm, "set": set_, "group": group, "metric": metric, "n": int(here.sum())}
                    | {"products": len(sums), **interval(mean, low, high)}
                )
    return rows


def _mean_corpus_score(metric: CorpusMetric, runs: int, sums: Array) -> Array:
    """(b, runs * s) to (b, 1)."""
    scores: Array = corpus_score(metric, sums.reshape(len(sums), runs, -1)).mean(axis=1, keepdims=True)
    return scores


def _retrieval(table: Table, chance: Chance) -> Rows:
    rows: Rows = []
    for set_, group, here in parts(table):
        if group.startswith("rank:"):  # by what is measured here
            continue
        clusters = numbered(table.products[here])
        for retriever, scores in table.retrieval.items():
            found, _ = means_with_intervals(scores[here], clusters, chance)
            rows += [
                {"retriever": retriever, "set": set_, "group": group, "metric": metric, **row}
                for metric, row in zip(RANKING_MEASURES, found, strict=True)
            ]
    return rows


def _abstention(raw: Raw, table: Table, chance: Chance) -> Rows:
    questions = raw["questions"]
    sets = np.array([q["set"] for q in questions], np.str_)
    without = np.array([q["product_id"] is None for q in questions], bool)
    # Questions without a product are clusters of their own.
    clusters = np.arange(len(questions)) + len(questions)
    clusters[table.rows] = table.products
    rows: Rows = []
    for name, scores in table.scores.items():
        answers = [run["answers"] for run in raw["arms"][name]["runs"]]
        if all(answer["confidence"] is None for run in answers for answer in run):
            continue
        runs = []
        for run, found in zip(answers, scores, strict=True):
            wrong = np.ones(len(questions))
            wrong[table.rows] = 1 - found[:, COLUMN["exact_match"]]
            # A confidence that is missing is below all others.
            confidence = np.array([-1.0 if a["confidence"] is None else a["confidence"] for a in run])
            runs.append(Asked(confidence, np.array([bool(a["abstains"]) for a in run]), without, wrong))
        for set_ in dict.fromkeys(sets.tolist()):
            here = sets == set_
            asked = [Asked(r.confidence[here], r.abstains[here], r.without[here], r.wrong[here]) for r in runs]
            values, replicates = bootstrap_abstention(asked, numbered(clusters[here]), chance.resamples, chance.seed)
            low, high = percentile_interval(replicates)
            curves = np.mean([risk_coverage(run) for run in asked], axis=0)
            rows.append(
                {
                    "arm": name,
                    "set": set_,
                    "threshold": raw["setup"]["min_confidence"],
                    "n": int(here.sum()),
                    "without": int(without[here].sum()),
                    **{
                        measure: None if np.isnan(values[i]) else interval(values[i], low[i], high[i])
                        for i, measure in enumerate(ABSTENTION_MEASURES)
                    },
                    "curve": curves.tolist(),
                }
            )
    return rows


def _cost(raw: Raw) -> Rows:
    training: dict[str, list[float]] = defaultdict(list)
    for run in raw.get("training") or []:
        training[run["mode"]].append(run["total_seconds"])
    rows: Rows = []
    for name, arm in raw["arms"].items():
        answers = [answer["seconds"] for run in arm["runs"] for answer in run["answers"]]
        seconds = np.array([one for one in answers if one is not None], float)
        if not len(seconds):
            continue
        trained = training.get(arm["training"])
        peaks = [run["peak_mb"] for run in arm["runs"] if run.get("peak_mb") is not None]
        rows.append(
            {
                "arm": name,
                "median_ms": 1000 * float(np.median(seconds)),
                "p95_ms": 1000 * float(np.quantile(seconds, 0.95)),
                "answers_per_second": len(seconds) / float(seconds.sum()) if seconds.sum() > 0 else None,
                "peak_mb": max(peaks, default=None),
                "training_seconds": float(np.mean(trained)) if trained else 0.0 if arm["training"] == "none" else None,
            }
        )
    return rows


def _curve(raw: Raw, table: Table, chance: Chance) -> Rows:
    points: dict[tuple[str, str, int], list[tuple[npt.NDArray[np.intp], Array]]] = defaultdict(list)
    for entry, scored in zip(raw.get("curve") or [], table.curve, strict=True):
        points[entry["mode"], entry["arm"], entry["examples"]].append(scored)
    rows: Rows = []
    for (mode, arm, examples), runs in points.items():
        asked = np.unique(np.concatenate([rows_ for rows_, _ in runs]))
        scores = np.full((len(runs), len(asked), len(COMPARED)), np.nan)
        for run, (rows_, found) in enumerate(runs):
            scores[run, np.searchsorted(asked, rows_)] = found[:, [COLUMN[metric] for metric in COMPARED]]
        if not len(asked):
            continue
        clusters = numbered(table.products[np.searchsorted(table.rows, asked)])
        found_rows, _ = means_with_intervals(over_runs(scores), clusters, chance)
        rows += [
            {"mode": mode, "arm": arm, "examples": examples, "metric": metric, **row}
            for metric, row in zip(COMPARED, found_rows, strict=True)
        ]
    return rows


def _seeds(table: Table) -> Rows:
    rows: Rows = []
    for set_, group, here in parts(table):
        for arm, scores in table.scores.items():
            if group != "all" or len(scores) < 2:
                continue
            for measure in MEASURES:
                values = over_runs(scores[:, here, COLUMN[measure.name]].T)
                if np.isnan(values).any():
                    continue
                rows.append(
                    {"arm": arm, "set": set_, "metric": measure.name, "seeds": len(values)}
                    | {"mean": float(values.mean()), "deviation": float(values.std(ddof=1))}
                    | {"lowest": float(values.min()), "highest": float(values.max())}
                )
    return rows


def _ceiling(raw: Raw, table: Table, chance: Chance) -> Rows:
    setup: Mapping[str, Any] = raw["setup"]
    candidates = setup.get("context_products", AnswerSettings().context_products)
    ranks = [raw["questions"][row].get("rank") for row in table.rows]
    shown = np.array([rank is not None and rank < candidates for rank in ranks], float)
    rows: Rows = []
    for set_, group, here in parts(table):
        if group == "all":
            both = np.column_stack([shown, table.groups["one_product"]])[here]
            found, _ = means_with_intervals(both, numbered(table.products[here]), chance)
            intervals = [{key: row[key] for key in ("mean", "low", "high")} for row in found]
            rows.append({"set": set_, "shown": intervals[0], "unambiguous": intervals[1]})
    return rows
