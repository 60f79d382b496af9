"""A few thousand inputs of the fuzzer, and structured ones by Hypothesis; `make torture` gives over a million."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.hostile_fuzz import Target, fuzzed, mutated
from benchmarks.reliability_hostile import fuzz
from ragqa.catalogue.columns import ReadOptions
from ragqa.catalogue.read import Catalogue
from ragqa.errors import InputError, RagqaError
from ragqa.generation.adapter import read_adapter
from ragqa.settings import AnswerSettings


def test_every_input_ends_in_a_result_or_in_one_of_the_projects_errors() -> None:
    found = fuzz("short")
    assert found["failures"] == []
    assert found["inputs"] > 3000


def _refuses(_: bytes) -> None:
    raise InputError("no")


def _breaks(_: bytes) -> None:
    raise KeyError("k")


def _speaks(_: bytes) -> None:
    raise InputError("one\ntwo")


def test_the_fuzzer_counts_refusals_and_tells_what_broke() -> None:
    assert fuzzed(Target("t", [b"a"], lambda _: None, 1), 5, 0)["failures"] == []
    assert fuzzed(Target("t", [b"a"], _refuses, 1), 5, 0)["refused"] == 5
    assert fuzzed(Target("t", [b"a"], _breaks, 1), 50, 0)["failures"][0].startswith(
        "t, input 0: KeyError: \"'k'\" in _breaks"
    )
    assert len(fuzzed(Target("t", [b"a"], _breaks, 1), 50, 0)["failures"]) == 20
    assert fuzzed(Target("t", [b"a"], _speaks, 1), 1, 0)["failures"] == [
        "t, input 0: an error of several lines: 'one\\ntwo'"
    ]


def test_the_same_seed_makes_the_same_inputs() -> None:
    import random

    first, second = ([mutated(random.Random(3), [b"abc", b"def"]) for _ in range(5)] for _ in range(2))
    assert first == second


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_FIELDS = st.sampled_from(["title", "content", "uid", "description", "id", "x"])


@given(st.lists(st.dictionaries(_FIELDS, _VALUES, max_size=5), max_size=6), st.sampled_from(["stop", "skip"]))
@settings(max_examples=150, deadline=None)
def test_rows_of_any_values_are_read_or_refused(rows: list[dict[str, Any]], on_error: Any) -> None:
    try:
        for row in Catalogue(rows, ReadOptions(on_error=on_error)).rows():
            assert all(isinstance(part, str) for part in row[:3])
    except RagqaError as error:
        assert "\n" not in str(error)


@given(st.dictionaries(st.sampled_from(AnswerSettings.__slots__), _VALUES, max_size=4))
@settings(max_examples=200, deadline=None)
def test_settings_of_any_values_are_taken_or_refused(values: dict[str, Any]) -> None:
    try:
        AnswerSettings.from_dict(values)
    except RagqaError as error:
        assert "\n" not in str(error)


@given(_VALUES, st.sampled_from([None, "kind", "base", "context", "choice", "prompt", "mode", "format_version"]))
@settings(max_examples=150, deadline=None)
def test_a_manifest_with_any_value_anywhere_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, value: Any, name: str | None
) -> None:
    from benchmarks.hostile_targets import _adapter_manifest

    folder: Path = tmp_path_factory.getbasetemp()
    whole = json.loads(_adapter_manifest())
    (folder / "manifest.json").write_text(json.dumps(value if name is None else whole | {name: value}), "utf-8")
    try:
        read_adapter(folder)
    except RagqaError as error:
        assert "\n" not in str(error)
