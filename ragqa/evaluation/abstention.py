"""How well an answerer knows what it does not know: abstaining where there is no product, and being sure when right.

All measures take questions with a weight each, so that a bootstrap passes its counts. Questions of equal confidence
come in no order: each measure is its mean over all orders of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ragqa.evaluation.scores import Array
from ragqa.evaluation.significance import resampled_counts

ABSTENTION_MEASURES: Final = ("precision", "recall", "auroc", "aurc")


@dataclass(frozen=True, slots=True)
class Asked:
    """What happened to each of n questions.

    Attributes:
        confidence: (n,), higher is surer; comparable within one arm.
        abstains: (n,), whether it abstained at its threshold.
        without: (n,), whether the question has no product, so that abstaining is right.
        wrong: (n,), from 0 to 1: 1 - exact match of the forced answer; 1 where there is no product.
    """

    confidence: Array
    abstains: npt.NDArray[np.bool_]
    without: npt.NDArray[np.bool_]
    wrong: Array


def abstention(asked: Asked, weights: Array | None = None) -> Array:
    """Precision and recall of abstaining, area under the ROC curve, area under the risk-coverage curve.

    - precision: share of those abstained from that have no product; recall: share of those without product that were
      abstained from. NaN where there are none.
    - AUROC: probability that a question with a product has more confidence than one without, ties counting half; NaN
      where there are only such or only such.
    - AURC (Geifman, El-Yaniv 2017): mean over k of the share of wrong answers among the k surest; lower is better.

    Args:
        asked: the questions.
        weights: (b, n) how often each question counts, whole numbers; once by default.

    Returns:
        (b, 4), in the order of `ABSTENTION_MEASURES`; b is 1 without weights.
    """
    if weights is None:
        weights = np.ones((1, len(asked.confidence)))
    right = weights @ (asked.abstains & asked.without)
    precision = _ratio(right, weights @ asked.abstains.astype(float))
    recall = _ratio(right, weights @ asked.without.astype(float))
    order, starts = _levels(asked.confidence)
    sorted_ = weights[:, order]
    total = np.add.reduceat(sorted_, starts, axis=1)
    without = np.add.reduceat(sorted_ * asked.without[order], starts, axis=1)
    wrong = np.add.reduceat(sorted_ * asked.wrong[order], starts, axis=1)
    return np.stack([precision, recall, _auroc(total, without), _aurc(total, wrong)], axis=1)


def bootstrap_abstention(
    runs: list[Asked], clusters: npt.NDArray[np.intp], resamples: int = 10_000, seed: int = 0
) -> tuple[Array, Array]:
    """The measures, each the mean over runs, and what they are when clusters of questions are resampled.

    Args:
        runs: of one arm on the same questions.
        clusters: (n,), as for `significance.cluster_sums`.
        resamples: how many.
        seed: of the draws.

    Returns:
        Values (4,) and replicates (resamples, 4), in the order of `ABSTENTION_MEASURES`.
    """

    def replicates() -> Iterator[Array]:
        for counts in resampled_counts(int(clusters.max()) + 1, resamples, seed):
            weights = counts[:, clusters]
            yield np.mean([abstention(run, weights) for run in runs], axis=0)

    return np.mean([abstention(run)[0] for run in runs], axis=0), np.concatenate(list(replicates()))


def risk_coverage(asked: Asked, points: int = 100) -> list[tuple[float, float]]:
    """Share of wrong answers when only the surest are answered (Geifman, El-Yaniv 2017).

    Args:
        asked: the questions.
        points: at most so many, evenly spaced; the last has all questions.

    Returns:
        (coverage, risk), coverage ascending from above 0 to 1.
    """
    order, starts = _levels(asked.confidence)
    sizes = np.diff(starts, append=len(order))
    # In the mean over orders, each question of a tie is as wrong as the tie is.
    mean = np.repeat(np.add.reduceat(asked.wrong[order], starts) / sizes, sizes)
    risk = np.cumsum(mean) / np.arange(1, len(order) + 1)
    count = min(points, len(order))
    picked = np.arange(1, count + 1) * len(order) // count
    return [(float(k / len(order)), float(risk[k - 1])) for k in picked]


def _levels(confidence: Array) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The order of falling confidence and where in it each new level begins."""
    order = np.argsort(-confidence, kind="stable")
    return order, np.flatnonzero(np.diff(confidence[order], prepend=np.inf))


def _auroc(total: Array, without: Array) -> Array:
    with_ = total - without
    above = np.cumsum(with_, axis=1) - with_ / 2
    return _ratio((without * above).sum(axis=1), without.sum(axis=1) * with_.sum(axis=1))


def _aurc(total: Array, wrong: Array) -> Array:
    # Within a tie of g questions and e errors, after n questions and E errors, the risk at the j-th is
    # (E + e j / g) / (n + j); summed over j that is e + (E - e n / g) (H(n + g) - H(n)), H the harmonic numbers.
    after = np.cumsum(total, axis=1)
    before = after - total
    errors = np.cumsum(wrong, axis=1) - wrong
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int(after.max()) + 1))])
    steps = harmonic[after.astype(np.intp)] - harmonic[before.astype(np.intp)]
    mean = np.divide(wrong, total, out=np.zeros_like(total), where=total > 0)
    return _ratio((wrong + (errors - mean * before) * steps).sum(axis=1), after[:, -1])


def _ratio(above: Array, below: Array) -> Array:
    ratio: Array = np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)
    return ratio
