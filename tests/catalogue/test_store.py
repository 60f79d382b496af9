from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragqa.catalogue.store import SCHEMA, ProductStore, StoreWriter, to_batch
from ragqa.errors import IndexDamagedError
from ragqa.files import HashingFile, sha256_of
from ragqa.records import Product

COUNT = 2 * 4096 + 5
PRODUCTS = [Product(str(n), f"Title {n} é 👩", f"Text\nof \x00{n}") for n in range(COUNT)]


def write(path: Path, products: list[Product], block: int = 1000) -> Path:
    with StoreWriter(path) as writer:
        for start in range(0, len(products), block):
            writer.add(products[start : start + block])
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProductStore]:
    opened = ProductStore(write(tmp_path_factory.mktemp("store") / "products.arrow", PRODUCTS))
    yield opened
    opened.close()


def test_a_store_gives_back_all_products_in_order(store: ProductStore) -> None:
    assert list(store) == PRODUCTS
    assert len(store) == COUNT


@given(st.integers(0, COUNT - 1) | st.sampled_from([0, 4095, 4096, 8191, 8192, COUNT - 1]))
def test_a_row_is_the_product_that_was_written_there(store: ProductStore, row: int) -> None:
    assert store[row] == PRODUCTS[row]


@pytest.mark.parametrize("row", [-1, COUNT, COUNT + 4096])
def test_a_row_outside_the_store_is_an_index_error(store: ProductStore, row: int) -> None:
    with pytest.raises(IndexError, match=f"^row {row} of a store with {COUNT} products$"):
        store[row]


positions = st.integers(0, COUNT + 10) | st.sampled_from([0, 4095, 4096, 4097, 8191, 8192, 8193, COUNT])


@given(st.sampled_from(["id", "title", "description"]), positions, positions)
def test_a_column_agrees_with_a_slice_of_the_list(store: ProductStore, name: str, start: int, stop: int) -> None:
    assert store.column(name, start, stop) == [getattr(product, name) for product in PRODUCTS[start:stop]]


@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 4097, 8192])
def test_a_store_of_any_length_opens_with_that_length(tmp_path: Path, count: int) -> None:
    opened = ProductStore(write(tmp_path / "p.arrow", PRODUCTS[:count]))
    assert (len(opened), opened.column("id", 0, count)) == (count, [p.id for p in PRODUCTS[:count]])


@pytest.mark.parametrize("block", [1, 7, 4096, 5000, COUNT])
def test_the_file_does_not_depend_on_the_blocks_in_which_it_was_written(tmp_path: Path, block: int) -> None:
    path = write(tmp_path / "p.arrow", PRODUCTS, block)
    assert sha256_of(path) == sha256_of(write(tmp_path / "q.arrow", PRODUCTS, 999))
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        assert [reader.get_batch(n).num_rows for n in range(reader.num_record_batches)] == [4096, 4096, 5]


@given(
    st.sets(st.integers(0, COUNT - 1) | st.sampled_from([0, 4095, 4096, 8191, 8192, COUNT - 1]), max_size=60), st.data()
)
@settings(deadline=None, max_examples=15)
def test_copied_rows_make_the_file_that_their_products_make(
    tmp_path_factory: pytest.TempPathFactory, store: ProductStore, rows: set[int], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("copied")
    left_out = data.draw(st.booleans())  # most rows, as an update copies them
    chosen = np.array(sorted(set(range(COUNT)) - rows if left_out else rows), np.int64)
    before, after = (data.draw(st.sampled_from([0, 1, 100, 4096])) for _ in range(2))
    with StoreWriter(folder / "p.arrow") as writer:
        writer.add(PRODUCTS[:before])
        writer.copy(store, chosen)
        writer.add(PRODUCTS[:after])
    assert writer.count == before + len(chosen) + after
    same = write(folder / "q.arrow", PRODUCTS[:before] + [PRODUCTS[row] for row in chosen] + PRODUCTS[:after])
    assert writer.file.sha256 == sha256_of(folder / "p.arrow") == sha256_of(same)


def test_the_writer_counts_what_it_was_given(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "p.arrow") as writer:
        writer.add(PRODUCTS[:3])
        writer.add([])
        writer.add(PRODUCTS[3:5000])
        assert writer.count == 5000


@pytest.mark.parametrize("content", [b"", b"not an Arrow file at all", b"ARROW1\0\0" + b"\0" * 100])
def test_a_file_that_is_no_store_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.arrow").write_bytes(content)
    with pytest.raises(IndexDamagedError, match=r"p\.arrow: not a whole product store \("):
        ProductStore(tmp_path / "p.arrow")


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_store_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path = write(tmp_path / "p.arrow", PRODUCTS[:5000])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(IndexDamagedError, match="not a whole product store"):
        ProductStore(path)


def test_a_missing_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IndexDamagedError, match="not a whole product store"):
        ProductStore(tmp_path / "missing.arrow")


def test_an_arrow_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    with pa.ipc.new_file(str(tmp_path / "p.arrow"), pa.schema([("id", pa.string()), ("price", pa.int64())])):
        pass
    with pytest.raises(IndexDamagedError, match=r"not a product store \(columns \['id', 'price'\]\)"):
        ProductStore(tmp_path / "p.arrow")


def test_a_store_whose_writing_failed_cannot_be_opened(tmp_path: Path) -> None:
    def interrupted() -> None:
        with StoreWriter(tmp_path / "p.arrow") as writer:
            writer.add(PRODUCTS[:5000])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(IndexDamagedError):
        ProductStore(tmp_path / "p.arrow")


def test_the_schema_is_three_columns_of_text() -> None:
    assert [(field.name, str(field.type)) for field in SCHEMA] == [
        ("id", "string"),
        ("title", "string"),
        ("description", "string"),
    ]


def place_of(path: Path, value: bytes) -> int:
    """Where in a file a value that it has once lies."""
    content = path.read_bytes()
    assert content.count(value) == 1
    return content.index(value)


def overwritten(path: Path, at: int, value: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(value)


def test_a_text_that_ends_beyond_the_file_is_refused_by_row_and_by_batch(tmp_path: Path) -> None:
    path = write(tmp_path / "p.arrow", PRODUCTS[:3])
    ends = np.cumsum([0] + [len(product.title.encode()) for product in PRODUCTS[:3]]).astype("<i4")
    overwritten(path, place_of(path, ends.tobytes()) + 8, np.int32(2**30).tobytes())
    damaged = ProductStore(path)
    assert damaged[0] == PRODUCTS[0]
    with pytest.raises(IndexDamagedError, match=r"p\.arrow: row 1 is damaged; build the index anew"):
        damaged[1]
    with pytest.raises(IndexDamagedError, match=r"p\.arrow: record batch 0 is damaged \(.*\); build the index anew"):
        list(damaged.batches())


def test_a_store_that_cannot_be_begun_closes_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[HashingFile] = []

    def fail(file: HashingFile, schema: pa.Schema) -> None:
        opened.append(file)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pa.ipc, "new_file", fail)
    with pytest.raises(OSError, match="No space left"):
        StoreWriter(tmp_path / "p.arrow")
    assert [file.closed for file in opened] == [True]


def test_a_store_that_is_compressed_is_refused_as_its_texts_do_not_lie_in_the_file(tmp_path: Path) -> None:
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(str(tmp_path / "p.arrow"), SCHEMA, options=options) as writer:
        writer.write_batch(to_batch(PRODUCTS[:100]))
    with pytest.raises(IndexDamagedError, match=r"p\.arrow: row 0 is damaged; build the index anew"):
        ProductStore(tmp_path / "p.arrow")[0]
