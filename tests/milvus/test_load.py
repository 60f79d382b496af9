"""How a load goes about what Milvus refuses and loses, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragqa.catalogue.store import ProductStore, StoreWriter
from ragqa.errors import MilvusError
from ragqa.milvus import layout, load
from ragqa.milvus.address import Address
from ragqa.milvus.load import Contents, _Load
from ragqa.records import Product
from ragqa.retrieval.embed import Vectors


class Called:
    """In the place of a connection: what is called is kept, and no insert comes through where it is `down`."""

    def __init__(self, down: bool = False) -> None:
        self.address, self.down = Address.parse("milvus://host/shop"), down
        self.calls: list[tuple[str, Any]] = []

    def call(self, method: str, *given: Any, **_: Any) -> Any:
        self.calls.append((method, given[-1] if given else None))
        if method == "insert" and self.down:
            raise MilvusError("the connection was lost")
        return {"list_indexes": ["vector"], "has_partition": False}.get(method)

    def read(self, *_: Any, **__: Any) -> Any:
        return [{"count(*)": 7}]

    def has(self, _: str) -> bool:
        return True

    def given(self, method: str) -> list[Any]:
        return [given for name, given in self.calls if name == method]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProductStore:
    monkeypatch.setattr(load, "_PARTITION", 4)
    monkeypatch.setattr(load, "_ROWS", 2)
    with StoreWriter(tmp_path / "products.arrow") as writer:
        writer.add([Product(f"p{i}", f"Lamp {i}", "warm") for i in range(8)])
    return ProductStore(tmp_path / "products.arrow")


def loading(store: ProductStore, connection: Any, blocks: Sequence[int] = (8,)) -> _Load:
    vectors: list[Vectors] = [np.zeros((size, 2), np.float32) for size in blocks]
    return _Load(connection, Contents(store, vectors, 2, {}, "0123456789ab"), layout.dense_index("flat", 8))


def test_blocks_are_cut_into_partitions_that_are_all_full(store: ProductStore) -> None:
    cut = loading(store, Called(), (3, 5))._partitions()
    assert [(number, start, [len(one) for one in blocks]) for number, start, blocks in cut] == [
        (0, 0, [3, 1]),
        (1, 4, [4]),
    ]


def test_a_partition_goes_in_full_requests_and_with_no_empty_one(store: ProductStore) -> None:
    connection, sent = Called(), list[int]()
    loading(store, connection)._load_partition(1, 4, [np.zeros((4, 2), np.float32)], sent.append)
    assert sent == [2, 2]
    assert [[row["id"] for row in rows] for rows in connection.given("insert")] == [["p4", "p5"], ["p6", "p7"]]


def test_a_partition_that_never_gets_in_is_given_up_after_three_attempts(store: ProductStore) -> None:
    connection = Called(down=True)
    with pytest.raises(MilvusError, match=r"^the connection was lost$"):
        loading(store, connection)._load_partition(0, 0, [np.zeros((4, 2), np.float32)], lambda _: None)
    assert connection.given("create_partition") == ["p0000"] * 3


def test_products_that_milvus_has_not_kept_are_published_to_nobody(store: ProductStore) -> None:
    connection = Called()
    with pytest.raises(MilvusError, match="Milvus has kept 7 of 8 products; they were taken away, and nobody reads"):
        loading(store, connection).finish(lambda _: pytest.fail("fitted on what is not whole"))
    assert connection.given("drop_collection") == ["shop_0123456789ab", "shop_0123456789ab_words"]
    assert connection.given("create_index") == []  # it has one
