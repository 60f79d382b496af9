"""Laws are fitted and tried as they say."""

import math

import numpy as np
import pytest

from ragqa.planning.growth import Fit, Growth, Law

SIZES = [1e4, 1e5, 6e5, 1e6]


def test_what_follows_a_law_is_found_and_leaves_no_doubt() -> None:
    fit = Fit(Law(("1", "n")), SIZES, [3 + 2e-3 * n for n in SIZES])
    assert fit.coefficients == pytest.approx([3, 2e-3])
    growth = Growth({"a": Law(("1", "n"))}, SIZES, {"a": [3 + 2e-3 * n for n in SIZES]})
    assert growth.left_out() == pytest.approx([0] * 4, abs=1e-9)
    found = growth.at(1e8)
    assert (found.value, found.low, found.high) == pytest.approx((200_003,) * 3)


def test_no_coefficient_is_negative() -> None:
    falling = Fit(Law(("1", "n")), [1, 2, 3], [3, 2, 1])
    assert falling.coefficients[1] == 0
    assert falling.freedom == 2  # the term that counts for nothing takes none


def test_what_is_known_is_not_fitted() -> None:
    fit = Fit(Law(("1",), known=lambda n: 5 * n), [1, 2], [7, 12])
    assert fit.coefficients == pytest.approx([2])
    assert fit.at(100) == pytest.approx(502)
    assert Fit(Law(known=lambda n: 5 * n), [1, 2], [5, 10]).at(7) == 35


def test_each_size_is_predicted_from_the_others() -> None:
    # Without 2, the cost is 1 each, 2 in all; without 1, it is 2 each.
    assert Growth({"a": Law(("n",))}, [1, 2], {"a": [1, 4]}).left_out() == pytest.approx([1.0, -0.5])


def test_the_interval_is_that_of_a_new_measurement() -> None:
    titles, costs = np.array([1.0, 2.0, 4.0]), np.array([1.1, 1.9, 4.2])
    # By hand: one coefficient, relative errors, two degrees of freedom; Student's t for 95 % is then 4.3027.
    x = titles / costs
    slope = x.sum() / (x @ x)
    error = math.sqrt(((1 - slope * x) ** 2).sum() / 2)
    far = 4.302653 * error * math.sqrt(10**2 / (x @ x) + (slope * 10) ** 2)
    found = Growth({"a": Law(("n",))}, list(titles), {"a": list(costs)}).at(10)
    assert (found.value, found.high) == pytest.approx((10 * slope, 10 * slope + far), rel=1e-5)
    assert found.low == pytest.approx(max(10 * slope - far, 0), rel=1e-5)


def test_parts_are_added_with_their_doubts() -> None:
    parts = {"a": [1.1, 1.9, 4.2], "b": [1.1, 1.9, 4.2]}
    law, titles = Law(("n",)), [1.0, 2.0, 4.0]
    one, both = Growth({"a": law}, titles, {"a": parts["a"]}), Growth({"a": law, "b": law}, titles, parts)
    assert both.at(10).value == pytest.approx(2 * one.at(10).value)
    # Two independent errors: sqrt(2) times as large, and of 4 degrees of freedom, for which t is 2.7764.
    wide, narrow = one.at(10).high - one.at(10).value, both.at(10).high - both.at(10).value
    assert narrow / wide == pytest.approx(math.sqrt(2) * 2.776445 / 4.302653, rel=1e-5)
    halved = both.at(10, {"b": 0.0})
    assert (halved.value, halved.high) == pytest.approx((one.at(10).value, one.at(10).high))


def test_where_there_is_none_of_a_part_nothing_is_learnt_of_it() -> None:
    # Below 52,084 titles there are no lists to train.
    fit = Fit(Law(("lists^2",)), [10_000, 100_000, 582_280], [0.0, 1024.0**2, 4096.0**2])
    assert fit.coefficients == pytest.approx([1.0])
    assert fit.at(10_000) == 0
