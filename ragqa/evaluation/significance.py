"""What chance could have done: intervals by bootstrap, p-values by permutation, both by product and not by question.

Questions about one product share its description and succeed or fail together; taken one by one they would count as
more evidence than they are. So products are resampled with all their questions (Davison, Hinkley 1997, section 3.8;
Field, Welsh 2007), and the two arms' answers change places for whole products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ragqa.evaluation.scores import Array

LEVEL: Final = 0.95
EXACT: Final = 13  # with so many products or fewer that differ, all 2^13 sign patterns are tried
_BLOCK: Final = 2_000_000  # numbers drawn at once: 16 MB
_SAME: Final = 1e-12  # differences below are rounding


def cluster_sums(values: Array, clusters: npt.NDArray[np.intp]) -> Array:
    """Sums of rows by cluster.

    Args:
        values: (n, m).
        clusters: (n,), each from 0 to K - 1, every one of them used.

    Returns:
        (K, m).
    """
    order = np.argsort(clusters, kind="stable")
    starts = np.flatnonzero(np.diff(clusters[order], prepend=-1))
    found: Array = np.add.reduceat(values[order], starts, axis=0)
    return found


def resampled_counts(clusters: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each cluster is drawn when as many as there are are drawn with replacement.

    Returns:
        Blocks of (b, clusters), `resamples` rows in all; the same for the same arguments.
    """
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // clusters)
    for start in range(0, resamples, rows):
        block = min(rows, resamples - start)
        drawn = rng.integers(clusters, size=(block, clusters)) + clusters * np.arange(block)[:, None]
        yield np.bincount(drawn.ravel(), minlength=block * clusters).reshape(block, clusters).astype(float)


def bootstrap(sums: Array, statistic: Callable[[Array], Array], resamples: int = 10_000, seed: int = 0) -> Array:
    """A statistic of summed rows on resampled clusters.

    Columns see the same resamples, so that the difference of two of them is that of a pair.

    Args:
        sums: (K, s), of each cluster.
        statistic: from (b, s), sums of resampled clusters, to (b, m).
        resamples: how many.
        seed: of the draws.

    Returns:
        (resamples, m).
    """
    return np.concatenate([statistic(counts @ sums) for counts in resampled_counts(len(sums), resamples, seed)])


def bootstrap_means(
    scores: Array, clusters: npt.NDArray[np.intp], resamples: int = 10_000, seed: int = 0
) -> tuple[Array, Array]:
    """Means over questions, and what they are when clusters are resampled.

    A resample with many questions has a larger denominator: the mean is a ratio of two sums.

    Args:
        scores: (n, m); NaN where a question has no such score.
        clusters: (n,), as for `cluster_sums`.
        resamples: how many.
        seed: of the draws.

    Returns:
        Means (m,) and replicates (resamples, m); NaN where there was nothing to take a mean of.
    """
    known = ~np.isnan(scores)
    # Most columns know all questions: each pattern of known ones is summed once.
    patterns, which = np.unique(known, axis=1, return_inverse=True)
    m = scores.shape[1]
    sums = cluster_sums(np.hstack([np.where(known, scores, 0.0), patterns.astype(float)]), clusters)

    def means(total: Array) -> Array:
        below = total[:, m:][:, which.ravel()]
        return np.divide(total[:, :m], below, out=np.full_like(below, np.nan), where=below > 0)

    return means(sums.sum(axis=0, keepdims=True))[0], bootstrap(sums, means, resamples, seed)


def percentile_interval(replicates: Array, level: float = LEVEL) -> tuple[Array, Array]:
    """The bootstrap's percentile interval (Efron, Tibshirani 1993, chapter 13) of each column.

    Percentile and not BCa: of shares between 0 and 1 it never leaves the range, BCa's acceleration is undefined where
    all products score the same, and with hundreds of products the two agree. Where all questions score 0 or all 1 it
    has no width, which says nothing of products not asked about.

    Args:
        replicates: (resamples, m); those that are NaN are left out.
        level: of confidence.

    Returns:
        Lower and upper ends, (m,) each; NaN where all replicates are.
    """
    ends = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(replicates, ends, axis=0)
    for column in np.flatnonzero(np.isnan(low)):
        rest = replicates[~np.isnan(replicates[:, column]), column]
        if len(rest):
            low[column], high[column] = np.quantile(rest, ends)
    return low, high


def sign_flip_test(sums: Array, resamples: int = 10_000, seed: int = 0) -> Array:
    """Two-sided p-values of paired permutation tests: the arms' answers change places for whole products.

    The statistic is the sum of differences, which orders like their mean. Where at most `EXACT` products differ all
    patterns of signs are tried and p is exact; else p = (b + 1) / (resamples + 1), which is never 0 (Phipson, Smyth
    2010). Where none differs p is 1.

    Args:
        sums: (K, m): by product the sum of differences over its questions, for each of m pairs of arms.
        resamples: patterns of signs that are drawn, the same for all pairs.
        seed: of the draws.

    Returns:
        (m,).
    """
    sums = np.where(np.abs(sums) > _SAME, sums, 0.0)
    seen = np.abs(sums.sum(axis=0)) - _SAME * np.abs(sums).sum(axis=0)
    differing = (sums != 0).sum(axis=0)
    p = np.empty(sums.shape[1])
    few = np.flatnonzero(differing <= EXACT)
    for column in few:
        values = sums[sums[:, column] != 0, column]
        patterns = np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1
        p[column] = (np.abs((1.0 - 2.0 * patterns) @ values) >= seen[column]).mean()
    many = np.flatnonzero(differing > EXACT)
    if len(many):
        extreme = np.zeros(len(many))
        rng = np.random.default_rng(seed)
        rows = max(1, _BLOCK // len(sums))
        for start in range(0, resamples, rows):
            flips = rng.integers(0, 2, (min(rows, resamples - start), len(sums)), np.int8)
            extreme += (np.abs((1.0 - 2.0 * flips) @ sums[:, many]) >= seen[many]).sum(axis=0)
        p[many] = (extreme + 1) / (resamples + 1)
    return p


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979), in the order given."""
    corrected, worst = [0.0] * len(p), 0.0
    for place, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        worst = max(worst, min(1.0, (len(p) - place) * p[i]))
        corrected[i] = worst
    return corrected


def effect_size(differences: Array) -> float | None:
    """Cohen's d_z: mean of the products' mean differences by their standard deviation (Cohen 1988, section 2.3.5).

    Args:
        differences: (K,), by product the mean difference over its questions; every product counts once.

    Returns:
        0 where no product differs; None where it is undefined: one product, or all differ by the same amount.
    """
    if len(differences) < 2:
        return None
    mean, deviation = float(differences.mean()), float(differences.std(ddof=1))
    if deviation > _SAME:
        return mean / deviation
    return 0.0 if abs(mean) <= _SAME else None


def products_needed(differences: Array, difference: float = 0.01, power: float = 0.8) -> int | None:
    """How many products would show a true difference of this size, two-sided at 5 %.

    By the normal approximation, ((z_0.975 + z_power) s / difference)^2 with s the standard deviation of the products'
    mean differences, for as many questions a product as there were.

    Args:
        differences: (K,), by product the mean difference over its questions.
        difference: to be shown.
        power: probability of showing it.

    Returns:
        None where the differences do not vary, from which nothing follows.
    """
    from scipy.stats import norm

    deviation = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    if deviation <= _SAME:
        return None
    quantiles = float(norm.ppf(0.975) + norm.ppf(power))
    return math.ceil((quantiles * deviation / difference) ** 2)
