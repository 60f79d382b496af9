import pytest

from ragqa.comparison.profile import PROFILES, Profile, make_profile
from ragqa.errors import InputError
from ragqa.training.recipe import Recipe


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_gives_the_recipes_of_its_trainings(name: str) -> None:
    profile = make_profile(name)
    assert profile.name == name
    recipe = profile.make_recipe()
    assert recipe.examples == profile.examples
    assert recipe.test >= max(profile.seen, profile.unseen)
    for size in profile.curve:
        assert profile.make_recipe(size).examples == size
    other = profile.make_recipe(training_seed=7)
    assert (other.training_seed, other.seed) == (7, recipe.seed), "seeds of training ask the same questions"


def test_quick_is_as_large_as_promised() -> None:
    quick = make_profile("quick")
    assert quick.examples == 1000
    assert quick.seen + quick.unseen >= 400


def test_sizes_can_be_changed_one_by_one() -> None:
    profile = make_profile("quick", examples=50, curve=(), training_seeds=(3, 4))
    assert (profile.examples, profile.curve, profile.training_seeds) == (50, (), (3, 4))
    assert profile.unseen == make_profile("quick").unseen


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"examples": 0}, "examples must be a whole number of at least 1, not 0"),
        ({"training_seeds": ()}, "training_seeds must be different whole numbers"),
        ({"training_seeds": (1, 1)}, "training_seeds must be different whole numbers"),
        ({"curve": (1000,)}, r"curve must hold numbers from 1 to below examples \(1000\)"),
        ({"recipe": {"moon": 1}}, "a recipe has no field 'moon'"),
        ({"limit": 0}, "limit must be"),
        ({"moon": 1}, "a profile has no field 'moon'"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_profile("quick", **given)


def test_a_whole_recipe_does_not_change_the_sizes() -> None:
    whole = Recipe(examples=7, test=9, training_seed=5, rank=4).to_dict()
    profile = make_profile("quick", examples=50, curve=(20,), recipe=whole)
    recipe = profile.make_recipe(20, training_seed=1)
    assert (recipe.examples, recipe.test, recipe.training_seed) == (20, 280, 1)
    assert (profile.make_recipe().examples, recipe.rank) == (50, 4)


def test_an_unknown_profile_names_those_there_are() -> None:
    with pytest.raises(InputError, match="no profile 'slow'; there are smoke, quick, full"):
        make_profile("slow")


def test_a_recipe_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(InputError, match="contradict each other"):
        Profile(recipe={"steps": 3, "epochs": 2.0}).make_recipe()
