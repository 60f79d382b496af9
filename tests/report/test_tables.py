"""Every cell of a table comes from the analysis."""

from collections.abc import Iterator
from typing import Any

import pytest

from ragqa.report import tables
from ragqa.report.blocks import Table
from ragqa.report.reading import Reading, interval
from tests.report.made import LABELS, METRICS, Made, made


def every(reading: Reading) -> Iterator[Table]:
    yield from (tables.original(reading), tables.arms(reading), tables.ceiling(reading), tables.retrieval(reading))
    yield from (tables.abstention(reading), tables.cost(reading), tables.seeds(reading), tables.curve(reading))
    yield from (tables.training(reading), tables.stages(reading), tables.setup(reading))
    for name in reading.sets:
        yield from (tables.all_arms(reading, name), tables.by_rank(reading, name))
        yield tables.by_group(reading, name, reading.kinds, "F1 by kind")
        yield from (tables.against_copy(reading, name), tables.differences(reading, name, ["all"], "Differences"))


def shift(value: Any, by: float) -> Any:
    """The same analysis with every number of it moved."""
    if isinstance(value, dict):
        return {key: shift(one, by) for key, one in value.items()}
    if isinstance(value, list):
        return [shift(one, by) for one in value]
    return value + by if isinstance(value, float) else value


def cell(analysis: Made, *key: str) -> str:
    (row,) = [c for c in analysis["cells"] if (c["arm"], c["set"], c["group"], c["metric"]) == key]
    return interval(row)


def test_the_original_table_is_filled_from_the_analysis() -> None:
    raw, analysis = made()
    rows = tables.original(Reading(raw, analysis)).rows
    arms = [(name, arm) for name in ("unseen", "seen") for arm in ("base", "plain", "retrieval_context")]
    for row, (name, arm) in zip(rows, arms, strict=True):
        assert list(row[3:]) == [
            cell(analysis, arm, name, "all", m) for m in ("exact_match", "precision", "recall", "f1")
        ]


def test_all_arms_stand_with_all_measures_in_order_and_those_that_explain_last() -> None:
    raw, analysis = made()
    table = tables.all_arms(Reading(raw, analysis), "unseen")
    assert [row[0] for row in table.rows] == [
        label + (" (extra)" if arm in ("retrieval_written", "choice_without_model") else "")
        for arm, label in LABELS.items()
    ]
    for row, arm in zip(table.rows, LABELS, strict=True):
        assert list(row[2:-2]) == [cell(analysis, arm, "unseen", "all", m) for m in METRICS]
        corpus = [c for c in analysis["corpus"] if c["arm"] == arm and c["set"] == "unseen"]
        assert list(row[-2:]) == [interval(c, digits=1) for c in corpus]


def test_no_measured_figure_is_written_into_the_code() -> None:
    raw, analysis = made()
    moved = shift(analysis, 0.2)
    for one, other in zip(every(Reading(raw, analysis)), every(Reading(raw, moved)), strict=True):
        for row, changed in zip(one.rows, other.rows, strict=True):
            for a, b in zip(row, changed, strict=True):
                assert a != b or "[" not in a, (one.title, a)


@pytest.mark.parametrize("arms", [list(LABELS), ["copy"], ["base", "retrieval_context"], []])
@pytest.mark.parametrize("sets", [["unseen", "seen"], ["seen"]])
def test_rows_are_as_wide_as_the_head(arms: list[str], sets: list[str]) -> None:
    for table in every(Reading(*made(arms=arms, sets=sets, seeds=[0, 1]))):
        assert {len(row) for row in table.rows} <= {len(table.head)}, table.title


def test_what_was_not_measured_reads_so() -> None:
    raw, analysis = made(arms=["copy", "base"])
    for row in analysis["cells"]:
        if row["metric"] == "grounded" and row["arm"] == "base":
            row["mean"] = row["low"] = row["high"] = None
    analysis["cost"] = []
    reading = Reading(raw, analysis)
    table = tables.all_arms(reading, "unseen")
    assert table.rows[1][table.head.index("grounded")] == "n/a"
    assert table.rows[0][table.head.index("grounded")] != "n/a"
    assert list(tables.cost(reading).rows[0][1:5]) == ["n/a"] * 4


def test_set_up_names_all_that_a_repetition_needs() -> None:
    raw, analysis = made()
    found = dict(tables.setup(Reading(raw, analysis)).rows)
    assert found["catalogue: sha256"] == "cd" * 32
    assert found["base: weights_sha256"] == "ab" * 32
    assert found["commit"] == "0123abcd"
    assert found["profile: seeds"] == "0"
    assert found["recipe, retrieval: learning_rate"] == "0.0005"
    assert found["versions: torch"] == "2.9.1"


def test_differences_stand_with_interval_p_effect_and_what_would_be_needed() -> None:
    raw, analysis = made(arms=["copy", "retrieval_context"])
    (pair,) = [p for p in analysis["pairs"] if (p["set"], p["group"], p["metric"]) == ("unseen", "all", "f1")]
    pair |= {
        "difference": 0.012,
        "low": 0.004,
        "high": 0.02,
        "p": 0.00004,
        "p_holm": 0.0123,
        "effect": 0.314,
        "needed": None,
    }
    pair |= {"won": 17, "lost": 5, "n": 1234, "products": 1200}
    table = tables.differences(Reading(raw, analysis), "unseen", ["all"], "Differences")
    assert list(table.rows[0][2:]) == [
        "all questions", "F1", "1,234", "1,200", "0.012 [0.004, 0.020]", "< 0.0001", "0.012", "0.31", "17 / 5", "n/a"
    ]  # fmt: skip


def test_a_run_that_trained_nothing_has_a_set_up_without_recipes() -> None:
    raw, analysis = made(arms=["copy"])
    whole = tables.setup(Reading(raw, analysis)).rows
    del raw["setup"]["recipes"]
    assert list(tables.setup(Reading(raw, analysis)).rows) == [
        row for row in whole if not row[0].startswith("recipe, ")
    ]
    assert len(tables.setup(Reading(raw, analysis)).rows) < len(whole)
