import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ragqa.comparison.stages import Stages
from ragqa.errors import InputError, StorageError


# Stages run in processes of their own, which find these by their module's name.
def count(folder: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    (folder / "kept").touch()
    with (folder.parent / "calls").open("a") as file:
        file.write(f"{os.getpid()}\n")
    return {"sum": sum(inputs["numbers"]), "place": inputs["place"], "common": inputs["common"]}


def refuse(folder: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    raise InputError(f"no {inputs['what']}")


def die_once(folder: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    if not (folder / "kept").exists():
        (folder / "kept").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"went on": True}


def calls(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "calls").read_text().split()]


def test_a_stage_is_done_once_and_in_a_process_of_its_own(tmp_path: Path) -> None:
    for reused in (False, True):
        stages = Stages(tmp_path, {"common": 1})
        done = stages.run("sum", count, {"numbers": [1, 2]}, {"place": "here"})
        assert done.result == {"sum": 3, "place": "here", "common": 1}
        assert (done.folder / "kept").exists()
        assert stages.done == [done]
        assert (done.name, done.reused) == ("sum", reused)
        assert done.peak_mb > 1
    assert len(calls(tmp_path)) == 1
    assert calls(tmp_path) != [os.getpid()]


def test_other_inputs_are_another_stage_and_another_place_is_not(tmp_path: Path) -> None:
    folders = {
        Stages(tmp_path, {"common": common}).run("sum", count, {"numbers": numbers}, {"place": place}).folder
        for common, numbers, place in ((1, [1], "a"), (1, [1], "b"), (1, [2], "a"), (2, [1], "a"))
    }
    assert len(folders) == len(calls(tmp_path)) == 3


def test_an_error_comes_out_as_it_was_and_is_not_kept(tmp_path: Path) -> None:
    stages = Stages(tmp_path, {})
    for _ in range(2):
        with pytest.raises(InputError, match=r"^no moon$"):
            stages.run("refuse", refuse, {"what": "moon"}, {})
    assert stages.done == []


def test_a_killed_stage_says_so_and_goes_on(tmp_path: Path) -> None:
    stages = Stages(tmp_path, {})
    with pytest.raises(StorageError, match="the process of stage die was killed, maybe for want of memory"):
        stages.run("die", die_once, {}, {})
    assert stages.run("die", die_once, {}, {}).result == {"went on": True}


def test_a_damaged_result_is_refused(tmp_path: Path) -> None:
    folder = Stages(tmp_path, {"common": 1}).run("sum", count, {"numbers": []}, {"place": ""}).folder
    whole = json.loads((folder / "stage.json").read_text())
    (folder / "stage.json").write_text(json.dumps(whole)[:-9])
    with pytest.raises(StorageError, match="cannot be read; remove its folder"):
        Stages(tmp_path, {"common": 1}).run("sum", count, {"numbers": []}, {"place": ""})
