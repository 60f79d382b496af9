"""The first paragraph follows from the figures, whichever way they point."""

from typing import Any

import pytest

from ragqa.report.reading import Reading, duration, interval, number, probability, verdict
from ragqa.report.summary import answer, not_shown, recommended
from tests.report.made import KINDS, LABELS, made, set_pair

WITHOUT = [arm for arm in LABELS if arm != "choice_without_model"]


def said(*changes: tuple[str, str, float, float], **options: Any) -> tuple[str, str | None]:
    """The paragraph and the recommended arm, after differences (against, group, low, high) were set."""
    raw, analysis = made(**options)
    for change in changes:
        set_pair(analysis, *change)
    reading = Reading(raw, analysis)
    return answer(reading), recommended(reading)


ABOVE = ("copy", "all", 0.004, 0.02)
KINDS_EQUAL = [("copy", f"kind:{kind}", -0.002, 0.004) for kind in KINDS if kind not in ("absent", "nonsense")]


def test_means_stand_with_their_intervals_as_the_analysis_has_them() -> None:
    raw, analysis = made()
    text = answer(Reading(raw, analysis))
    for arm in ("retrieval_context", "plain", "copy"):
        for name in ("unseen", "seen"):
            (cell,) = [
                c for c in analysis["cells"]
                if (c["arm"], c["set"], c["group"], c["metric"]) == (arm, name, "all", "f1")
            ]  # fmt: skip
            assert f"{cell['mean']:.2f} [{cell['low']:.2f}, {cell['high']:.2f}]" in text


def test_above_on_all_and_below_on_none_recommends_the_fine_tuned_model() -> None:
    text, arm = said(ABOVE, ("choice_without_model", "all", 0.01, 0.03), *KINDS_EQUAL)
    assert arm == "retrieval_context"
    assert (
        "Over all questions it is above retrieve and return (difference 0.012 [0.004, 0.020], corrected p = 0.002)."
        in text
    )
    assert "It is lower on no kind of question." in text
    assert "the model adds to it" in text
    assert "Use retrieval-conditioned fine-tuning (median " in text
    assert "BELOW" not in text


def test_below_on_one_kind_is_said_and_recommends_retrieve_and_return() -> None:
    text, arm = said(ABOVE, *KINDS_EQUAL, ("copy", "kind:typo", -0.05, -0.01))
    assert arm == "copy"
    assert "By kind of question it is BELOW retrieve and return on: mistyped title (-0.030 [-0.050, -0.010])." in text
    assert "Use retrieve and return (median " in text
    assert "lower on no kind" not in text


def test_lower_on_one_kind_within_chance_is_said_too() -> None:
    text, arm = said(
        ABOVE, ("choice_without_model", "all", 0.01, 0.03), *KINDS_EQUAL, ("copy", "kind:typo", -0.05, 0.01)
    )
    assert "It is lower, though not beyond chance, on: mistyped title (-0.020 [-0.050, 0.010])." in text
    assert "lower on no kind" not in text
    assert arm == "retrieval_context"


def test_below_over_all_is_said_and_recommends_retrieve_and_return() -> None:
    text, arm = said(("copy", "all", -0.04, -0.01), arms=["copy", "plain", "retrieval_context"])
    assert arm == "copy"
    assert "Over all questions it is BELOW retrieve and return (difference -0.025 [-0.040, -0.010]" in text
    assert text.endswith("no other arm was shown to be better.")


def test_an_interval_that_holds_zero_is_said_with_what_would_settle_it() -> None:
    text, arm = said(("copy", "all", -0.01, 0.02), arms=["copy", "plain", "retrieval_context"])
    assert arm == "copy"
    assert "does not show that the fine-tuned model is better than retrieve and return" in text
    assert "whose interval holds zero" in text
    assert "is too little to see a difference of one point (0.01), for which about 3,217 would be needed" in text


def test_enough_questions_and_still_no_difference_is_said() -> None:
    raw, analysis = made(arms=["copy", "retrieval_context"])
    set_pair(analysis, "copy", "all", -0.001, 0.002)
    for pair in analysis["pairs"]:
        pair["needed"] = 5
    text = answer(Reading(raw, analysis))
    assert "is enough to see a difference of one point (0.01)" in text
    assert "would be needed" not in text


