from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from ragqa.evaluation.significance import (
    bootstrap,
    bootstrap_means,
    cluster_sums,
    effect_size,
    holm,
    percentile_interval,
    products_needed,
    resampled_counts,
    sign_flip_test,
)

SCORES = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.0, 0.3, 1.0])), min_size=2, max_size=15)


def spread(rows: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    clusters = np.unique([cluster for cluster, _ in rows], return_inverse=True)[1]
    return np.array([[score] for _, score in rows]), clusters


def test_rows_are_summed_by_cluster() -> None:
    values = np.array([[1.0, 10], [2, 20], [4, 40], [8, 80]])
    assert cluster_sums(values, np.array([1, 0, 1, 2])).tolist() == [[2, 20], [5, 50], [8, 80]]


def test_resamples_draw_as_many_clusters_as_there_are_in_blocks_of_bounded_size() -> None:
    counts = np.concatenate(list(resampled_counts(7, 1000, seed=3)))
    assert counts.shape == (1000, 7)
    assert (counts.sum(axis=1) == 7).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(7), abs=0.15)
    assert counts.var(axis=0) == pytest.approx(np.full(7, 6 / 7), abs=0.2)
    assert max(block.size for block in resampled_counts(5000, 1000, seed=0)) <= 2_000_000
    assert sum(len(block) for block in resampled_counts(5000, 1000, seed=0)) == 1000


def test_the_interval_is_scipys_where_each_product_has_one_question() -> None:
    scores = np.random.default_rng(1).random(80) ** 2
    means, replicates = bootstrap_means(scores[:, None], np.arange(80), seed=2)
    expected = scipy.stats.bootstrap((scores,), np.mean, method="percentile", n_resamples=10_000, rng=5)
    low, high = percentile_interval(replicates)
    assert means[0] == pytest.approx(scores.mean())
    # Two draws of 10,000: their ends differ by some hundredths of the width.
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert low[0] == pytest.approx(expected.confidence_interval.low, abs=0.04 * width)
    assert high[0] == pytest.approx(expected.confidence_interval.high, abs=0.04 * width)
    assert replicates.std() == pytest.approx(expected.standard_error, rel=0.04)


@given(SCORES, st.integers(2, 3))
@settings(max_examples=30)
def test_asking_every_question_twice_makes_no_interval_narrower(rows: list[tuple[int, float]], times: int) -> None:
    once = percentile_interval(bootstrap_means(*spread(rows), resamples=200, seed=0)[1])
    again = percentile_interval(bootstrap_means(*spread(rows * times), resamples=200, seed=0)[1])
    assert np.allclose(once, again)
    sums = cluster_sums(*spread(rows)) - 0.4
    assert sign_flip_test(sums) == pytest.approx(sign_flip_test(times * sums))


@given(SCORES)
@settings(max_examples=30)
def test_swapping_the_arms_turns_the_sign_and_nothing_else(rows: list[tuple[int, float]]) -> None:
    first, clusters = spread(rows)
    both = np.hstack([first, first[::-1]])
    _, replicates = bootstrap_means(both, clusters, resamples=200, seed=0)
    there = percentile_interval(replicates[:, [0]] - replicates[:, [1]])
    back = percentile_interval(replicates[:, [1]] - replicates[:, [0]])
    assert np.allclose(there, [-back[1], -back[0]])
    differences = cluster_sums(both[:, [0]] - both[:, [1]], clusters)
    assert sign_flip_test(differences) == pytest.approx(sign_flip_test(-differences))
    forth, away = effect_size(differences[:, 0]), effect_size(-differences[:, 0])
    assert (forth is None and away is None) or forth == pytest.approx(-away)  # type: ignore[operator]


def test_the_interval_covers_the_truth_in_95_of_100_samples_of_products_and_that_of_questions_does_not() -> None:
    rng = np.random.default_rng(0)
    products, questions, trials = 60, 5, 300
    clusters = np.repeat(np.arange(products), questions)
    covered = {"products": 0, "questions": 0}
    for trial in range(trials):
        # Each product has its own chance of success, 0.6 on average.
        chance = rng.beta(1.2, 0.8, products)
        scores = (rng.random(len(clusters)) < chance[clusters]).astype(float)[:, None]
        for name, groups in (("products", clusters), ("questions", np.arange(len(clusters)))):
            low, high = percentile_interval(bootstrap_means(scores, groups, resamples=400, seed=trial)[1])
            covered[name] += bool(low[0] <= 0.6 <= high[0])
    assert 0.915 <= covered["products"] / trials <= 0.98
    assert covered["questions"] / trials < 0.87


