"""Blocks that other programs read, too: Parquet files of products and their titles' vectors.

A shard has the columns id, title, description (strings) and vector (a list of `dimension` float32), the products of one
block in their order. It says in its metadata of which build it is: a shard of another catalogue, embedder or cleaning is
not gone on with. Its pages have check sums.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ragqa.catalogue.store import SCHEMA, ProductStore
from ragqa.files import replacing, storage_errors
from ragqa.index.blocks import Blocks
from ragqa.retrieval.embed import Vectors

_OF: Final = b"ragqa build"
_VECTOR: Final = "vector"


class Shards(Blocks):
    """Vectors (count, dimension), float32, in Parquet files with the products they are of.

    Args:
        folder: where they are; made if it is not there.
        store: the products.
        dimension: length of a vector.
        build: what the shards are of, in a word; see `ragqa.index.build`.

    Raises:
        StorageError: the folder cannot be made.
    """

    def __init__(self, folder: Path, store: ProductStore, dimension: int, build: str) -> None:
        super().__init__(folder, len(store), dimension)
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._store = store
        self._schema = pa.schema(
            [*SCHEMA, (_VECTOR, pa.list_(pa.float32(), dimension))], metadata={_OF: build.encode()}
        )

    def write(self, start: int, vectors: Vectors) -> None:
        """Write the shard that begins with a row, whole or not at all."""
        stop = start + len(vectors)
        columns = [pa.array(self._store.column(name, start, stop), pa.string()) for name in SCHEMA.names]
        columns.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), self._shape[1]))
        with replacing(self._file(start)) as file:
            # Vectors are noise to a compressor.
            compression = dict.fromkeys(SCHEMA.names, "zstd") | {f"{_VECTOR}.list.element": "NONE"}
            pq.write_table(
                pa.table(columns, schema=self._schema), file,
                compression=compression, use_dictionary=False, write_page_checksum=True,
            )  # fmt: skip

    def finished(self, start: int, stop: int) -> bool:
        """Whether a shard was written by this build, and is whole."""
        with contextlib.suppress(OSError, ValueError, pa.ArrowException):
            table = pq.read_table(self._file(start), page_checksum_verification=True, partitioning=None)
            # Metadata of the columns is Parquet's own.
            same = table.schema.equals(self._schema) and table.schema.metadata == self._schema.metadata
            return bool(same and len(table) == stop - start)
        return False

    def __iter__(self) -> Iterator[Vectors]:
        for start, _ in self.ranges():
            (column,) = pq.read_table(self._file(start), columns=[_VECTOR], partitioning=None).columns
            yield np.asarray(column.combine_chunks().flatten()).reshape(-1, self._shape[1])

    def _file(self, start: int) -> Path:
        return self._folder / f"shard-{start:010d}.parquet"
