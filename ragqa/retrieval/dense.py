"""Nearest titles by cosine similarity, in FAISS."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ragqa.errors import IndexDamagedError, MissingDependencyError
from ragqa.files import HashingFile
from ragqa.retrieval.embed import Vectors


def import_faiss() -> Any:
    """The faiss module.

    Raises:
        MissingDependencyError: neither faiss-cpu nor faiss-gpu is installed, or both are (they overwrite
            each other's files).
    """
    installed = []
    for package in ("faiss-cpu", "faiss-gpu"):
        try:
            importlib.metadata.version(package)
            installed.append(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if len(installed) == 2:
        raise MissingDependencyError(
            "faiss-cpu and faiss-gpu are both installed and overwrite each other; keep one: "
            "pip uninstall -y faiss-cpu faiss-gpu && pip install faiss-gpu   (or faiss-cpu)"
        )
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError(
            f"faiss cannot be imported ({error}); install it: pip install faiss-cpu"
        ) from error
    return faiss


class DenseIndex:
    """Exact inner-product search over unit vectors, which is cosine similarity."""

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def empty(cls, dimension: int) -> DenseIndex:
        """An index without vectors."""
        return cls(import_faiss().IndexFlatIP(dimension))

    @classmethod
    def load(cls, path: Path) -> DenseIndex:
        """Open an index written by `save`. Its hash must have been checked before: FAISS trusts the file.

        Raises:
            IndexDamagedError: FAISS cannot read it.
        """
        faiss = import_faiss()
        try:
            return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC))
        except RuntimeError as error:
            raise IndexDamagedError(f"{path}: not a whole FAISS index; build the index anew") from error

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._index.d)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, vectors: Vectors) -> None:
        """Append unit vectors (n, dimension)."""
        self._index.add(vectors)

    def save(self, file: HashingFile) -> None:
        """Write the index."""
        faiss = import_faiss()
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(file.write, 1 << 22))

    def search(self, questions: Vectors, k: int) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """The k nearest titles: cosine similarities and rows, both (len(questions), min(k, len(self)))."""
        scores, rows = self._index.search(questions, min(k, len(self)))
        return scores, rows

    def vectors(self, rows: Sequence[int]) -> Vectors:
        """The vectors of these rows, (len(rows), dimension)."""
        found: Vectors = self._index.reconstruct_batch(np.asarray(rows, np.int64))
        return found

    def similarity(self, question: Vectors, row: int) -> float:
        """Cosine similarity of one question's vector (dimension,) and the title in `row`."""
        return float(self._index.reconstruct(row) @ question)
