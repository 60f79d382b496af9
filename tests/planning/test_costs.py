"""The figures are the benchmarks', the laws those that the documents show."""

import json
from pathlib import Path

import pytest

from benchmarks import plan as benchmark
from benchmarks import plan_report, road, scale_report, service_report
from ragqa.index import recipe
from ragqa.planning.costs import COSTS, DIMENSION, MEASURED, known_costs, vector_bytes
from ragqa.planning.growth import EXACT_TITLES


def test_the_figures_are_those_of_the_committed_results() -> None:
    results = (json.loads(one.RESULT.read_text("utf-8")) for one in (scale_report, service_report, road))
    assert benchmark.measured(*results) == json.loads(MEASURED.read_text("utf-8")), "python -m benchmarks.plan --keep"


def test_the_tables_are_made_from_the_figures() -> None:
    page = plan_report.PAGE.read_text("utf-8")
    for mark, text in plan_report.tables(known_costs().measured).items():
        assert f"<!-- {mark} -->\n{text}\n<!-- /{mark} -->" in page, "python -m benchmarks.plan --keep"


def test_the_picture_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        plan_report.draw(known_costs(), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_vectors_take_what_the_recipes_of_the_build_say() -> None:
    flat, lists = (recipe.plan(count, DIMENSION) for count in (EXACT_TITLES, EXACT_TITLES + 1))
    assert (flat.recipe, lists.recipe) == ("flat", "ivf-sq8")
    assert vector_bytes(EXACT_TITLES) == flat.memory
    assert vector_bytes(EXACT_TITLES + 1) == pytest.approx(lists.memory, rel=1e-3)


def test_the_parts_of_a_build_are_all_of_it() -> None:
    scale = json.loads(scale_report.RESULT.read_text("utf-8"))
    parts = known_costs().measured["costs"]["build"].values()
    for place, at in enumerate(scale["sizes"].values()):
        assert sum(part[place] for part in parts) == pytest.approx(at["build"]["seconds"]["total"], abs=0.01)


@pytest.mark.parametrize("name", [name for name, cost in COSTS.items() if cost.rival])
def test_the_law_that_is_taken_says_better_what_was_left_out(name: str) -> None:
    taken, other = (max(map(abs, growth[name].left_out())) for growth in (known_costs().growth, known_costs().rival))
    assert taken < other


@pytest.mark.parametrize("name", COSTS)
def test_what_was_measured_lies_in_the_intervals(name: str) -> None:
    costs = known_costs()
    for place, titles in enumerate(costs.measured["titles"]):
        found = costs.growth[name].at(titles)
        assert found.low <= sum(part[place] for part in costs.measured["costs"][name].values()) <= found.high
