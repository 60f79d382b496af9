from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

from ragqa.evaluation.ranking import RANKING_MEASURES, ranked_scores


def test_ranks_score_as_counted_by_hand() -> None:
    assert list(RANKING_MEASURES) == ["recall@1", "recall@3", "recall@10", "mrr@10", "ndcg@10"]
    expected = [
        [1, 1, 1, 1, 1],
        [0, 1, 1, 1 / 3, 0.5],
        [0, 0, 1, 1 / 4, 1 / math.log2(5)],
        [0, 0, 1, 1 / 10, 1 / math.log2(11)],
        [0, 0, 0, 0, 0],  # the eleventh
        [0, 0, 0, 0, 0],  # not retrieved
    ]
    assert ranked_scores([0, 2, 3, 9, 10, None]) == pytest.approx(np.array(expected), abs=1e-9)
    assert ranked_scores([]).shape == (0, 5)


@given(st.lists(st.integers(0, 14), min_size=1, max_size=6))
def test_mrr_and_ndcg_are_scikit_learns(ranks: list[int]) -> None:
    truth = np.zeros((len(ranks), 15))
    truth[np.arange(len(ranks)), ranks] = 1
    order = np.tile(-np.arange(15.0), (len(ranks), 1))
    found = ranked_scores(ranks)
    assert found[:, 4].mean() == pytest.approx(ndcg_score(truth, order, k=10), abs=1e-9)
    # Of one right label, average precision is the reciprocal rank.
    shallow = [row for row, rank in enumerate(ranks) if rank < 10]
    if shallow:
        expected = label_ranking_average_precision_score(truth[shallow], order[shallow])
        assert found[shallow, 3].mean() == pytest.approx(expected, abs=1e-9)
