"""What a catalogue in Milvus must have noted to be opened, without a server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ragqa.errors import IndexDamagedError, IndexNotFoundError
from ragqa.milvus import index, layout
from ragqa.milvus.address import Address
from ragqa.milvus.index import MilvusIndex

WHOLE = {
    "format_version": layout.FORMAT_VERSION, "count": 3, "dimension": 2, "dense": {}, "confidence": {},
    "embedder": {"name": "toy", "weights_sha256": "a", "config_sha256": "b"},
}  # fmt: skip


class Noted:
    """In the place of a connection: a live collection of two products, with this manifest."""

    def __init__(self, text: str | None) -> None:
        self.address, self._text = Address.parse("milvus://host/shop"), text

    def aliased(self) -> str:
        return "shop_0123456789ab"

    def read(self, _: str, collection: str, **asked: Any) -> list[dict[str, Any]]:
        if asked["output_fields"] == ["count(*)"]:
            return [{"count(*)": 2}]
        if self._text is None:
            raise IndexNotFoundError(f"{collection}: is not there any more")
        return [{"text": self._text}]


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        (None, IndexNotFoundError, "was not loaded to its end; the same command goes on with it"),
        ("{", IndexDamagedError, "its manifest is not readable"),
        ("[]", IndexDamagedError, "its manifest is not readable"),
        (
            json.dumps(WHOLE | {"count": "3", "dense": None}),
            IndexDamagedError,
            "its manifest lacks count, dense; build",
        ),
        (json.dumps(WHOLE | {"embedder": {"name": "toy"}}), IndexDamagedError, "its manifest lacks embedder; build"),
        (json.dumps(WHOLE), IndexDamagedError, "has 2 of its 3 products; build it anew"),
    ],
    ids=["words gone", "no JSON", "no object", "fields", "hashes", "products"],
)
def test_a_damaged_catalogue_is_not_opened(
    monkeypatch: pytest.MonkeyPatch, text: str | None, kind: type[Exception], told: str
) -> None:
    monkeypatch.setattr(index, "Connection", lambda _: Noted(text))
    with pytest.raises(kind, match=f"^milvus://host/shop: {told}"):
        MilvusIndex.open("milvus://host/shop")
