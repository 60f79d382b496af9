"""Nearest titles by cosine similarity, in FAISS."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ragqa.errors import IndexDamagedError, MissingDependencyError, first_line
from ragqa.files import HashingFile
from ragqa.progress import say
from ragqa.retrieval.embed import Vectors
from ragqa.retrieval.gpu import to_gpu

_BLOCK: Final = 8192
# The limits of what FAISS reads are the whole process's.
_READING: Final = threading.Lock()
# A graph of up to so many vectors is always made by one thread: a minute at most, and the same graph each time.
_FEW: Final = 20_000


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
    _mind_forks()
    return faiss


@functools.cache
def _mind_forks() -> None:
    """See that a forked child computes with one thread: it would wait for ever for its parent's, which it does not have."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_one_thread_in_child)


def _one_thread_in_child() -> None:
    for library, call in (("faiss", "omp_set_num_threads"), ("torch", "set_num_threads")):
        if library in sys.modules:
            getattr(sys.modules[library], call)(1)


class DenseIndex:
    """Inner-product search over unit vectors, which is cosine similarity, by any FAISS index.

    Args:
        index: a FAISS index with the inner product as its metric, from which vectors can be reconstructed.
        parameters: its search parameters, such as "nprobe=16", as FAISS's `ParameterSpace` reads them.
    """

    def __init__(self, index: Any, parameters: str = "") -> None:
        self._index = index
        self._gpu: Any = None
        self._path: Path | None = None
        self.parameters = parameters
        faiss = import_faiss()
        if parameters:
            faiss.ParameterSpace().set_index_parameters(index, parameters)
        self._lists = faiss.try_extract_index_ivf(index)
        if self._lists is not None and self._lists.ntotal and self._lists.direct_map.no():
            # Where in the lists each row stands: 8 bytes a row.
            self._lists.make_direct_map()

    @classmethod
    def empty(cls, dimension: int) -> DenseIndex:
        """An exact index without vectors."""
        return cls(import_faiss().IndexFlatIP(dimension))

    @classmethod
    def load(cls, path: Path, parameters: str = "") -> DenseIndex:
        """Map an index written by `save`. Its hash must have been checked before: FAISS trusts the file.

        What it reads is held to what so many bytes can hold.

        Raises:
            IndexDamagedError: FAISS cannot read it, it says that it has more than is there, or has no such parameters.
        """
        faiss = import_faiss()
        damaged = f"{path}: not a whole FAISS index; build the index anew"
        size = path.stat().st_size
        try:
            index = _read(faiss, path, size)
            if not _plausible(faiss, index, size):
                raise IndexDamagedError(damaged)
            dense = cls(index, parameters)
        except (RuntimeError, MemoryError) as error:
            raise IndexDamagedError(damaged) from error
        dense._path = path
        return dense

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
        """The k nearest titles: cosine similarities and rows, both (len(questions), min(k, len(self))).

        Where an index looks at a part of the rows only and finds fewer than k in it, the last rows are -1.
        """
        k = min(k, len(self))
        if self._gpu is not None:
            try:
                scores, rows = self._gpu.search(questions, k)
            except RuntimeError as error:
                if len(questions) > 1:  # no room for all their results: by halves
                    half = len(questions) // 2
                    parts = self.search(questions[:half], k), self.search(questions[half:], k)
                    return np.vstack([part[0] for part in parts]), np.vstack([part[1] for part in parts])
                self._gpu = None
                say(f"FAISS goes on on the CPU ({first_line(error)})")
            else:
                return scores, rows
        if self._lists is not None:
            # Cores share out the lists that one question looks into (1), or else the questions (0): either is right.
            self._lists.parallel_mode = int(len(questions) == 1)
        scores, rows = self._index.search(questions, k)
        return scores, rows

    def use(self, device: str) -> None:
        """Search on this device, if it is a GPU that has FAISS and room; whole vectors are kept there in float16."""
        self._gpu = to_gpu(import_faiss(), self._index, device, half=True)

    def vectors(self, rows: Sequence[int] | npt.NDArray[np.integer[Any]]) -> Vectors:
        """The vectors of these rows, (len(rows), dimension), as near as the index keeps them."""
        found: Vectors = self._index.reconstruct_batch(np.asarray(rows, np.int64))
        return found

    def updated(self, kept: npt.NDArray[np.int64], vectors: Vectors, deterministic: bool = False) -> DenseIndex:
        """A new index, in memory and trained like this one: some of its rows, in their order, then more vectors.

        Flat and inverted-list indexes are copied as they are; of others (graphs, fast scan) the kept vectors are added
        anew.

        Args:
            kept: (m,) ascending rows.
            vectors: (n, dimension) unit vectors, which get the rows from m on.
            deterministic: see `repeatable`.
        """
        faiss = import_faiss()
        # What is mapped can be cloned, but not changed: it is read once more, into memory.
        index = faiss.read_index(str(self._path)) if self._path else faiss.clone_index(self._index)
        with one_thread(index, repeatable(len(kept) + len(vectors), deterministic)):
            if not _keep(index, kept):
                index.reset()
                for start in range(0, len(kept), _BLOCK):
                    index.add(self.vectors(kept[start : start + _BLOCK]))
            if len(vectors):
                index.add(vectors)
        return DenseIndex(index, self.parameters)


