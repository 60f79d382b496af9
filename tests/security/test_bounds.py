"""No question takes memory or time without bound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ragqa import Answerer, AnswerSettings
from ragqa.errors import InputError, QuestionError, TimeLimitError
from ragqa.generation import decode
from ragqa.generation.writer import _batches

QUESTION = "What is the description of the Lumen headlamp LT-350?"


@pytest.fixture(scope="module")
def answerer(demo_index: Path, tiny_model: Path) -> Answerer:
    return Answerer.from_pretrained(demo_index, generator=str(tiny_model), device="cpu")


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("top_k", 1000), ("context_products", 100), ("context_tokens", 131_072), ("max_new_tokens", 16_384),
        ("rerank_depth", 1000), ("max_question_chars", 100_000), ("batch_size", 256), ("seed", 2**63 - 1),
    ],
)  # fmt: skip
def test_each_whole_number_has_an_upper_limit_that_is_told(name: str, most: int) -> None:
    assert getattr(AnswerSettings.from_dict({name: most}), name) == most
    with pytest.raises(InputError, match=f"^{name} must be at most {most:,}, not {most + 1:,}$"):
        AnswerSettings.from_dict({name: most + 1})


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"max_seconds": 0}, "max_seconds must be above 0 and at most 86,400, not 0"),
        ({"max_seconds": float("nan")}, "max_seconds must be above 0 and at most 86,400, not nan"),
        ({"max_seconds": float("inf")}, "max_seconds must be above 0 and at most 86,400, not inf"),
        ({"max_seconds": True}, "max_seconds must be above 0 and at most 86,400, not True"),
        ({"temperature": float("nan")}, "temperature must be from 0 to 10, not nan"),
        ({"stop": ["x"] * 65}, "stop takes at most 64 strings of at most 1,000 characters"),
        ({"stop": ["x" * 1001]}, "stop takes at most 64 strings of at most 1,000 characters"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError) as told:
        AnswerSettings.from_dict(settings)
    assert str(told.value) == problem


def test_more_questions_than_are_taken_at_once_are_refused_before_the_first(answerer: Answerer) -> None:
    with pytest.raises(InputError, match=r"^100,001 questions are more than 100,000 at once; ask them in parts$"):
        answerer.ask_many(["a"] * 100_001)


def test_questions_are_worked_on_in_blocks_and_a_bad_one_is_told_before_the_first(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks: list[int] = []
    retrieve = answerer.retriever.retrieve

    def counted(questions: Any, *rest: Any, **more: Any) -> Any:
        blocks.append(len(questions))
        return retrieve(questions, *rest, **more)

    monkeypatch.setattr(answerer.retriever, "retrieve", counted)
    monkeypatch.setattr("ragqa.retrieval.question._AT_ONCE", 4)
    asked = [f"{QUESTION} {number}" for number in range(10)]
    together = answerer.ask_many(asked, decoding="copy")
    assert blocks == [4, 4, 2]
    assert [answer.question for answer in together] == asked
    blocks.clear()
    with pytest.raises(QuestionError):
        answerer.ask_many([*asked, " "], decoding="copy")
    assert blocks == []


def test_a_batch_has_no_more_tokens_than_memory_is_meant_for() -> None:
    assert [*_batches([0, 1, 2], [10, 10, 10], 2)] == [[0, 1], [2]]
    assert [*_batches([2, 0, 1], [30_000, 40_000, 5], 8)] == [[2, 0], [1]]
    assert [*_batches([0, 1], [70_000, 70_000], 8)] == [[0], [1]]


@pytest.fixture
def slow_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A clock that goes on by a second with every pass of the model."""
    now = [1000.0]
    forward = decode.Decoder._forward

    def counted(self: Any, *rest: Any) -> Any:
        now[0] += 1
        return forward(self, *rest)

    monkeypatch.setattr(decode.Decoder, "_forward", counted)
    monkeypatch.setattr("ragqa.generation.limits.time.monotonic", lambda: now[0])
    return now


@pytest.mark.usefixtures("slow_clock")
def test_a_text_that_is_being_written_ends_with_its_time_and_says_so(answerer: Answerer) -> None:
    free = {"decoding": "free", "min_confidence": 0.0, "max_new_tokens": 40, "drafted": False}
    whole = answerer.ask(QUESTION, **free)
    short = answerer.ask(QUESTION, **free, max_seconds=6)
    assert not whole.shortened
    assert short.shortened
    assert whole.text.startswith(short.text)
    assert len(short.text) < len(whole.text)
    assert short.to_dict()["shortened"] is True
    with answerer.stream(QUESTION, **free, max_seconds=6) as pieces:
        assert "".join(pieces) == short.text
    assert pieces.answer.shortened


def test_where_nothing_was_written_in_time_it_is_an_error(answerer: Answerer, slow_clock: list[float]) -> None:
    told = r"^no answer in the time given \(max_seconds, --max-seconds\); give more, or lower --context-tokens, "
    slow_clock[0] = 0.0  # finding candidates takes longer than this
    with pytest.raises(TimeLimitError, match=told):
        answerer.ask(QUESTION, min_confidence=0.0, max_seconds=1e-9)
    with pytest.raises(TimeLimitError, match=told):
        list(answerer.stream(QUESTION, min_confidence=0.0, decoding="free", max_seconds=1e-9))


def test_without_a_limit_no_clock_is_asked(answerer: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragqa.generation.limits.time", None)
    assert answerer.ask(QUESTION, min_confidence=0.0).text


def test_of_the_prompts_read_last_no_more_is_kept_than_its_bound(answerer: Answerer) -> None:
    decoder = answerer.generator.decoder
    assert decoder is not None
    assert decoder.prefixes is not None
    decoder.prefixes._most = 100_000
    for number in range(12):
        answerer.ask(f"headlamp {number}", min_confidence=0.0)
    assert len(decoder.prefixes) >= 1
    assert decoder.prefixes.size <= max(100_000, max(known.size for known in decoder.prefixes._known.values()))
