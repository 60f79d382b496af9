from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from ragqa.evaluation.abstention import Asked, abstention, bootstrap_abstention, risk_coverage

QUESTION = st.tuples(st.integers(0, 4), st.booleans(), st.booleans(), st.sampled_from([0.0, 0.5, 1.0]))


def asked(rows: list[tuple[float, bool, bool, float]]) -> Asked:
    confidence, abstains, without, wrong = zip(*rows, strict=True)
    return Asked(np.array(confidence, float), np.array(abstains), np.array(without), np.array(wrong, float))


def test_risk_and_coverage_are_those_counted_by_hand() -> None:
    found = asked([(0.9, False, False, 0), (0.8, False, False, 1), (0.7, True, True, 1), (0.6, False, False, 0)])
    assert np.allclose(risk_coverage(found), [(0.25, 0), (0.5, 0.5), (0.75, 2 / 3), (1, 0.5)])
    precision, recall, auroc, aurc = abstention(found)[0]
    assert (precision, recall) == (1, 1)
    assert auroc == pytest.approx(2 / 3)
    assert aurc == pytest.approx((0 + 1 / 2 + 2 / 3 + 1 / 2) / 4)
    assert np.allclose(risk_coverage(found, points=2), [(0.5, 0.5), (1, 0.5)])


@given(st.lists(QUESTION, min_size=2, max_size=12))
def test_precision_recall_and_auroc_are_scikit_learns(rows: list[tuple[float, bool, bool, float]]) -> None:
    found = asked(rows)
    precision, recall, auroc, _ = abstention(found)[0]
    if found.abstains.any():
        assert precision == pytest.approx(precision_score(found.without, found.abstains), abs=1e-9)
    else:
        assert np.isnan(precision)
    if found.without.any():
        assert recall == pytest.approx(recall_score(found.without, found.abstains), abs=1e-9)
    else:
        assert np.isnan(recall)
    if 0 < found.without.sum() < len(rows):
        assert auroc == pytest.approx(roc_auc_score(~found.without, found.confidence), abs=1e-9)
    else:
        assert np.isnan(auroc)


@given(st.lists(QUESTION, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_ties_are_the_mean_over_orders_whatever_the_order(
    rows: list[tuple[float, bool, bool, float]], r: Random
) -> None:
    found = asked(rows)
    again = list(rows)
    r.shuffle(again)
    assert np.allclose(abstention(found), abstention(asked(again)), equal_nan=True)
    assert np.allclose(risk_coverage(found), risk_coverage(asked(again)))
    # The mean over many random orders within ties, each evaluated as if there were none.
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(400):
        order = np.lexsort((rng.random(len(rows)), -found.confidence))
        areas.append((np.cumsum(found.wrong[order]) / np.arange(1, len(rows) + 1)).mean())
    assert abstention(found)[0, 3] == pytest.approx(np.mean(areas), abs=5 * np.std(areas) / 20 + 1e-9)
    assert abstention(found)[0, 3] == pytest.approx(np.mean([risk for _, risk in risk_coverage(found)]))


@given(st.lists(st.tuples(QUESTION, st.integers(0, 3)), min_size=1, max_size=8))
def test_a_weight_is_so_many_copies(weighted: list[tuple[tuple[float, bool, bool, float], int]]) -> None:
    copies = [row for row, times in weighted for _ in range(times)]
    if copies:
        weights = np.array([[times for _, times in weighted]], float)
        assert np.allclose(
            abstention(asked([row for row, _ in weighted]), weights), abstention(asked(copies)), equal_nan=True
        )


def test_resampling_keeps_a_products_questions_together_and_averages_runs() -> None:
    rng = np.random.default_rng(0)
    n = 60
    runs = [
        Asked(rng.random(n).round(1), rng.random(n) < 0.3, np.arange(n) % 5 == 0, rng.integers(0, 2, n).astype(float))
        for _ in range(2)
    ]
    values, replicates = bootstrap_abstention(runs, np.arange(n), resamples=300, seed=1)
    assert values == pytest.approx((abstention(runs[0])[0] + abstention(runs[1])[0]) / 2)
    assert replicates.shape == (300, 4)
    assert (np.nanmin(replicates, axis=0) < values).all()
    assert (np.nanmax(replicates, axis=0) > values).all()
    again = bootstrap_abstention(runs, np.arange(n), resamples=300, seed=1)[1]
    assert np.array_equal(replicates, again, equal_nan=True)
    # One cluster is always drawn once: nothing varies.
    _, whole = bootstrap_abstention(runs, np.zeros(n, int), resamples=5, seed=1)
    assert np.allclose(whole, values)
