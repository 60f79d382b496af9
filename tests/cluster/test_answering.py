"""What comes back from the machines that answer, without Ray: an error as what it was, and no block in silence."""

from __future__ import annotations

import platform
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

import ragqa
from ragqa.answerer import Answerer
from ragqa.cluster.answering import Asked, by_ray
from ragqa.cluster.faults import from_text, to_text
from ragqa.errors import ClusterError, ModelError

BLOCK = pa.table({"block": [4], "numbers": [[0]], "ids": [["a"]], "questions": [["red lamp"]]})


def asked_of(answers: list[pa.Table]) -> list[Any]:
    """What is made of the answers to blocks 4 and 5."""
    session: Any = SimpleNamespace(pool=lambda device: (device, 1, {}), tables=lambda make: iter(answers))
    store: Any = None
    return list(by_ray(session, {"device": "cpu"}, {}, "digest")(store, [4, 5]))


def test_a_machine_with_another_ragqa_says_both_versions() -> None:
    (row,) = Asked({}, {}, "digest", platform.node(), "0.0")(BLOCK).to_pylist()
    assert (row["block"], row["answers"]) == (4, None)
    error = from_text(row["error"])
    assert type(error) is ClusterError
    assert str(error) == f"ragqa {ragqa.__version__} is installed there, and 0.0 asks; install the same"


def test_a_machine_that_sees_another_index_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = SimpleNamespace(index=SimpleNamespace(manifest={"count": 2}, place="shared/index"))
    monkeypatch.setattr(Answerer, "from_pretrained", lambda **_: opened)
    (row,) = Asked({}, {}, "digest", platform.node(), ragqa.__version__)(BLOCK).to_pylist()
    assert row["answers"] is None
    assert str(from_text(row["error"])).startswith("shared/index: not the index that the asking machine has")


def test_an_error_on_a_machine_is_raised_where_questions_are_asked() -> None:
    failed = pa.table({"block": [4], "answers": [None], "error": [to_text(ModelError("no model"), platform.node())]})
    with pytest.raises(ModelError, match=r"^no model$"):
        asked_of([failed])


def test_blocks_that_do_not_come_are_counted() -> None:
    with pytest.raises(ClusterError, match=r"^2 of 2 blocks did not come; run the same command again$"):
        asked_of([])
