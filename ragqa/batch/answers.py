"""Answers as a table: a row a question, with its sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from ragqa.answerer import Answerer
from ragqa.batch.questions import Block
from ragqa.errors import TimeLimitError
from ragqa.records import Answer

_SOURCE: Final = pa.struct(
    [("id", pa.string()), ("title", pa.string()), ("score", pa.float64()), ("exact", pa.bool_()), ("cited", pa.bool_())]
)
SCHEMA: Final = pa.schema(
    [
        ("number", pa.int64()),
        ("id", pa.string()),
        ("question", pa.string()),
        ("text", pa.string()),
        ("abstained", pa.bool_()),
        ("several", pa.bool_()),
        ("shortened", pa.bool_()),
        ("confidence", pa.float64()),
        ("grounded", pa.float64()),
        ("language", pa.string()),
        ("sources", pa.list_(_SOURCE)),
        ("error", pa.string()),
    ]
)


def answer(answerer: Answerer, block: Block, settings: Mapping[str, Any]) -> pa.Table:
    """The answers to a block of questions, in their order, as a table of `SCHEMA`.

    A question for which `max_seconds` was not enough has an error in the place of an answer.
    """
    try:
        answers: Sequence[Answer | TimeLimitError] = answerer.ask_many(block.questions, **settings)
    except TimeLimitError:
        answers = [_alone(answerer, question, settings) for question in block.questions]
    rows = [
        {"number": number, "id": id_, "question": question} | _row(one)
        for number, id_, question, one in zip(block.numbers, block.ids, block.questions, answers, strict=True)
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def _alone(answerer: Answerer, question: str, settings: Mapping[str, Any]) -> Answer | TimeLimitError:
    try:
        return answerer.ask(question, **settings)
    except TimeLimitError as error:
        return error


def _row(answer: Answer | TimeLimitError) -> dict[str, Any]:
    if isinstance(answer, TimeLimitError):
        return {"error": str(answer)}
    named = ("text", "abstained", "several", "shortened", "confidence", "grounded", "language")
    sources = [{name: getattr(source, name) for name in _SOURCE_NAMES} for source in answer.sources]
    return {name: getattr(answer, name) for name in named} | {"sources": sources}


_SOURCE_NAMES: Final = [field.name for field in _SOURCE]