def test_an_interval_clear_of_zero_is_chance_where_the_corrected_test_says_so() -> None:
    raw, analysis = made(arms=["copy", "retrieval_context"])
    set_pair(analysis, "copy", "all", 0.001, 0.02)
    reading = Reading(raw, analysis)
    assert recommended(reading) == "retrieval_context"
    next(p for p in analysis["pairs"] if p["group"] == "all" and p["metric"] == "f1" and p["set"] == "unseen")[
        "p_holm"
    ] = 0.06
    reading = Reading(raw, analysis)
    assert recommended(reading) == "copy"
    assert "not beyond chance once corrected" in answer(reading)


def test_equal_everywhere_is_called_the_same() -> None:
    text, arm = said(("copy", "all", 0.0, 0.0), arms=["copy", "retrieval_context"])
    assert "Over all questions it scores the same as retrieve and return." in text
    assert arm == "copy"


def test_a_model_that_adds_nothing_to_the_choice_is_not_recommended() -> None:
    text, arm = said(ABOVE, *KINDS_EQUAL, ("choice_without_model", "all", -0.01, 0.015))
    assert arm == "choice_without_model"
    assert "this run does not show that the language model adds anything" in text
    assert "Use the choice of source without the model (median " in text


def test_a_model_that_harms_the_choice_is_not_recommended() -> None:
    text, arm = said(ABOVE, *KINDS_EQUAL, ("choice_without_model", "all", -0.03, -0.01))
    assert arm == "choice_without_model"
    assert "the model does harm" in text


def test_plain_fine_tuning_as_good_or_better_is_said() -> None:
    text, _ = said(("plain", "all", -0.03, 0.02), *KINDS_EQUAL, ABOVE)
    assert "this run does not show that retrieval helps fine-tuning" in text
    text, arm = said(("plain", "all", -0.3, -0.2), ABOVE, *KINDS_EQUAL, arms=WITHOUT)
    assert "It is BELOW plain fine-tuning" in text
    assert arm == "retrieval_context"  # plain itself is below retrieve and return here
    raw, analysis = made(arms=WITHOUT)
    for change in (("plain", "all", -0.3, -0.2), ABOVE, *KINDS_EQUAL):
        set_pair(analysis, *change)
    set_pair(analysis, "copy", "all", 0.01, 0.05, arm="plain")
    assert recommended(Reading(raw, analysis)) == "plain"


def test_the_ceiling_is_never_recommended() -> None:
    raw, analysis = made(arms=["copy", "retrieval_gold", "retrieval_context"])
    set_pair(analysis, "copy", "all", -0.02, -0.01)
    set_pair(analysis, "copy", "all", 0.05, 0.1, arm="retrieval_gold")
    assert recommended(Reading(raw, analysis)) == "copy"


@pytest.mark.parametrize("seed", range(20))
def test_nothing_but_a_proven_gain_is_ever_recommended_over_retrieve_and_return(seed: int) -> None:
    raw, analysis = made(seed)
    reading = Reading(raw, analysis)
    arm = recommended(reading)
    if arm not in ("copy", "choice_without_model"):
        pair = reading.pair(str(arm), "copy", "unseen")
        assert pair is not None
        assert pair["low"] > 0
        assert pair["p_holm"] < 0.05
        assert all((p := reading.pair(str(arm), "copy", "unseen", k)) is None or p["high"] >= 0 for k in reading.kinds)


@pytest.mark.parametrize("missing", LABELS)
def test_any_arm_may_be_missing(missing: str) -> None:
    raw, analysis = made(arms=[arm for arm in LABELS if arm != missing])
    text = answer(Reading(raw, analysis))
    if missing == "copy":
        assert text.endswith("Retrieve and return was not measured, so nothing is recommended.")
    if missing == "retrieval_context":
        assert "retrieval-conditioned fine-tuning was not measured" in text
        assert "Use retrieval-conditioned" not in text
    assert "n/a" not in text


def test_a_run_without_unseen_products_says_that_it_shows_nothing_about_them() -> None:
    raw, analysis = made(sets=["seen"])
    reading = Reading(raw, analysis)
    assert "No question was about unseen products: of those this run shows nothing." in answer(reading)
    assert not_shown(reading)[-1] == "Nothing is shown about unseen products: no question was about them."


