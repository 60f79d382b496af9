import tomllib
from pathlib import Path

import pytest

from ragqa import Recipe
from ragqa.errors import InputError
from ragqa.training.recipe import make_recipe, read_recipe, recipe_help
from tests.conftest import ROOT


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("*.toml")), ids=lambda p: p.name)
def test_every_recipe_of_the_project_can_be_read(path: Path) -> None:
    recipe = read_recipe(path)
    assert {k: v for k, v in recipe.to_dict().items() if k in tomllib.loads(path.read_text())} == tomllib.loads(
        path.read_text()
    )


def test_the_recipe_of_the_original_study_has_its_settings() -> None:
    recipe = read_recipe(ROOT / "recipes" / "original.toml")
    assert (recipe.epochs, recipe.batch_size, recipe.accumulation) == (3.0, 8, 8)


def test_a_recipe_survives_its_toml(tmp_path: Path) -> None:
    recipe = Recipe(learning_rate=3e-4, order="shuffled", target_modules=("q_proj", "v_proj"), dora=True, rank=4)
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml())
    assert read_recipe(path) == recipe


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('learning_rat = 1\nrank = 0\nepochs = "three"\nschedule = "steep"\n')
    with pytest.raises(InputError) as caught:
        read_recipe(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    for part in ("learning_rat", "rank must be", "epochs must be", "schedule must be one of linear", "learning_rate"):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"steps": 5, "epochs": 2.0}, "contradict each other"),
        ({"products": 10}, "at most 9"),
        ({"context_tokens": 128, "max_new_tokens": 96}, "leaves no room"),
        ({"fractions": (0.5, 0.5, 0.5, 0.1)}, "fractions must be four shares"),
        ({"target_modules": "q_proj"}, "target_modules must be a list"),
        ({"packing": 1}, "packing must be true or false"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"generator": ""}, "generator must be a Hub id or a folder, not ''"),
        ({"fractions": 3}, "a value has the wrong type"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Recipe.from_dict(fields)


@pytest.mark.parametrize("text", ["rank = ", "\x00", "[training]\nrank = 3\n"])
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"recipe\.toml: "):
        read_recipe(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path / "none.toml")


def test_overrides_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("rank = 4\nseed = 7\n")
    recipe = make_recipe(path, {"seed": 8})
    assert (recipe.rank, recipe.seed, recipe.alpha) == (4, 8, Recipe().alpha)


def test_every_field_has_a_help_text() -> None:
    assert all(text for _, text in recipe_help().values())
    assert set(recipe_help()) == set(Recipe.__slots__)
