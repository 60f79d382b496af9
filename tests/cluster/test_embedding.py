"""What comes back from the machines that embed, without Ray: an error as what it was, and no block in silence."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import ragqa
from benchmarks.toys import toy_embedder
from ragqa.catalogue.store import ProductStore, StoreWriter
from ragqa.cluster.embedding import Embed, embed_blocks
from ragqa.cluster.faults import from_text, to_text
from ragqa.errors import ClusterError, ModelError, RagqaError
from ragqa.index import blocks
from ragqa.index.blocks import Blocks
from ragqa.index.engine import Encoding
from ragqa.records import Product

ENCODING = Encoding("toy", "cpu", {"weights_sha256": "f" * 64, "config_sha256": "f" * 64, "dtype": "float32"})


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProductStore:
    monkeypatch.setattr(blocks, "SIZE", 4)
    with StoreWriter(tmp_path / "products.arrow") as writer:
        writer.add([Product(f"p{i}", f"Title {i}", "text") for i in range(10)])
    return ProductStore(tmp_path / "products.arrow")


@pytest.fixture
def made(tmp_path: Path, store: ProductStore) -> Blocks:
    """Blocks of which the first, of four titles, is finished."""
    (tmp_path / "vectors").mkdir()
    some = Blocks(tmp_path / "vectors", len(store), 3)
    some.write(0, np.zeros((4, 3), np.float32))
    return some


def vectors(start: int, stop: int) -> np.ndarray:
    return np.arange(start * 3, stop * 3, dtype=np.float32).reshape(-1, 3)


def came(start: int, stop: int) -> pa.Table:
    sent = pa.array([vectors(start, stop).tobytes()], pa.large_binary())
    return pa.table({"start": [start], "vectors": sent, "error": pa.array([None], pa.string())})


def embed(made: Blocks, store: ProductStore, tables: Sequence[pa.Table]) -> int:
    session: Any = SimpleNamespace(pool=lambda device: (device, 1, {}), tables=lambda make: iter(tables))
    return embed_blocks(session, made, store, ENCODING)


def error_of(encoding: Encoding, version: str) -> RagqaError:
    (row,) = Embed(encoding, "cpu", platform.node(), version)(pa.table({"start": [8], "titles": [["x"]]})).to_pylist()
    assert (row["start"], row["vectors"]) == (8, None)
    return from_text(row["error"])


def test_a_machine_with_another_ragqa_or_another_embedder_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    error = error_of(ENCODING, "0.0")
    assert type(error) is ClusterError
    assert str(error).startswith(f"ragqa {ragqa.__version__} is installed there, and 0.0 builds")
    with toy_embedder(tmp_path / "toy"):
        other = error_of(ENCODING, ragqa.__version__)
    assert type(other) is ModelError
    assert "whose weights are " in str(other)
    assert str(other).endswith(" and not ffffffffffff; all machines need the same embedder")


def test_only_blocks_that_are_not_finished_are_embedded(made: Blocks, store: ProductStore) -> None:
    assert embed(made, store, [came(8, 10), came(4, 8)]) == 6
    np.testing.assert_array_equal(np.vstack(list(made)), np.vstack([np.zeros((4, 3)), vectors(4, 10)]))
    nobody: Any = None
    assert embed_blocks(nobody, made, store, ENCODING) == 0


def test_a_block_that_does_not_come_is_told_and_those_that_came_stay(made: Blocks, store: ProductStore) -> None:
    with pytest.raises(ClusterError, match=r"^1 of 3 blocks did not come; run the same command again$"):
        embed(made, store, [came(4, 8)])
    assert [made.finished(*one) for one in made.ranges()] == [True, True, False]


def test_an_error_on_a_machine_ends_the_build_with_it(made: Blocks, store: ProductStore) -> None:
    text = to_text(ModelError("no model"), platform.node())
    failed = pa.table({"start": [4], "vectors": pa.nulls(1, pa.large_binary()), "error": [text]})
    with pytest.raises(ModelError, match=r"^no model$"):
        embed(made, store, [failed])
