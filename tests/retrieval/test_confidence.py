import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

from ragqa.errors import IndexDamagedError, InputError
from ragqa.index.generations import live_generation
from ragqa.records import Candidate, Product
from ragqa.retrieval.confidence import DEFAULT, FEATURES, Confidence, features, fit, risk_coverage


def candidate(title: str, score: float, id_: str = "a") -> Candidate:
    return Candidate(Product(id_, title, "d"), 0, score, score, score, False, score, score)


def test_the_margin_is_to_the_next_other_title() -> None:
    ranked = [candidate("Low Tide", 0.9), candidate("LOW TIDE", 0.9, "b"), candidate("High Tide", 0.6, "c")]
    assert features(ranked) == (0.9, 0.9, 0.9, 0.9, pytest.approx(0.3), 0.0)


def test_rivals_are_other_titles_with_as_much_of_the_question() -> None:
    ranked = [candidate("Low Tide", 0.6), candidate("High Tide", 0.6, "b"), candidate("Ebb", 0.5, "c")]
    assert features(ranked)[-1] == pytest.approx(math.log(2))


def test_risk_falls_with_coverage_as_counted_by_hand() -> None:
    assert risk_coverage([0.9, 0.8, 0.8, 0.1], [True, True, False, False]) == (
        (0.1, 1.0, 0.5),
        (0.8, 0.75, pytest.approx(2 / 3, abs=1e-6)),
        (0.9, 0.25, 1.0),
    )


def test_the_threshold_is_the_least_that_gives_the_precision() -> None:
    model = Confidence((0.0,) * len(FEATURES), 0.0, 200, 0.1, ((0.1, 1.0, 0.5), (0.8, 0.75, 0.9), (0.9, 0.25, 0.95)))
    assert [model.threshold(p) for p in (0.4, 0.5, 0.9, 0.92)] == [0.1, 0.1, 0.8, 0.9]
    with pytest.raises(InputError, match=r"the best is 0\.950, answering 25%"):
        model.threshold(0.99)
    with pytest.raises(InputError, match="too small"):
        DEFAULT.threshold(0.5)


def test_without_a_rival_the_margin_decides_nothing() -> None:
    assert features([candidate("Low Tide", 0.9)])[-2:] == (0.1, 0.0)


def test_the_probability_is_the_logistic_function() -> None:
    # 1 / (1 + e^-(0.5 * 2 + 1)) = 0.880797
    assert Confidence((0.5, 0.0, 0.0, 0.0, 0.0, 0.0), 1.0)((2.0, 9.0, 9.0, 9.0, 9.0, 9.0)) == pytest.approx(
        0.880797, abs=1e-6
    )


def test_a_fitted_model_tells_what_it_was_shown_apart() -> None:
    rng = random.Random(0)
    rows = [tuple(rng.random() for _ in FEATURES) for _ in range(400)]
    model = fit(rows, [row[1] > 0.5 for row in rows])
    assert model((0.5, 0.9, 0.5, 0.5, 0.5, 0.5)) > 0.9
    assert model((0.5, 0.1, 0.5, 0.5, 0.5, 0.5)) < 0.1
    assert model.fitted_on == 400
    assert model.log_loss < 0.3


@pytest.mark.parametrize("right", [[True] * 200, [False] * 200, [True, False] * 20])
def test_too_little_to_fit_on_gives_the_default(right: list[bool]) -> None:
    assert fit([(0.1, 0.2, 0.3, 0.4, 0.5, 0.6)] * len(right), right) == DEFAULT


def test_the_default_is_the_model_of_the_demonstration_catalogue(demo_index: Path) -> None:
    fitted = json.loads((live_generation(demo_index) / "confidence.json").read_text())
    # Another processor embeds a little differently.
    np.testing.assert_allclose(DEFAULT.weights, fitted["weights"], atol=0.5)
    assert pytest.approx(fitted["bias"], abs=0.5) == DEFAULT.bias


def test_a_model_survives_its_dictionary() -> None:
    model = Confidence((1.0, 2.0, 3.0, 4.0, 5.0, 6.0), -1.0, 120, 0.4)
    assert Confidence.from_dict(model.to_dict()) == model
    with pytest.raises(IndexDamagedError, match="other features"):
        Confidence.from_dict(model.to_dict() | {"features": ["cosine"]})
