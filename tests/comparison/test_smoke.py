"""The whole comparison in its smallest size, on the real weights, as the README has it."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ragqa.comparison.arms import ARMS
from tests.conftest import ROOT

COMMAND = "ragqa benchmark --catalogue examples/catalogue/trn.json --profile smoke"
OUT = Path("reports") / "catalogue-smoke"

pytestmark = [pytest.mark.weights, pytest.mark.timeout(1200)]


def test_it_goes_on_after_a_kill_and_reports_every_arm(tmp_path: Path) -> None:
    assert COMMAND in (ROOT / "README.md").read_text("utf-8").splitlines()
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    command = [sys.executable, "-m", "ragqa.cli", *shlex.split(COMMAND)[1:]]
    stages = tmp_path / OUT / "stages"
    with (tmp_path / "log").open("wb") as log:
        running = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 300
        while not list(stages.glob("questions-*/stage.json")) and time.monotonic() < deadline:
            assert running.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.2)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    assert not (tmp_path / OUT / "report.html").exists()

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "stage questions: there already" in done.stderr
    result = json.loads((tmp_path / OUT / "result.json").read_text("utf-8"))
    raw, analysis = result["raw"], result["analysis"]
    assert {stage["name"]: stage["reused"] for stage in raw["stages"][:3]} == {
        "index": True, "questions": True, "train-plain-12-0": False,
    }  # fmt: skip
    assert list(raw["arms"]) == list(ARMS)
    with_product = [i for i, q in enumerate(raw["questions"]) if q["product_id"] is not None]
    for arm in raw["arms"].values():
        (run,) = arm["runs"]
        assert len(run["answers"]) == len(raw["questions"]) == 17
        assert any(run["answers"][i]["text"] for i in with_product)
        assert sum(a["seconds"] is not None for a in run["answers"]) == 1
    f1 = {
        cell["arm"]: cell["mean"]
        for cell in analysis["cells"]
        if (cell["set"], cell["group"], cell["metric"]) == ("unseen", "all", "f1")
    }
    assert f1["copy"] > 0.7, "its questions are not hard for the retriever"
    assert f1["retrieval_gold"] >= f1["base"]
    assert {row["examples"] for row in analysis["curve"]} == {0, 6, 12}
    assert "This is a toy run" in done.stdout
    for name in ("report.html", "report.md"):
        page = (tmp_path / OUT / name).read_text("utf-8")
        assert "This is a toy run" in page
        assert raw["catalogue"]["sha256"] in page
        assert raw["questions"][with_product[0]]["reference"][:20] in page or "Answers" in page

    # The example asks for the same comparison: all of its stages are there.
    example = [sys.executable, "examples/05_benchmark.py"]
    again = subprocess.run(example, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[0] == done.stdout.splitlines()[0]
    assert again.stdout.count("  [0.") == len(ARMS)
    told = json.loads((tmp_path / OUT / "result.json").read_text("utf-8"))
    assert all(stage["reused"] for stage in told["raw"]["stages"])
