from types import SimpleNamespace
from typing import Any

import pytest

from ragqa.errors import InputError
from ragqa.records import Product
from ragqa.training.examples import _first, _with_own
from ragqa.training.questions import LabelledQuestion
from ragqa.training.splits import Split, SplitSettings


@pytest.mark.parametrize(("count", "taken"), [(1, "ab"), (2, "abcd"), (3, "abcde"), (9, "abcde")])
def test_examples_end_before_the_answer_that_would_be_too_many_or_with_the_last(count: int, taken: str) -> None:
    contexts: list[Any] = [SimpleNamespace(name=name, answered=name in "ace") for name in "abcde"]
    assert "".join(context.name for context in _first(contexts, count)) == taken  # type: ignore[attr-defined]


def test_own_questions_about_nothing_that_is_trained_on_are_refused() -> None:
    products = [Product("a", "Lamp", "Warm."), Product("b", "Kettle", "Boils.")]
    split = Split(SplitSettings(), {"train": (0,), "unseen": (1,)}, {"train": ()}, 2)
    about = {name: LabelledQuestion(f"Is there a {name}?", "exact", name, name, False) for name in "ab"}
    assert _with_own(split, products, [about["a"], about["b"]], "own.jsonl").questions["train"] == (about["a"],)
    with pytest.raises(
        InputError, match=r"^own\.jsonl: none of its 1 questions is about a product of the training part"
    ):
        _with_own(split, products, [about["b"]], "own.jsonl")
