"""Shards: what is written is read, and only what is whole and of the same build."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ragqa.catalogue.store import ProductStore, StoreWriter
from ragqa.errors import StorageError
from ragqa.files import HashingFile, storage_errors
from ragqa.index import blocks
from ragqa.index.shards import Shards
from ragqa.records import Product


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProductStore:
    monkeypatch.setattr(blocks, "SIZE", 4)
    with StoreWriter(tmp_path / "products.arrow") as writer:
        writer.add([Product(f"p{i}", f"Title {i}", "é" * i) for i in range(10)])
    return ProductStore(tmp_path / "products.arrow")


def vectors(start: int, stop: int) -> np.ndarray:
    return np.arange(start * 3, stop * 3, dtype=np.float32).reshape(-1, 3)


def written(folder: Path, store: ProductStore) -> Shards:
    shards = Shards(folder, store, 3, "this")
    for start, stop in shards.ranges():
        shards.write(start, vectors(start, stop))
    return shards


def test_shards_hold_products_and_vectors_in_their_order(store: ProductStore, tmp_path: Path) -> None:
    shards = written(tmp_path / "shards", store)
    np.testing.assert_array_equal(np.vstack(list(shards)), vectors(0, 10))
    np.testing.assert_array_equal(shards.rows(np.array([0, 5, 9])), vectors(0, 10)[[0, 5, 9]])
    read = pq.read_table(tmp_path / "shards").to_pylist()
    assert [Product(row["id"], row["title"], row["description"]) for row in read] == list(store)
    assert [row["vector"] for row in read] == vectors(0, 10).tolist()


def test_only_whole_shards_of_the_same_build_are_gone_on_with(store: ProductStore, tmp_path: Path) -> None:
    shards = written(tmp_path / "shards", store)
    assert [shards.finished(*one) for one in shards.ranges()] == [True] * 3
    other = Shards(tmp_path / "shards", store, 3, "other")
    assert [other.finished(*one) for one in other.ranges()] == [False] * 3
    first = tmp_path / "shards" / "shard-0000000000.parquet"
    whole = first.read_bytes()
    at = whole.index(vectors(0, 1).tobytes()[4:])  # a bit of the vectors, which only a check sum guards
    first.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    (tmp_path / "shards" / "shard-0000000004.parquet").write_bytes(whole[:100])
    (tmp_path / "shards" / "shard-0000000008.parquet").unlink()
    assert [shards.finished(*one) for one in shards.ranges()] == [False] * 3


def test_a_full_or_unfit_folder_is_one_line(
    store: ProductStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write .*file/shards"):
        Shards(tmp_path / "file" / "shards", store, 3, "this")

    def full(self: HashingFile, data: object) -> int:
        with storage_errors(self.path):
            raise OSError(28, "No space left on device")

    shards = Shards(tmp_path / "shards", store, 3, "this")
    with monkeypatch.context() as patch:
        patch.setattr(HashingFile, "write", full)
        with pytest.raises(StorageError, match="no space left to write"):
            shards.write(0, vectors(0, 4))
    assert list((tmp_path / "shards").iterdir()) == []
