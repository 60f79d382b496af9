"""`ragqa ask` where it converses, and what it prints of an answer."""

import argparse
import io
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest

from benchmarks.toys import rows, toy_answerer, toy_embedder
from ragqa import Answer, Answerer, build_index
from ragqa.commands import ask
from ragqa.errors import InputError
from ragqa.records import Source, Span

Captured = pytest.CaptureFixture[str]
ANSWER = Answer("lamp?", "A lamp of brass.", (Source("p1", "lamp", "A lamp", 0.9, cited=True),), False, False, 0.75)


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> Answerer:
    folder = tmp_path_factory.mktemp("toy")
    with toy_embedder(folder / "model"):
        return toy_answerer(build_index(rows(1, 30), folder / "index"), min_confidence=0.1)


def chosen(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    ask.add_arguments(parser)
    return parser.parse_args(["INDEX", *options])


class Terminal(io.StringIO):
    """Where somebody types."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_questions_are_asked_for_and_a_bad_one_is_no_failure(
    answerer: Answerer, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(f"red lamp 3\n{'x' * 5000}\n"))
    assert ask._converse(answerer, {}, chosen()) == 0
    told = capsys.readouterr()
    assert told.out.count("Q: red lamp 3\n") == 1
    greeting, *asked = told.err.splitlines()
    assert greeting == f"{len(answerer.index)} products. A question a line; Ctrl-D ends."
    assert [line.partition("the question")[0] for line in asked] == ["> > error: ", "> "]


def test_of_a_file_a_bad_question_is_a_failure_and_nothing_is_asked_for(
    answerer: Answerer, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{'x' * 5000}\nred lamp 3\n"))
    assert ask._converse(answerer, {}, chosen()) == 2
    told = capsys.readouterr()
    assert told.out.count("Q: red lamp 3\n") == 1
    assert re.fullmatch(r"error: the question has 5,000 characters; .*\n", told.err)


def test_without_a_question_and_without_an_input_there_is_nothing_to_answer(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match=r"^no question, and no input to read questions from; give one on"):
        ask._converse(answerer, {}, chosen())


@pytest.mark.parametrize(("options", "prompt"), [(["--json"], None), (["--json", "--show-prompt"], "Asked: lamp?")])
def test_the_prompt_is_in_the_json_only_where_it_is_asked_for(
    options: Sequence[str], prompt: str | None, capsys: Captured
) -> None:
    ask._print(replace(ANSWER, given="Asked: lamp?"), chosen(*options))
    assert json.loads(capsys.readouterr().out).get("prompt") == prompt


def test_an_answer_that_the_time_cut_short_says_so(capsys: Captured) -> None:
    ask._print(ANSWER, chosen())
    assert "shortened" not in capsys.readouterr().out
    ask._print(replace(ANSWER, shortened=True), chosen())
    assert "\n   shortened: --max-seconds was over\n   sources:\n" in capsys.readouterr().out


def test_a_part_that_was_copied_from_no_source_is_told(capsys: Captured) -> None:
    spans = (Span(0, 6, "p1", 0, 6), Span(6, 16, None, None, None, 0.5))
    ask._print(replace(ANSWER, spans=spans), chosen("--explain"))
    out = capsys.readouterr().out
    assert "   38% of it is copied:\n   0-6: [1] 0-6\n   6-16: no source, 50% a token\n" in out
