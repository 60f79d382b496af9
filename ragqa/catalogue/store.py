"""The product store: an Arrow file of (id, title, description), memory-mapped when read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ragqa.errors import IndexDamagedError, first_line
from ragqa.files import HashingFile
from ragqa.records import Product

SCHEMA: Final = pa.schema([("id", pa.string()), ("title", pa.string()), ("description", pa.string())])
_ROWS_PER_BATCH: Final = 4096


def to_batch(products: Sequence[Product]) -> pa.RecordBatch:
    """Products as an Arrow record batch with the columns of `SCHEMA`."""
    return pa.record_batch(
        [
            pa.array([p.id for p in products], pa.string()),
            pa.array([p.title for p in products], pa.string()),
            pa.array([p.description for p in products], pa.string()),
        ],
        schema=SCHEMA,
    )


class StoreWriter:
    """Writes products to a new store; every batch but the last holds 4,096 rows.

    Attributes:
        file: what is written, with its size and SHA-256 once closed.
        count: number of products so far.
    """

    def __init__(self, path: Path) -> None:
        self.file = HashingFile(path)
        try:
            self._writer = pa.ipc.new_file(self.file, SCHEMA)
        except BaseException:
            self.file.abandon()
            raise
        self._waiting: list[Product] = []
        self.count = 0

    def add(self, products: Sequence[Product]) -> None:
        """Append products."""
        self._waiting.extend(products)
        self.count += len(products)
        while len(self._waiting) >= _ROWS_PER_BATCH:
            self._writer.write_batch(to_batch(self._waiting[:_ROWS_PER_BATCH]))
            del self._waiting[:_ROWS_PER_BATCH]

    def copy(self, store: ProductStore, rows: npt.NDArray[np.int64]) -> None:
        """Append rows of another store, ascending, a batch at a time."""
        waiting, count = [to_batch(self._waiting)], len(self._waiting)
        self._waiting = []
        self.count += len(rows)
        for first, batch in store.batches():
            mine = rows[slice(*np.searchsorted(rows, (first, first + len(batch))))]
            more = batch if len(mine) == len(batch) else batch.take(pa.array(mine - first))
            if count + len(more) >= _ROWS_PER_BATCH:
                fill = _ROWS_PER_BATCH - count
                (full,) = pa.Table.from_batches([*waiting, more[:fill]]).combine_chunks().to_batches()
                self._writer.write_batch(full)
                waiting, count, more = [], 0, more[fill:]
            waiting.append(more)
            count += len(more)
        self._waiting = list(_products(waiting))

    def close(self) -> None:
        """Write what is left and close the file."""
        try:
            if self._waiting:
                self._writer.write_batch(to_batch(self._waiting))
                self._waiting = []
            self._writer.close()
            self.file.close()
        except BaseException:
            self.file.abandon()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.file.abandon()


class _Texts(NamedTuple):
    """One column of a batch: where each text ends (mapped), and where in the file the first begins."""

    ends: memoryview
    begin: int


class ProductStore:
    """Random access to the products of a store by row, without reading the file into memory.

    A product by itself is read from the file and not through the map: around each page of a map that is looked at the
    system keeps fifteen more in the process, which for products here and there is soon the whole file.

    Attributes:
        path: the file.

    Raises:
        IndexDamagedError: the file is no Arrow file, was cut short, or has other columns.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._map, self._file = pa.memory_map(str(path)), pa.OSFile(str(path))
            self._reader = pa.ipc.open_file(self._map)
            if not self._reader.schema.equals(SCHEMA):
                raise IndexDamagedError(f"{path}: not a product store (columns {self._reader.schema.names})")
            batches = self._reader.num_record_batches
            last = self._reader.get_batch(batches - 1).num_rows if batches else 0
            self._map.seek(0)
            self._begin = self._map.read_buffer(1).address
            self._size = self._map.size()
        except (pa.ArrowException, OSError, OverflowError, UnicodeDecodeError) as error:
            raise IndexDamagedError(f"{path}: not a whole product store ({first_line(error)})") from error
        self.path = path
        self._count: int = max(batches - 1, 0) * _ROWS_PER_BATCH + last
        self._texts: dict[int, list[_Texts]] = {}  # by the batch's number

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> Product:
        if not 0 <= row < self._count:
            raise IndexError(f"row {row} of a store with {self._count} products")
        number, at = divmod(row, _ROWS_PER_BATCH)
        try:
            texts = self._texts.get(number)
            if texts is None:
                texts = self._texts[number] = [self._placed(column) for column in self._batch(number).columns]
            return Product(*(self._text(ends[at], ends[at + 1], begin) for ends, begin in texts))
        except (pa.ArrowException, OSError, IndexError, ValueError, TypeError) as error:
            raise IndexDamagedError(f"{self.path}: row {row} is damaged; build the index anew") from error

    def _batch(self, number: int) -> pa.RecordBatch:
        batch = self._reader.get_batch(number)
        batch.validate()  # its buffers are as long as it says
        return batch

    def _placed(self, column: Any) -> _Texts:
        _, ends, letters = column.buffers()
        begin = letters.address - self._begin if letters else 0
        if not 0 <= begin <= self._size:
            raise ValueError("a column that does not lie in the file as it is")
        return _Texts(memoryview(ends).cast("i"), begin)

    def _text(self, start: int, stop: int, begin: int) -> str:
        if not 0 <= start <= stop <= self._size - begin:
            raise ValueError("a text that does not lie in the file")
        return str(self._file.read_at(stop - start, begin + start), "utf-8") if stop > start else ""

    def __iter__(self) -> Iterator[Product]:
        return _products(batch for _, batch in self.batches())

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The store's record batches, each with the number of its first row."""
        for number in range(self._reader.num_record_batches):
            yield number * _ROWS_PER_BATCH, self._whole(number)

    def _whole(self, number: int) -> pa.RecordBatch:
        """A batch of which every text lies where it says, and is UTF-8."""
        try:
            batch = self._reader.get_batch(number)
            batch.validate(full=True)
        except (pa.ArrowException, OSError) as error:
            raise IndexDamagedError(
                f"{self.path}: record batch {number} is damaged ({first_line(error)}); build the index anew"
            ) from error
        return batch

    def column(self, name: str, start: int, stop: int) -> list[str]:
        """The texts of one column for the rows from `start` up to, not including, `stop`."""
        texts: list[Any] = []
        for number in range(start // _ROWS_PER_BATCH, self._reader.num_record_batches):
            first = number * _ROWS_PER_BATCH
            if first >= stop:
                break
            column = self._whole(number).column(name)
            texts += column[max(start - first, 0) : stop - first].to_pylist()
        return texts

    def close(self) -> None:
        """Unmap the file."""
        self._texts.clear()
        self._file.close()
        self._map.close()


def _products(batches: Iterable[pa.RecordBatch]) -> Iterator[Product]:
    for batch in batches:
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield Product(*row)
