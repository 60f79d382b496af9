import json
import math
import random
from dataclasses import replace

import pytest

from ragqa.generation.choice import FEATURES, NONE_FEATURES, Alternatives, Choice, alternatives, fit, number_tokens
from ragqa.records import Candidate, Product


def candidate(title: str, score: float) -> Candidate:
    return Candidate(Product(title, title, "Text."), 0, score, score, score, exact=False)


def asked(seed: int, count: int = 300) -> tuple[list[Alternatives], list[int]]:
    """Questions in which the model is right four times of five, and cosine says nothing."""
    random_, known, right = random.Random(seed), [], []
    for _ in range(count):
        truth = random_.randrange(4)
        believed = truth if random_.random() < 0.8 else random_.randrange(4)
        log_probs = [math.log(0.7 if i == believed else 0.1) for i in range(4)]
        rows = tuple((random_.random(), 0.5, 0.5, 0.5, float(i == 1)) for i in (1, 2, 3))
        known.append(Alternatives(rows, (1.0, 0.0), tuple(log_probs)))
        right.append(truth)
    return known, right


def test_what_tells_right_from_wrong_gets_the_weight() -> None:
    found = fit(*asked(1))
    weights = dict(zip(FEATURES, found.weights, strict=True))
    assert found.model[0] > 0.5
    assert abs(weights["cosine"]) < 1.0
    assert found.fitted_on == found.judged == 300
    assert found.log_loss is not None
    assert found.log_loss_without is not None
    assert found.log_loss < found.log_loss_without - 0.1


def test_a_model_that_knows_nothing_gets_no_say() -> None:
    known, right = asked(1)
    random_ = random.Random(3)
    guesses = [replace(a, log_probs=tuple(random_.sample(a.log_probs, len(a.log_probs)))) for a in known]
    assert abs(fit(guesses, right).model[0]) < 0.15


def test_what_the_retriever_knew_is_learnt_without_the_model() -> None:
    known, right = asked(1)
    mixed = [a if i < 50 else replace(a, log_probs=()) for i, a in enumerate(known)]
    found = fit(mixed, right)
    assert found.weights == fit([replace(a, log_probs=()) for a in known], right).weights
    assert (found.fitted_on, found.judged) == (300, 50)
    assert found.model[0] > 0.5


def test_its_probabilities_are_calibrated_on_new_questions() -> None:
    found = fit(*asked(1))
    known, right = asked(2)
    best = [max((p, i) for i, p in enumerate(found.probabilities(a))) for a in known]
    assert sum(p for p, _ in best) / 300 == pytest.approx(
        sum(i == r for (_, i), r in zip(best, right, strict=True)) / 300, abs=0.1
    )


def test_probabilities_are_of_none_and_every_candidate() -> None:
    shares = Choice().probabilities(
        alternatives(
            [candidate("red kettle", 0.9), candidate("blue kettle", 0.4)], "red kettle", 0.8, [-3.0, -0.1, -2.5]
        )
    )
    assert sum(shares) == pytest.approx(1)
    assert shares[1] > max(shares[0], shares[2])


def test_a_doubtful_retriever_makes_none_likelier() -> None:
    sure, doubtful = (
        Choice().probabilities(alternatives([candidate("kettle", 0.5)], "kettle", confidence, [-1.0, -1.0]))[0]
        for confidence in (0.99, 0.01)
    )
    assert doubtful > sure


def test_features_are_those_named() -> None:
    known = alternatives([candidate("red kettle", 0.75)], "kettle", 0.5, [-2.0, -0.2])
    assert len(known.none) == len(NONE_FEATURES)
    assert (known.none, known.log_probs) == ((1.0, 0.0), (-2.0, -0.2))
    ((cosine, overlap, reverse, covered, first),) = known.candidates
    assert (cosine, overlap, covered, first) == (0.75, 0.75, 1.0, 1.0)
    assert 0 < reverse < 1, "a title has more than the question"


def test_too_few_questions_give_the_prior() -> None:
    known, right = asked(1, 19)
    assert fit(known, right) == Choice()


def test_a_choice_survives_json_and_refuses_other_features() -> None:
    found = fit(*asked(1, 40))
    values = json.loads(json.dumps(found.to_dict()))
    assert Choice.from_dict(values) == found
    with pytest.raises(ValueError, match="other features"):
        Choice.from_dict(values | {"features": ["moon"]})
    with pytest.raises(ValueError, match="weights missing"):
        Choice.from_dict(values | {"none": [1.0]})


def test_every_number_has_a_token_of_its_own(tiny_model: object) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = number_tokens(tokenizer)
    assert [tokenizer.decode([i]) for i in ids] == list("0123456789")
