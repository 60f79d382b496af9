import pytest

from ragqa.retrieval import fuse


def test_weighted_is_the_mean_by_weights() -> None:
    assert fuse.weighted((1.0, 1.0, 1.0, 1.0)) == 1.0
    # (1 * 0.8 + 1 * 0.5 + 0.5 * 0.4 + 0.25 * 0.2) / 2.75
    assert fuse.weighted((0.8, 0.5, 0.4, 0.2)) == pytest.approx(1.55 / 2.75)


def test_reciprocal_rank_by_hand() -> None:
    scores = fuse.reciprocal_rank([[7, 8], [8, 9]], [7, 8, 9, 10])
    # Of the paper's sums 1/61, 1/62 + 1/61, 1/62 and 0, divided by the 2/61 of a row that is first in both.
    assert scores.tolist() == pytest.approx([0.5, (1 / 62 + 1 / 61) * 61 / 2, 61 / 62 / 2, 0.0], abs=1e-6)


def test_who_is_first_in_every_list_has_one() -> None:
    assert fuse.reciprocal_rank([[3, 4], [3, 5]], [3, 4, 5])[0] == pytest.approx(1.0)
