"""Plans keep what was asked for, and say what they do not know."""

import json
import math
from typing import Any

import pytest

import ragqa
from ragqa import PlanSettings, plan
from ragqa.cli import main
from ragqa.errors import InputError
from ragqa.planning.plan import ROOM
from ragqa.planning.text import lines

TWO_CORES = PlanSettings(cores=2, memory=16e9)


def test_a_measured_size_is_planned_as_it_was_measured() -> None:
    found = plan(1_300_000, settings=TWO_CORES)
    assert (found.build.engine, found.search.engine, found.search.machines) == ("single", "faiss", 1)
    assert found.build.hours.value * 3600 == pytest.approx(2192.8, rel=0.1)
    assert found.search.p50_ms.value == pytest.approx(10.5, rel=0.1)
    assert found.costs["disk"].estimate.value == pytest.approx(1092e6, rel=0.02)
    assert found.times_measured == 1
    assert found.reasons == ()


@pytest.mark.parametrize("titles", [1, 50_000, 1e6, 12e6, 40e6, 3e8, 1e10])
@pytest.mark.parametrize("qps", [0, 3, 2000])
@pytest.mark.parametrize(
    "settings",
    [PlanSettings(), TWO_CORES, PlanSettings(memory=256e9, cores=64, max_build_hours=2, max_latency_ms=40, decoding="extractive")],
)  # fmt: skip
def test_what_was_asked_for_is_kept(titles: float, qps: float, settings: PlanSettings) -> None:
    found = plan(titles, qps, settings)
    build, search = found.build, found.search
    assert build.hours.high <= settings.max_build_hours
    assert search.p50_ms.high <= settings.max_latency_ms
    assert search.memory.value <= settings.memory
    assert search.services * search.answers_per_second >= qps or search.engine == "milvus"
    assert search.machines >= (2 if qps else 1)
    assert search.machines_between[0] <= search.machines <= search.machines_between[1]
    assert (search.engine == "milvus") == any("Milvus" in reason for reason in found.reasons)
    assert (build.engine == "ray") == (build.machines > 1)
    if search.engine == "faiss":
        assert build.memory
        assert build.memory.high <= settings.memory * ROOM
    json.dumps(found.to_dict(), allow_nan=False)


def test_no_more_shards_or_workers_than_it_takes() -> None:
    found = plan(3e8, 0, PlanSettings(max_build_hours=6))
    shards, workers = found.search.shards, found.build.machines
    assert shards > 1
    assert workers > 1
    # As many titles a shard as one fewer would have are too many, and one worker fewer is too slow.
    fewer = plan(math.ceil(3e8 / (shards - 1)), 0, PlanSettings(max_build_hours=1e5))
    assert fewer.search.shards > 1
    assert plan(3e8, 0, PlanSettings(max_build_hours=6 * workers / (workers - 1) * 1.05)).build.machines < workers


def test_machines_grow_with_the_questions_and_shrink_with_the_search() -> None:
    few, many = (plan(5e6, qps, TWO_CORES).search for qps in (10, 1000))
    assert few.answers_per_second == many.answers_per_second
    assert many.machines == math.ceil(1000 / many.answers_per_second) > few.machines
    assert many.machines_otherwise < many.machines  # a search that grows as sqrt(n)
    assert plan(5e6, 10, PlanSettings(cores=2, memory=16e9, min_replicas=9)).search.machines == 9


def test_a_generator_takes_memory_and_time() -> None:
    copied, written = (plan(1e6, 500, PlanSettings(decoding=decoding)) for decoding in ("copy", "extractive"))
    assert written.search.machines > 10 * copied.search.machines
    assert written.search.memory.value - copied.search.memory.value == pytest.approx(8 * 964_043_072)


def test_a_figure_of_ones_own_is_taken_and_said_to_be_one() -> None:
    found = plan(3.6e6, settings=PlanSettings(titles_per_second=1000))
    assert found.build.embedding_hours == pytest.approx(1.0)
    assert any("1,000 titles/s a machine: your figure" in one for one in found.assumptions)
    usual, longer = plan(1e6), plan(1e6, settings=PlanSettings(product_bytes=2 * 217))
    texts = 2 * (usual.costs["disk"].estimate.value - 400 * 1e6)
    assert longer.search.disk / 3 - 400 * 1e6 == pytest.approx(texts, rel=0.1)


def test_what_is_extrapolated_is_said_to_be() -> None:
    far, near = ("\n".join(lines(plan(titles, 100))) for titles in (3e8, 1.3e6))
    assert "extrapolated: 230.8 times the largest size that was measured, 1,300,000" in far
    assert "of Milvus nothing was measured" in far
    assert "extrapolated" not in near
    assert "Milvus" not in near
    for text in (far, near):
        assert "-18.7%" in text  # of p50 at 10,000, predicted from the others


def test_it_can_be_read_by_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["plan", "--titles", "300,000,000", "--qps", "2_000", "--memory", "128GB", "--cores", "32", "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    expected = ragqa.plan(300e6, 2000, PlanSettings(memory=128e9, cores=32))
    assert found == json.loads(json.dumps(expected.to_dict()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--titles", "0"], "titles must be a whole number from 1 to 1e+12, not 0"),
        (["--titles", "1e99"], "titles must be a whole number from 1 to 1e+12, not 1e+99"),
        (["--titles", "1e999"], "titles must be a whole number from 1 to 1e+12, not inf"),
        (["--titles", "1.5"], "titles must be a whole number"),
        (["--titles", "3 million"], "argument --titles: '3 million' is no number; such as 300e6 or 1,300,000 are accepted"),
        (["--titles", "1,2,3"], "'1,2,3' is no number"),
        (["--titles", "5", "--qps", "-3"], "qps must be a number from 0 to 1e+09, not -3"),
        (["--titles", "5", "--qps", "nan"], "'nan' is no number"),
        (["--titles", "5", "--memory", "lots"], "'lots' is no size"),
        (["--titles", "5", "--memory", "9" * 400], "is no size"),
        (["--titles", "5", "--memory", "1GB"], "a process that embeds or answers holds up to 1.5 GB"),
        (["--titles", "5", "--cores", "0", "--max-build-hours", "0"], "cores must be a whole number of at least 1, not 0; max_build_hours must be"),
        (["--titles", "1e6", "--max-latency-ms", "3"], "--max-latency-ms 3: embedding a question"),
        (["--qps", "3"], "the following arguments are required: --titles"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert message in line


@pytest.mark.parametrize("titles", [True, "5", None, -1, math.nan])
def test_a_wrong_value_in_python_is_one_of_our_errors(titles: Any) -> None:
    with pytest.raises(InputError, match="titles must be a whole number"):
        plan(titles)
