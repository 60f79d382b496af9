from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from ragqa.errors import InputError, RagqaError
from ragqa.settings import AnswerSettings, CleaningSettings


def test_the_defaults_are_those_of_the_documentation() -> None:
    assert CleaningSettings().to_dict() == {
        "lowercase": False,
        "max_title_chars": 2000,
        "max_description_chars": 4000,
    }
    assert AnswerSettings().to_dict() == {
        "top_k": 5,
        "context_products": 3,
        "context_tokens": 1024,
        "max_new_tokens": 160,
        "temperature": 0.0,
        "seed": 0,
        "stop": (),
        "drafted": True,
        "probabilities": False,
        "min_confidence": 0.5,
        "precision": None,
        "decoding": "auto",
        "fusion": "weighted",
        "lexical": "postings",
        "rerank_depth": 20,
        "max_question_chars": 4000,
        "batch_size": 8,
        "max_seconds": None,
    }


@pytest.mark.parametrize("settings", [CleaningSettings(lowercase=True), AnswerSettings(top_k=9, min_confidence=0)])
def test_settings_survive_json(settings: CleaningSettings | AnswerSettings) -> None:
    assert type(settings).from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize("kind", [CleaningSettings, AnswerSettings])
def test_settings_cannot_be_changed(kind: type[CleaningSettings] | type[AnswerSettings]) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(kind(), dataclasses.fields(kind)[0].name, 1)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (CleaningSettings, {"max_title_chars": 0}, "max_title_chars must be a whole number of at least 1, not 0"),
        (CleaningSettings, {"max_title_chars": True}, "max_title_chars must be a whole number of at least 1, not True"),
        (CleaningSettings, {"max_title_chars": "9"}, "max_title_chars must be a whole number of at least 1, not '9'"),
        (CleaningSettings, {"max_title_chars": 2.5}, "max_title_chars must be a whole number of at least 1, not 2.5"),
        (CleaningSettings, {"lowercase": "no"}, "lowercase must be true or false, not 'no'"),
        (AnswerSettings, {"context_tokens": 127}, "context_tokens must be a whole number of at least 128, not 127"),
        (AnswerSettings, {"min_confidence": 1.01}, "min_confidence must be from 0 to 1, not 1.01"),
        (AnswerSettings, {"min_confidence": float("nan")}, "min_confidence must be from 0 to 1, not nan"),
        (AnswerSettings, {"min_confidence": "high"}, "min_confidence must be from 0 to 1, not 'high'"),
        (AnswerSettings, {"min_confidence": None}, "min_confidence must be from 0 to 1, not None"),
        (AnswerSettings, {"decoding": "beam"}, "decoding must be auto, extractive, free or copy, not 'beam'"),
        (AnswerSettings, {"fusion": "sum"}, "fusion must be weighted or reciprocal-rank, not 'sum'"),
        (AnswerSettings, {"lexical": "tf"}, "lexical must be postings or rank-bm25, not 'tf'"),
        (AnswerSettings, {"precision": 0}, "precision must be above 0 and at most 1, not 0"),
        (AnswerSettings, {"precision": 1.2}, "precision must be above 0 and at most 1, not 1.2"),
    ],
)
def test_a_value_out_of_range_is_refused(
    kind: type[CleaningSettings] | type[AnswerSettings], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        kind.from_dict(values)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "name", ["top_k", "context_products", "max_new_tokens", "max_question_chars", "batch_size", "context_tokens"]
)
def test_a_count_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"^{name} must be a whole number of at least"):
        AnswerSettings.from_dict({name: 0})


def test_all_bad_values_are_named_at_once() -> None:
    with pytest.raises(InputError) as caught:
        AnswerSettings(top_k=0, batch_size=-1, min_confidence=2)
    assert str(caught.value) == (
        "top_k must be a whole number of at least 1, not 0; batch_size must be a whole number of at least 1, not -1; "
        "min_confidence must be from 0 to 1, not 2"
    )


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError) as caught:
        CleaningSettings.from_dict({"lower": True, "lowercase": True, "max": 3})
    assert str(caught.value) == (
        "unknown setting 'lower', 'max'; CleaningSettings has: lowercase, max_title_chars, max_description_chars"
    )


def test_an_input_error_is_a_value_error_and_one_of_ours() -> None:
    assert issubclass(InputError, ValueError)
    assert issubclass(InputError, RagqaError)


@pytest.mark.parametrize("edge", [0, 0.0, 1, 1.0])
def test_both_ends_of_the_confidence_are_allowed(edge: float) -> None:
    assert AnswerSettings(min_confidence=edge).min_confidence == edge
