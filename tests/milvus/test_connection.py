"""Each error of Milvus's is told in one line that says what helps, without a server."""

from __future__ import annotations

from types import SimpleNamespace

import grpc
import pymilvus
import pytest

from ragqa.errors import MilvusError
from ragqa.milvus.address import TOKEN, Address
from ragqa.milvus.connection import Connection


class Failed(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "the disk is full\nat row 3"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Failed(grpc.StatusCode.DEADLINE_EXCEEDED), "Milvus did not answer within 2 s; ?timeout= gives it more"),
        (
            Failed(grpc.StatusCode.UNAUTHENTICATED),
            f"Milvus does not let you in; give user:password or a key in {TOKEN}",
        ),
        (
            pymilvus.MilvusException(1, "auth check failure"),
            f"Milvus does not let you in; give user:password or a key in {TOKEN}",
        ),
        (
            Failed(grpc.StatusCode.UNIMPLEMENTED),
            "is no Milvus, or one too old for this: 2.5 and later are accepted",
        ),
        (Failed(grpc.StatusCode.INTERNAL), "Milvus says: the disk is full"),
        (pymilvus.MilvusException(1, "no room"), "Milvus says: no room"),
    ],
    ids=["late", "unauthenticated", "auth", "old", "details", "message"],
)
def test_what_milvus_says_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception, told: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pymilvus, "MilvusClient", lambda *_, **__: SimpleNamespace(has_collection=fail))
    connection = Connection(Address.parse("milvus://host/shop?timeout=2"))
    with pytest.raises(MilvusError) as caught:
        connection.has("shop")
    assert type(caught.value) is MilvusError
    assert str(caught.value) == f"milvus://host/shop?timeout=2: {told}"