def _read(faiss: Any, path: Path, size: int) -> Any:
    try:
        with _bounded(faiss, size):
            return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        # Tables of a product quantiser are no part of the file: FAISS makes them, up to a limit of its own.
        if "precomputed_table" not in str(error):
            raise
    with _bounded(faiss, max(size, faiss.cvar.precomputed_table_max_bytes)):
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)


@contextlib.contextmanager
def _bounded(faiss: Any, size: int) -> Iterator[None]:
    """Within, FAISS allocates for no part of a file more than the file has, and repeats nothing more often."""
    limits = {"loop": size, "vector_byte": size}
    with _READING:
        kept = {name: getattr(faiss, f"get_deserialization_{name}_limit", int)() for name in limits}
        try:
            for name, most in limits.items():
                _limit(faiss, name, most)
            yield
        finally:
            for name, most in kept.items():
                _limit(faiss, name, most)


def _limit(faiss: Any, name: str, most: int) -> None:
    change = getattr(faiss, f"set_deserialization_{name}_limit", None)  # FAISS has them since 1.14
    if change is not None:
        change(most)


def _plausible(faiss: Any, index: Any, size: int) -> bool:
    """Whether so many bytes can hold what an index says it has."""
    part = faiss.downcast_index(index)
    code = getattr(part, "code_size", 0) if isinstance(part, faiss.IndexFlatCodes | faiss.IndexIVF) else 0
    lists = faiss.try_extract_index_ivf(index)
    return bool(
        index.d > 0
        and 0 <= index.ntotal <= size
        and 0 <= code * index.ntotal <= size
        and (lists is None or 0 < lists.nlist <= size)
    )


def repeatable(count: int, deterministic: bool) -> bool:
    """Whether an index of so many vectors is made in a way that gives the same each time: where it is asked for, or few."""
    return deterministic or count <= _FEW


@contextlib.contextmanager
def one_thread(index: Any, wanted: bool) -> Iterator[None]:
    """Within, where it is wanted, one thread adds vectors to a graph: several add them in an order of their own.

    Flat and inverted-list indexes are the same whoever adds.
    """
    faiss = import_faiss()
    threads = faiss.omp_get_max_threads()
    if wanted and isinstance(faiss.downcast_index(index), faiss.IndexHNSW):
        faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _keep(index: Any, kept: npt.NDArray[np.int64]) -> bool:
    """Take all but some rows out of an index, if it can be done without adding vectors anew; says whether it was."""
    faiss = import_faiss()
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        if not (_can_keep(index.base_index) and _can_keep(index.refine_index)):
            return False
        _keep(index.base_index, kept)
        _keep(index.refine_index, kept)
    elif not _can_keep(index):
        return False
    elif isinstance(index, faiss.IndexIVF):
        _keep_in_lists(index, kept)
    else:
        gone = np.ones(index.ntotal, np.bool_)
        gone[kept] = False
        bits = np.packbits(gone, bitorder="little")
        index.remove_ids(faiss.IDSelectorBitmap(len(gone), faiss.swig_ptr(bits)))
    index.ntotal = len(kept)
    return True


def _can_keep(index: Any) -> bool:
    faiss = import_faiss()
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexIVF):
        return isinstance(faiss.downcast_InvertedLists(index.invlists), faiss.ArrayInvertedLists)
    return isinstance(index, faiss.IndexFlatCodes)


def _keep_in_lists(index: Any, kept: npt.NDArray[np.int64]) -> None:
    faiss = import_faiss()
    index.set_direct_map_type(faiss.DirectMap.NoMap)
    renumbered = np.full(index.ntotal, -1, np.int64)
    renumbered[kept] = np.arange(len(kept))
    old, size = index.invlists, index.code_size
    new = faiss.ArrayInvertedLists(index.nlist, size)
    for number in range(index.nlist):
        if not (length := old.list_size(number)):
            continue
        ids = renumbered[faiss.rev_swig_ptr(old.get_ids(number), length)]
        codes = faiss.rev_swig_ptr(old.get_codes(number), length * size).reshape(length, size)
        staying = np.flatnonzero(ids >= 0)
        ids, codes = ids[staying], np.ascontiguousarray(codes[staying])
        new.add_entries(number, len(ids), faiss.swig_ptr(ids), faiss.swig_ptr(codes))
    index.replace_invlists(new, True)
    new.this.disown()
