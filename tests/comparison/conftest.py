"""Adapters of a random model, trained for one step on the demonstration catalogue."""

from pathlib import Path

import pytest

from ragqa.training.fine_tune import fine_tune
from ragqa.training.recipe import Recipe
from tests.training.conftest import SMALL


@pytest.fixture(scope="session")
def recipe(tiny_model: Path) -> Recipe:
    return Recipe.from_dict(
        SMALL | {"generator": str(tiny_model), "test": 30, "max_new_tokens": 40, "steps": 1, "evaluations": 1}
    )


@pytest.fixture(scope="session")
def adapter(demo_index: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapters") / "retrieval"
    fine_tune(demo_index, out, recipe=recipe, device="cpu", dtype="float32")
    return out


@pytest.fixture(scope="session")
def plain_adapter(demo_index: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapters") / "plain"
    fine_tune(demo_index, out, mode="plain", recipe=recipe, device="cpu", dtype="float32")
    return out
