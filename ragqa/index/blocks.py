"""The titles' vectors while an index is built: on disk, a block a file, so that they are never in memory all at once.

A file ends in the SHA-256 of what comes before: an interrupted build goes on with whole blocks alone.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ragqa.catalogue.store import ProductStore
from ragqa.files import HashingFile, replacing
from ragqa.progress import progress_bar
from ragqa.retrieval.embed import Embedder, Vectors

SIZE: Final = 8192
_SHA256_BYTES: Final = 32


class Blocks:
    """Vectors (count, dimension), float32, in files of `SIZE` rows each.

    Args:
        folder: where they are.
        count: number of rows.
        dimension: length of a vector.
    """

    def __init__(self, folder: Path, count: int, dimension: int) -> None:
        self._folder = folder
        self._shape = count, dimension

    def embed(self, store: ProductStore, encoder: Embedder) -> None:
        """Embed all titles, but those of blocks that an interrupted build finished."""
        with progress_bar("embedding", len(store), "titles") as bar:
            for start, stop in self.ranges():
                if self.finished(start, stop):
                    bar.update(stop - start)
                    bar.unpause()
                    continue
                self.write(start, encoder.embed_titles(store.column("title", start, stop), bar.update))

    def write(self, start: int, vectors: Vectors) -> None:
        """Write the block that begins with a row, whole or not at all."""
        with replacing(self._file(start)) as out:
            np.save(_Writable(out), vectors, allow_pickle=False)
            out.write(bytes.fromhex(out.sha256))

    def __iter__(self) -> Iterator[Vectors]:
        for start, _ in self.ranges():
            # Written by `embed`; an error of the disk is numpy's to tell.
            yield np.load(self._file(start), mmap_mode="r", allow_pickle=False)

    def rows(self, wanted: npt.NDArray[np.int64]) -> Vectors:
        """The vectors of some rows, ascending."""
        found = np.empty((len(wanted), self._shape[1]), np.float32)
        for number, block in enumerate(self):
            first, last = np.searchsorted(wanted, (number * SIZE, number * SIZE + len(block)))
            found[first:last] = block[wanted[first:last] - number * SIZE]
        return found

    def ranges(self) -> Iterator[tuple[int, int]]:
        """First row of each block, and the one after its last."""
        count = self._shape[0]
        return ((start, min(start + SIZE, count)) for start in range(0, count, SIZE))

    def _file(self, start: int) -> Path:
        return self._folder / f"block-{start:010d}.npy"

    def finished(self, start: int, stop: int) -> bool:
        """Whether a block was written, and is whole."""
        path = self._file(start)
        with contextlib.suppress(OSError, ValueError):
            written = memoryview(path.read_bytes())
            end = len(written) - _SHA256_BYTES
            if end < 0 or hashlib.sha256(written[:end]).digest() != written[end:]:
                return False
            vectors: Vectors = np.load(path, mmap_mode="r", allow_pickle=False)
            return vectors.shape == (stop - start, self._shape[1]) and vectors.dtype == np.float32
        return False


class _Writable:
    """What `numpy.save` asks of a file: nothing but `write`."""

    def __init__(self, file: HashingFile) -> None:
        self.write: Callable[[Any], int] = file.write
