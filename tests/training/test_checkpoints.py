"""Only whole checkpoints are resumed from, and none is removed before a newer one is whole."""

import json
import os
from pathlib import Path

import pytest

from ragqa.training.checkpoints import SEAL, checkpoints, newest_sealed, rotate, seal


def made(work: Path, steps: int, sealed: bool = True) -> Path:
    folder = work / f"checkpoint-{steps}"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "1_Pooling" / "config.json").write_text(str(steps))
    (folder / "model.safetensors").write_text(f"weights {steps}")
    if sealed:
        seal(folder)
    return folder


def left(work: Path) -> list[str]:
    return [path.name for path in checkpoints(work)]


def test_the_newest_whole_checkpoint_is_found(tmp_path: Path) -> None:
    assert newest_sealed(tmp_path) is None
    made(tmp_path, 9)
    whole = made(tmp_path, 10)
    made(tmp_path, 11, sealed=False)
    assert newest_sealed(tmp_path) == whole
    (whole / "model.safetensors").write_text("changed")
    assert newest_sealed(tmp_path) == tmp_path / "checkpoint-9"


@pytest.mark.parametrize("change", ["more", "fewer", "seal"])
def test_a_checkpoint_with_other_files_than_were_sealed_is_not_whole(change: str, tmp_path: Path) -> None:
    folder = made(tmp_path, 1)
    if change == "more":
        (folder / "more.json").write_text("{}")
    elif change == "fewer":
        (folder / "1_Pooling" / "config.json").unlink()
    else:
        (folder / SEAL).write_text(json.dumps({"sha256": {}})[:-1])
    assert newest_sealed(tmp_path) is None


def test_a_seal_flushes_every_file_and_folder_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append(Path(f"/proc/self/fd/{number}").readlink().name))
    made(tmp_path, 3)
    assert set(flushed[:4]) == {"config.json", "1_Pooling", "model.safetensors", "checkpoint-3"}
    assert flushed[3] == "checkpoint-3"
    assert flushed[4].startswith(f".{SEAL}.")
    assert flushed[5:] == ["checkpoint-3", tmp_path.name]


@pytest.mark.parametrize(
    ("limit", "best", "stay"),
    [(2, 4, [4, 5]), (2, 1, [1, 5]), (1, 5, [5]), (1, 2, [2, 5]), (3, None, [3, 4, 5]), (9, None, [1, 2, 3, 4, 5])],
)
def test_the_newest_and_the_best_stay(limit: int, best: int | None, stay: list[int], tmp_path: Path) -> None:
    for steps in range(1, 6):
        made(tmp_path, steps)
    rotate(tmp_path, limit, best)
    assert left(tmp_path) == [f"checkpoint-{steps}" for steps in stay]
