"""Means of every group of questions with their intervals, and arms compared on the same questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ragqa.evaluation.scores import MEASURES, Array
from ragqa.evaluation.significance import (
    bootstrap_means,
    cluster_sums,
    effect_size,
    holm,
    percentile_interval,
    products_needed,
    sign_flip_test,
)
from ragqa.evaluation.table import COLUMN, Table

BASELINE: Final = "copy"
COMPARED: Final = ("f1", "exact_match")
# The central arm, and what it is compared with beside the baseline: where its gain, if any, comes from.
CENTRAL: Final = "retrieval_context"
AGAINST: Final = ("plain", "base_context", "plain_context", "choice_without_model")
Row = dict[str, Any]
Rows = list[Row]


@dataclass(frozen=True, slots=True)
class Chance:
    """How often, and from which seed, chance is tried.

    Attributes:
        resamples: of each bootstrap and permutation test.
        seed: of their draws.
    """

    resamples: int
    seed: int


def parts(table: Table) -> Iterator[tuple[str, str, npt.NDArray[np.bool_]]]:
    """Set, group and members, where there are any."""
    for name in dict.fromkeys(table.sets.tolist()):
        for group, members in table.groups.items():
            here = members & (table.sets == name)
            if here.any():
                yield name, group, here


def numbered(products: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """The same clusters, numbered from 0 without gaps."""
    return np.unique(products, return_inverse=True)[1]


def means_with_intervals(scores: Array, clusters: npt.NDArray[np.intp], chance: Chance) -> tuple[Rows, Array]:
    """A row of size, mean and interval for each column, and the replicates."""
    means, replicates = bootstrap_means(scores, clusters, chance.resamples, chance.seed)
    low, high = percentile_interval(replicates)
    known = ~np.isnan(scores)
    rows = [
        {
            "n": int(known[:, i].sum()),
            "products": len(np.unique(clusters[known[:, i]])),
            **interval(means[i], low[i], high[i]),
        }
        for i in range(scores.shape[1])
    ]
    return rows, replicates


def interval(mean: float, low: float, high: float) -> Row:
    """The three as JSON has them, None for NaN."""
    return {"mean": _number(mean), "low": _number(low), "high": _number(high)}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def over_runs(scores: Array) -> Array:
    """Means over the first axis of what is known; NaN where nothing is."""
    known = ~np.isnan(scores)
    count = known.sum(axis=0)
    total = np.where(known, scores, 0.0).sum(axis=0)
    mean: Array = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


def cells_and_pairs(table: Table, chance: Chance) -> tuple[Rows, Rows]:
    """The mean of each arm, set, group and measure; and each pair of arms compared, on `COMPARED`.

    Every arm is compared with `BASELINE` in every group, `CENTRAL` with each of `AGAINST` on all questions. Holm's
    correction runs over the pairs of one set and measure whose groups divide the questions in the same way.
    """
    cells: Rows = []
    pairs: Rows = []
    arms = list(table.scores)
    if not arms:
        return cells, pairs
    every = np.hstack([over_runs(table.scores[arm]) for arm in arms])
    for set_, group, here in parts(table):
        scores, clusters = every[here], numbered(table.products[here])
        rows, replicates = means_with_intervals(scores, clusters, chance)
        names = [(arm, measure.name) for arm in arms for measure in MEASURES]
        cells += [
            {"arm": arm, "set": set_, "group": group, "metric": metric, **row}
            for (arm, metric), row in zip(names, rows, strict=True)
        ]
        pairs += _compare(set_, group, arms, scores, clusters, replicates, chance)
    families: dict[tuple[str, str, str], Rows] = defaultdict(list)
    for pair in pairs:
        families[pair["set"], pair["metric"], _family(pair["group"])].append(pair)
    for family in families.values():
        for pair, corrected in zip(family, holm([pair["p"] for pair in family]), strict=True):
            pair["p_holm"] = corrected
    return cells, pairs


def _family(group: str) -> str:
    """Groups that divide the questions in one way are corrected together."""
    return "ambiguity" if group in ("one_product", "several") else group.split(":")[0]


def _compare(
    set_: str,
    group: str,
    arms: Sequence[str],
    scores: Array,
    clusters: npt.NDArray[np.intp],
    replicates: Array,
    chance: Chance,
) -> Rows:
    compared = [(arm, BASELINE) for arm in arms if arm != BASELINE and BASELINE in arms]
    if group == "all" and CENTRAL in arms:
        compared += [(CENTRAL, arm) for arm in AGAINST if arm in arms]
    keys = [(arm, against, metric) for metric in COMPARED for arm, against in compared]
    if not keys:
        return []

    def column(arm: str, metric: str) -> int:
        return arms.index(arm) * len(MEASURES) + COLUMN[metric]

    first = [column(arm, metric) for arm, _, metric in keys]
    second = [column(against, metric) for _, against, metric in keys]
    differences = scores[:, first] - scores[:, second]
    low, high = percentile_interval(replicates[:, first] - replicates[:, second])
    sums = cluster_sums(differences, clusters)
    by_product = sums / np.bincount(clusters)[:, None]
    p = sign_flip_test(sums, chance.resamples, chance.seed)
    return [
        {
            "arm": arm,
            "against": against,
            "set": set_,
            "group": group,
            "metric": metric,
            "n": len(differences),
            "products": len(sums),
            "difference": float(differences[:, i].mean()),
            "low": float(low[i]),
            "high": float(high[i]),
            "p": float(p[i]),
            "effect": effect_size(by_product[:, i]),
            "won": int((differences[:, i] > 1e-12).sum()),
            "lost": int((differences[:, i] < -1e-12).sum()),
            "needed": products_needed(by_product[:, i]),
        }
        for i, (arm, against, metric) in enumerate(keys)
    ]