def test_a_score_that_some_questions_lack_is_a_mean_of_the_others() -> None:
    scores = np.array([[1, np.nan, np.nan], [0, 1, np.nan], [1, 0, np.nan], [0, np.nan, np.nan]])
    means, replicates = bootstrap_means(scores, np.array([0, 0, 1, 2]), resamples=500, seed=0)
    assert means[:2].tolist() == [0.5, 0.5]
    assert np.isnan(means[2])
    assert np.isnan(replicates[:, 1]).any()  # only the third product was drawn
    low, high = percentile_interval(replicates)
    assert (low[1], high[1]) == (0, 1)
    assert np.isnan([low[2], high[2]]).all()


def test_any_statistic_of_sums_can_be_resampled() -> None:
    sums = np.array([[1.0, 2], [3, 4], [5, 5]])
    replicates = bootstrap(sums, lambda total: total[:, :1] / total[:, 1:], resamples=50, seed=9)
    counts = np.concatenate(list(resampled_counts(3, 50, seed=9)))
    assert replicates[:, 0].tolist() == pytest.approx([(c @ sums)[0] / (c @ sums)[1] for c in counts])


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=1, max_size=7))
def test_the_exact_test_is_all_patterns_of_signs(differences: list[float]) -> None:
    seen = abs(sum(differences))
    patterns = itertools.product((1, -1), repeat=len(differences))
    as_extreme = [abs(sum(s * d for s, d in zip(p, differences, strict=True))) >= seen - 1e-9 for p in patterns]
    p = sign_flip_test(np.array(differences)[:, None])[0]
    assert p == pytest.approx(np.mean(as_extreme))
    assert 0 < p <= 1


def test_p_values_are_scipys() -> None:
    rng = np.random.default_rng(4)
    few, many = rng.normal(0.4, 1, 11), rng.normal(0.25, 1, 60)
    exact = scipy.stats.permutation_test((few,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_test(few[:, None])[0] == pytest.approx(exact.pvalue, abs=1e-12)
    drawn = scipy.stats.permutation_test((many,), np.sum, permutation_type="samples", n_resamples=20_000, rng=1)
    assert sign_flip_test(many[:, None], seed=2)[0] == pytest.approx(drawn.pvalue, abs=0.01)
    assert 0.01 < drawn.pvalue < 0.3


def test_p_is_never_zero_and_one_where_nothing_differs() -> None:
    columns = np.column_stack([np.ones(300), np.zeros(300), np.eye(300)[0], np.tile([1.0, -1.0], 150)])
    p = sign_flip_test(columns, resamples=999)
    assert p.tolist() == [1 / 1000, 1, 1, 1]
    assert sign_flip_test(np.ones((13, 1)))[0] == 2 / 2**13
    # Each column is tested as it would be alone.
    assert sign_flip_test(columns[:, [3]], resamples=999)[0] == p[3]


def test_holms_correction_is_that_of_the_paper() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


@given(st.lists(st.floats(0.0001, 1), min_size=1, max_size=8))
def test_a_corrected_p_is_no_smaller_and_keeps_the_order(p: list[float]) -> None:
    corrected = holm(p)
    assert all(a <= b <= 1 for a, b in zip(p, corrected, strict=True))
    assert sorted(corrected) == [corrected[i] for i in sorted(range(len(p)), key=lambda i: p[i])]


def test_effect_and_number_needed_are_those_of_the_textbook() -> None:
    differences = np.array([0.2, 0.0, 0.4, -0.2, 0.1])
    assert effect_size(differences) == pytest.approx(differences.mean() / differences.std(ddof=1))
    # (1.959964 + 0.841621)^2 = 7.848880
    expected = math.ceil(7.848880 * differences.var(ddof=1) / 0.01**2)
    assert products_needed(differences) == expected == 3925
    assert products_needed(differences, difference=0.1) == 40
    assert (effect_size(np.zeros(4)), effect_size(np.full(4, 0.5)), effect_size(np.ones(1))) == (0, None, None)
    assert products_needed(np.zeros(4)) is products_needed(np.full(4, 0.5)) is products_needed(np.ones(1)) is None


def test_so_many_products_show_the_difference_in_80_of_100_studies() -> None:
    rng = np.random.default_rng(0)
    pilot = rng.choice([-1.0, 0.0, 1.0], 400, p=[0.1, 0.7, 0.2])
    needed = products_needed(pilot - pilot.mean(), difference=0.1)
    assert needed is not None
    assert 150 < needed < 350
    studies = [rng.choice([-1.0, 0.0, 1.0], needed, p=[0.1, 0.7, 0.2]) for _ in range(150)]
    found = sign_flip_test(np.column_stack(studies), resamples=1000) <= 0.05
    assert 0.7 < found.mean() < 0.9