def test_a_toy_run_says_so_first() -> None:
    raw, analysis = made()
    raw["profile"]["name"] = "smoke"
    assert answer(Reading(raw, analysis)).startswith("This is a toy run")


def test_no_measured_question_gives_no_figures() -> None:
    raw, analysis = made(kinds=["absent"])
    analysis["cells"] = []
    assert answer(Reading(raw, analysis)).startswith("Nothing was measured")


def test_limits_come_from_the_run() -> None:
    raw, analysis = made(seeds=[0, 1, 2])
    limits = " ".join(not_shown(Reading(raw, analysis)))
    asked = [q for q in raw["questions"] if q["product_id"]]
    for part in (
        "over 3 seeds", "SmolLM2-135M-Instruct", "corner-shop (876 products)", "2 cores, AMD EPYC", "80 tokens", "in the index",
        "validation questions only", "not typed by shoppers", "Nothing is dropped",
        f"{sum(q['ambiguous'] for q in asked)} of {len(asked)} questions",
    ):  # fmt: skip
        assert part in limits
    raw, analysis = made(seeds=[7])
    assert "Every training ran once (seed 7)" in " ".join(not_shown(Reading(raw, analysis)))


def test_numbers_never_hide_a_difference_or_show_a_false_one() -> None:
    assert [number(v) for v in (0.93, -0.0004, 1e-17, -1e-12, None)] == ["0.930", "-0.0004", "0.000", "0.000", "n/a"]
    assert interval({"mean": 0.5, "low": None, "high": None}) == "0.500 [no interval]"
    assert interval({"mean": None, "low": None, "high": None}) == interval(None) == "n/a"
    assert [probability(p) for p in (0.25, 0.0004, 0.00001, None)] == ["0.250", "0.0004", "< 0.0001", "n/a"]
    assert verdict({"low": 0.0, "high": 0.1, "p_holm": 0.01}) == "open"
    assert verdict({"low": None, "high": None}) == verdict(None) == "unknown"


def test_a_difference_without_a_corrected_test_is_said_without_one() -> None:
    raw, analysis = made(arms=["copy", "retrieval_context"])
    set_pair(analysis, "copy", "all", 0.004, 0.02)
    for pair in analysis["pairs"]:
        pair["p_holm"] = None
    text = answer(Reading(raw, analysis))
    assert "Over all questions it is above retrieve and return (difference 0.012 [0.004, 0.020])." in text
    assert "corrected p" not in text


def test_without_a_count_that_would_be_needed_nothing_is_said_about_too_few_questions() -> None:
    raw, analysis = made(arms=["copy", "retrieval_context"])
    set_pair(analysis, "copy", "all", -0.01, 0.02)
    for pair in analysis["pairs"]:
        pair["needed"] = None
    text = answer(Reading(raw, analysis))
    assert "corrected p = 0.800, whose interval holds zero). " in text
    assert "one point" not in text


def test_another_arm_that_was_shown_to_be_better_is_recommended_with_its_time() -> None:
    raw, analysis = made(arms=WITHOUT)
    for change in (("plain", "all", -0.3, -0.2), ABOVE, *KINDS_EQUAL):
        set_pair(analysis, *change)
    set_pair(analysis, "copy", "all", 0.01, 0.05, arm="plain")
    text = answer(Reading(raw, analysis))
    assert f"Use {LABELS['plain']} (median " in text
    assert text.endswith(", the best of what was shown to be better.")


def test_an_arm_that_was_not_timed_is_recommended_without_a_time() -> None:
    raw, analysis = made(arms=["copy", "retrieval_context"])
    analysis["cost"] = []
    set_pair(analysis, "copy", "all", -0.04, -0.01)
    text = answer(Reading(raw, analysis))
    assert text.endswith("Use retrieve and return: no other arm was shown to be better.")


def test_a_time_is_said_in_the_unit_people_would_use() -> None:
    said_as = [duration(seconds) for seconds in (None, 119.94, 120, 7199, 7200)]
    assert said_as == ["n/a", "119.9 s", "2.0 min", "120.0 min", "2.0 h"]
