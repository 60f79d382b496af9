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
            for start, stop in self._ranges():
                if self._finished(start, stop) is not None:
                    bar.update(stop - start)
                    bar.unpause()
                    continue
                vectors = encoder.embed_titles(store.column("title", start, stop), bar.update)
                with replacing(self._file(start)) as out:
                    np.save(_Writable(out), vectors, allow_pickle=False)
                    out.write(bytes.fromhex(out.sha256))

    def __iter__(self) -> Iterator[Vectors]:
        for start, _ in self._ranges():
            # Written by `embed`; an error of the disk is numpy's to tell.
            yield np.load(self._file(start), mmap_mode="r", allow_pickle=False)

    def rows(self, wanted: npt.NDArray[np.int64]) -> Vectors:
        """The vectors of some rows, ascending."""
        found = np.empty((len(wanted), self._shape[1]), np.float32)
        for number, block in enumerate(self):
            first, last = np.searchsorted(wanted, (number * SIZE, number * SIZE + len(block)))
            found[first:last] = block[wanted[first:last] - number * SIZE]
        return found

    def _ranges(self) -> Iterator[tuple[int, int]]:
        count = self._shape[0]
        return ((start, min(start + SIZE, count)) for start in range(0, count, SIZE))

    def _file(self, start: int) -> Path:
        return self._folder / f"block-{start:010d}.npy"

    def _finished(self, start: int, stop: int) -> Vectors | None:
        path = self._file(start)
        with contextlib.suppress(OSError, ValueError):
            written = memoryview(path.read_bytes())
            end = len(written) - _SHA256_BYTES
            if end < 0 or hashlib.sha256(written[:end]).digest() != written[end:]:
                return None
            vectors: Vectors = np.load(path, mmap_mode="r", allow_pickle=False)
            if vectors.shape == (stop - start, self._shape[1]) and vectors.dtype == np.float32:
                return vectors
        return None


class _Writable:
    """What `numpy.save` asks of a file: nothing but `write`."""

    def __init__(self, file: HashingFile) -> None:
        self.write: Callable[[Any], int] = file.write
