"""The product store: an Arrow file of (id, title, description), memory-mapped when read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pyarrow as pa

from ragqa.errors import IndexDamagedError
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
    """Writes products to a new store; every batch but the last holds 4,096 rows."""

    def __init__(self, path: Path) -> None:
        self._file = HashingFile(path)
        try:
            self._writer = pa.ipc.new_file(self._file, SCHEMA)
        except BaseException:
            self._file.abandon()
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

    def close(self) -> None:
        """Write what is left and close the file."""
        try:
            if self._waiting:
                self._writer.write_batch(to_batch(self._waiting))
                self._waiting = []
            self._writer.close()
            self._file.close()
        except BaseException:
            self._file.abandon()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._file.abandon()


class ProductStore:
    """Random access to the products of a store by row, without reading the file into memory.

    Raises:
        IndexDamagedError: the file is no Arrow file, was cut short, or has other columns.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._map = pa.memory_map(str(path))
            self._reader = pa.ipc.open_file(self._map)
            if not self._reader.schema.equals(SCHEMA):
                raise IndexDamagedError(f"{path}: not a product store (columns {self._reader.schema.names})")
            batches = self._reader.num_record_batches
            last = self._reader.get_batch(batches - 1).num_rows if batches else 0
        except (pa.ArrowInvalid, OSError) as error:
            raise IndexDamagedError(f"{path}: not a whole product store ({str(error).splitlines()[0]})") from error
        self._count: int = max(batches - 1, 0) * _ROWS_PER_BATCH + last

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> Product:
        if not 0 <= row < self._count:
            raise IndexError(f"row {row} of a store with {self._count} products")
        batch = self._reader.get_batch(row // _ROWS_PER_BATCH)
        at = row % _ROWS_PER_BATCH
        return Product(*(column[at].as_py() for column in batch.columns))

    def __iter__(self) -> Iterator[Product]:
        for number in range(self._reader.num_record_batches):
            for row in zip(*(column.to_pylist() for column in self._reader.get_batch(number).columns), strict=True):
                yield Product(*row)

    def column(self, name: str, start: int, stop: int) -> list[str]:
        """The texts of one column for the rows from `start` up to, not including, `stop`."""
        texts: list[Any] = []
        for number in range(start // _ROWS_PER_BATCH, self._reader.num_record_batches):
            first = number * _ROWS_PER_BATCH
            if first >= stop:
                break
            column = self._reader.get_batch(number).column(name)
            texts += column[max(start - first, 0) : stop - first].to_pylist()
        return texts

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()
