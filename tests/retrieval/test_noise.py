import random

from hypothesis import given
from hypothesis import strategies as st

from ragqa.retrieval.noise import mistyped, partial_title, reordered


def test_a_partial_title_keeps_words_in_order() -> None:
    title = "one two three four five six seven eight nine ten"
    partial = partial_title(title, random.Random(1)).split()
    assert len(partial) == 6  # round(6.5) is 6
    assert partial == [word for word in title.split() if word in partial]
    assert partial_title("one", random.Random(1)) == "one"


def test_a_mistyped_title_differs_a_little() -> None:
    title = "Lumen Trail Headlamp LT-350"
    wrong = [mistyped(title, random.Random(seed)) for seed in range(50)]
    assert sum(text != title for text in wrong) >= 45  # swapping two equal letters changes nothing
    assert all(abs(len(text) - len(title)) <= 3 for text in wrong)
    assert mistyped("2-350", random.Random(0)) == "2-350"


def test_a_reordered_title_has_the_same_words_in_another_order() -> None:
    title = "Lumen Trail Headlamp LT-350"
    for seed in range(20):
        mixed = reordered(title, random.Random(seed)).split()
        assert sorted(mixed) == sorted(title.lower().split())
        assert mixed != title.lower().split()
    assert reordered("One", random.Random(0)) == "one"


@given(st.text(min_size=1), st.integers())
def test_the_same_seed_gives_the_same_noise(title: str, seed: int) -> None:
    for noise in (mistyped, partial_title, reordered):
        if title.split():
            assert noise(title, random.Random(seed)) == noise(title, random.Random(seed))
