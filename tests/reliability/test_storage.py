"""What docs/reliability.md promises of what is kept on disk, tried with small, fixed counts; `make torture` tries far more."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

STAGES = ("crash", "errors", "damage", "readers", "determinism")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All stages in one process of their own, which forks and therefore has no threads."""
    file = tmp_path_factory.mktemp("reliability") / "found.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.reliability", "--short", "--stages", *STAGES, "--one", str(file)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=550,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return {stage: one["found"] for stage, one in json.loads(file.read_text("utf-8")).items()}


@pytest.mark.parametrize("stage", STAGES)
def test_everything_is_as_promised(stage: str, found: dict[str, Any]) -> None:
    assert found[stage]["failures"] == []


@pytest.mark.parametrize("stage", ["crash", "errors"])
def test_after_a_failing_writer_a_reader_sees_the_old_state_or_the_new_one(stage: str, found: dict[str, Any]) -> None:
    writers = found[stage]["writers"]
    assert len(writers) == {"crash": 9, "errors": 3}[stage]
    assert all(one["points"] == one["old"] + one["new"] > 0 for one in writers)
    assert sum(one["old"] for one in writers) > 0 < sum(one["new"] for one in writers)
    assert found["crash"]["distinct"] >= 300, "a long run has so many points to be killed at"


def test_a_disk_that_fails_is_told(found: dict[str, Any]) -> None:
    """All but where what fails is not needed for the result, such as the removal of an old generation."""
    assert all(one["refused"] > 0 for one in found["errors"]["writers"])


def test_damage_is_refused_but_in_files_that_no_answer_depends_on(found: dict[str, Any]) -> None:
    counts = found["damage"]["counts"]
    assert all(ends["wrong"] == 0 for one in counts.values() for ends in one.values())
    assert sum(one["flip"]["refused"] for one in counts.values()) > 30
    documents = re.compile(
        r"index/CURRENT|(saved/)?adapter/(README\.md|loss\.png|metrics\.jsonl|recipe\.toml|split/.*)"
    )
    assert [name for name in found["damage"]["harmless"] if not documents.fullmatch(name)] == []


def test_readers_saw_several_states_and_never_two_at_once(found: dict[str, Any]) -> None:
    readers = found["readers"]["readers"]
    assert len(readers) == 6
    assert all(one["answers"] > 0 == one["mixed"] == one["errors"] for one in readers.values())
    assert max(one["states"] for one in readers.values()) > 1
    assert readers["process that keeps what it opened"]["states"] == 1


def test_what_is_made_twice_is_the_same(found: dict[str, Any]) -> None:
    made = found["determinism"]["made"]
    assert len(made) == 5
    assert all("no" not in (one["bytes"], one["answers"]) for one in made)


def test_the_tables_are_made_from_the_committed_result() -> None:
    from benchmarks import reliability

    page = reliability.PAGE.read_text("utf-8")
    for stage, one in json.loads(reliability.RESULT.read_text("utf-8"))["stages"].items():
        assert f"<!-- {stage} -->\n{reliability.table(stage, one)}\n<!-- /{stage} -->" in page
        assert one["size"] == "long"


def test_stages_measured_at_different_times_become_one_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import reliability

    monkeypatch.setattr(reliability, "RESULT", tmp_path / "result.json")
    (tmp_path / "result.json").write_text(json.dumps({"stages": {"crash": {"old": 1}, "damage": {"old": 2}}}))
    (tmp_path / "damage.json").write_text(json.dumps({"new": 3}))
    (tmp_path / "soak.json").write_text(json.dumps({"new": 4}))
    assert reliability.merged(tmp_path) == {"stages": {"crash": {"old": 1}, "damage": {"new": 3}, "soak": {"new": 4}}}
