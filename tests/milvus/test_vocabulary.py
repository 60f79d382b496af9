"""Words that were looked up are remembered, and not without end; without a server."""

from types import SimpleNamespace
from typing import Any

import pytest

from ragqa.milvus import vocabulary
from ragqa.milvus.vocabulary import Vocabulary


def test_words_are_remembered_until_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "_KEPT", 2)
    asked: list[str] = []

    def read(method: str, _: str, **named: Any) -> list[Any]:
        if method == "search":
            return [[] for _ in named["data"]]
        asked.append(named["filter"])
        return []

    connection: Any = SimpleNamespace(read=read)
    words = Vocabulary(connection, "shop_words", 10)
    for term in ("red", "lamp", "red", "shelf", "red"):
        assert words.look_up([term])[term].titles == 0
    assert asked == [f'key in ["{term}"]' for term in ("red", "lamp", "shelf", "red")]
