"""A comparison that cannot begin, parts of one that were not asked for, and work of another run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from ragqa.cli import main
from ragqa.comparison import run as run_
from ragqa.comparison import steps
from ragqa.comparison.profile import Profile, make_profile
from ragqa.comparison.stages import Done, Stages
from ragqa.errors import InputError, StorageError
from ragqa.training.documents import METRICS
from ragqa.training.recipe import Recipe
from ragqa.training.workplace import MANIFEST


class Finished:
    """Stages of which each has the same result."""

    def __init__(self, folder: Path, **result: Any) -> None:
        self.folder, self.result = folder, result
        self.asked: list[str] = []

    def run(self, name: str, work: object, inputs: Mapping[str, Any], places: Mapping[str, str]) -> Done:
        self.asked.append(name)
        return Done(name, self.result, self.folder / name, 1.0, 2.0, "", True)


def make_run(stages: Finished, **sizes: Any) -> run_._Run:
    profile = make_profile("smoke", **sizes)
    about = {"data": {"products_train.txt": "aa", "products_unseen.txt": "bb", "test_seen.jsonl": "cc"}}
    return run_._Run(cast("Stages", stages), profile, {}, stages.folder, stages.folder, about)


def test_a_catalogue_that_is_no_file_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"/my\.csv: no such file; give the catalogue as a file, such as my\.csv"):
        run_.compare(tmp_path / "my.csv", tmp_path / "out", profile="smoke")
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_that_was_trained_on_other_products_is_refused(tmp_path: Path) -> None:
    same = {"products_train.txt": "aa", "products_unseen.txt": "bb", "test_seen.jsonl": "other questions"}
    stages = Finished(tmp_path, data=same)
    assert run_._train(make_run(stages), "plain", 12, 0).folder == tmp_path / "train-plain-12-0"
    stages.result["data"] = same | {"products_unseen.txt": "xx"}
    message = r"/train-plain-12-0: was trained on another split of the products; remove that folder$"
    with pytest.raises(StorageError, match=message):
        run_._train(make_run(stages), "plain", 12, 0)


def test_without_sizes_for_a_learning_curve_nothing_further_is_trained(tmp_path: Path) -> None:
    stages = Finished(tmp_path)
    assert list(run_._curve(make_run(stages, curve=()), [], {})) == []
    assert stages.asked == []


def test_an_adapter_that_is_there_already_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "fine_tune", lambda *_, **__: pytest.fail("it is trained again"))
    out = tmp_path / steps.ADAPTER
    out.mkdir()
    names = ("trained", "choice", "base", "dtype", "device", "data")
    manifest = dict.fromkeys(names, "x") | {"examples": 30, "recipe": {"epochs": 2.0}, "seconds": {"train": 1.5}}
    (out / MANIFEST).write_text(json.dumps(manifest))
    lines = [{"step": 1, "epoch": 1.0, "loss": 0.5}, {"step": 2, "epoch": 2.0, "eval_loss": 0.25}, {"step": 2}]
    (out / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert steps.train(tmp_path, {}) == manifest | {
        "history": [
            {"step": 1, "examples": 15, "loss": 0.5, "eval_loss": None},
            {"step": 2, "examples": 30, "loss": None, "eval_loss": 0.25},
        ]
    }


def test_the_command_takes_hyper_parameters_from_a_recipe_and_sizes_from_the_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    profiles: list[Profile] = []

    def compare(*_: object, profile: Profile, **__: object) -> dict[str, Any]:
        profiles.append(profile)
        return {"answer": "As good.", "files": {"html": "report.html"}}

    monkeypatch.setattr(run_, "compare", compare)
    (tmp_path / "recipe.toml").write_text("rank = 3\nexamples = 999\n")
    given = ["benchmark", "--catalogue", "my.csv", "--profile", "smoke", "--seen", "4", "-q"]
    assert main([*given, "--recipe", str(tmp_path / "recipe.toml")]) == 0
    assert capsys.readouterr().out == "As good.\nreport: report.html\n"
    (profile,) = profiles
    recipe = profile.make_recipe()
    assert (profile.name, profile.seen, recipe.rank, recipe.examples) == ("smoke", 4, 3, 12)
    assert recipe.rank != Recipe().rank
