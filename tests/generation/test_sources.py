from collections.abc import Sequence

from ragqa.generation.choice import Choice
from ragqa.generation.generator import Generator
from ragqa.generation.prompt import Prompt
from ragqa.generation.sources import Written, choose_numbers, copied
from ragqa.records import Retrieval
from ragqa.retrieval.question import parse_question
from tests.generation.conftest import TEXTS, asked_by


def test_where_nothing_was_found_nothing_is_copied() -> None:
    assert copied(Retrieval(parse_question("q"), (), 0.0), 3, Choice()) == (Prompt("", (), ()), Written("", None))


def test_what_is_copied_is_the_likeliest_candidates_whole_description(generator: Generator) -> None:
    _, (found,) = asked_by(generator, "q", exact=1)
    prompt, written = copied(found, 2, Choice())
    assert written == Written(TEXTS[1], 1)
    assert [shown.description for shown in prompt.shown] == TEXTS[:2]


def test_no_model_is_asked_about_an_exact_title(chooser: Generator) -> None:
    def first(prompts: Sequence[Prompt], wanted: Sequence[Sequence[int]]) -> Sequence[Sequence[float]]:
        raise AssertionError("there is nothing to choose")

    prompts, found = asked_by(chooser, "one", "another", exact=0)
    assert choose_numbers(prompts, found, Choice(), chooser.tokenizer, first) == [(0, None)] * 2
