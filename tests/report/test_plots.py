"""Pictures show what was measured, and leave out what was not."""

from collections.abc import Callable

import pytest

from ragqa.report import plots
from ragqa.report.blocks import Picture
from ragqa.report.reading import Reading
from tests.report.made import Made, made

Draw = Callable[[Reading], Picture | None]


def drawn(draw: Draw, raw: Made, analysis: Made) -> str:
    picture = draw(Reading(raw, analysis))
    assert picture is not None
    return picture.svg


def spreads(svg: str) -> int:
    """Number of interval lines and bands beside the legend."""
    axes = svg.partition("-legend_")[0]
    return axes.count("-LineCollection_") + axes.count("PolyCollection_")


@pytest.mark.parametrize(
    ("draw", "table"),
    [(plots.forest, "cells"), (plots.learning, "curve"), (plots.recall, "retrieval")],
    ids=["forest", "learning", "recall"],
)
def test_a_mean_without_an_interval_is_drawn_without_one(draw: Draw, table: str) -> None:
    raw, analysis = made()
    before = spreads(drawn(draw, raw, analysis))
    for row in analysis[table]:
        row["low"] = row["high"] = None
    assert before > 0
    assert spreads(drawn(draw, raw, analysis)) == 0


def test_a_time_keeps_its_line_across_where_the_score_has_no_interval() -> None:
    raw, analysis = made(arms=["copy", "retrieval_context"])
    assert spreads(drawn(plots.latency, raw, analysis)) == 4
    for row in analysis["cells"]:
        row["low"] = None
    assert spreads(drawn(plots.latency, raw, analysis)) == 2


def test_an_arm_that_a_set_or_group_lacks_has_no_mark_there() -> None:
    raw, analysis = made(arms=["copy", "retrieval_context"])
    reading = Reading(raw, analysis)
    kinds = reading.kinds
    assert spreads(drawn(plots.forest, raw, analysis)) == 4
    before = spreads(drawn(lambda reading: plots.panels(reading, "kinds", kinds, "kind"), raw, analysis))
    gone = ("copy", "unseen", "all", "f1"), ("copy", "unseen", "kind:typo", "f1")
    analysis["cells"] = [c for c in analysis["cells"] if (c["arm"], c["set"], c["group"], c["metric"]) not in gone]
    assert spreads(drawn(plots.forest, raw, analysis)) == 3
    after = spreads(drawn(lambda reading: plots.panels(reading, "kinds", kinds, "kind"), raw, analysis))
    assert after == before - 1


def test_only_the_fine_tunings_that_were_done_have_a_learning_curve() -> None:
    raw, analysis = made()
    raw["training"] = []
    assert spreads(drawn(plots.learning, raw, analysis)) == 2
    analysis["curve"] = [row for row in analysis["curve"] if row["mode"] == "retrieval"]
    assert spreads(drawn(plots.learning, raw, analysis)) == 1


def test_a_retriever_that_was_not_measured_has_no_line_and_without_any_there_is_no_picture() -> None:
    raw, analysis = made(sets=["unseen"])
    assert spreads(drawn(plots.recall, raw, analysis)) == 2
    analysis["retrieval"] = [row for row in analysis["retrieval"] if row["retriever"] == "ragqa"]
    assert spreads(drawn(plots.recall, raw, analysis)) == 1
    analysis["retrieval"] = []
    assert plots.recall(Reading(raw, analysis)) is None
