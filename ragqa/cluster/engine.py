"""`build_index` by Ray: files cleaned and titles embedded on many machines, the index written by this one.

What comes of it is the index that one process builds, from the same blocks of the same rows in the same order. Other
machines need Ray, ragqa, the embedder, and a catalogue that they can read: in a folder that all see, or by a URL.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ragqa.catalogue.clean import CleaningReport
from ragqa.catalogue.read import Catalogue
from ragqa.catalogue.store import ProductStore
from ragqa.cluster.cleaning import clean_files, hash_files
from ragqa.cluster.embedding import embed_blocks
from ragqa.cluster.session import Session
from ragqa.index.blocks import Blocks
from ragqa.index.engine import Encoding, Local, Sink
from ragqa.index.shards import Shards
from ragqa.retrieval.embed import Embedder
from ragqa.settings import CleaningSettings

# A catalogue of fewer bytes is cleaned before Ray has started processes for it.
_FEW_BYTES: Final = 64_000_000


class RayEngine:
    """Has Ray clean and embed, for `build_index(..., engine=...)`.

    Args:
        address, workers: see `ragqa.cluster.session.Session`.
        shards: a folder where embeddings and products are to stay, as Parquet files; None keeps them with the unfinished
            build alone.

    Attributes:
        embedded: titles that were embedded.

    >>> with RayEngine(workers=2) as engine:  # doctest: +SKIP
    ...     build_index("s3://bucket/catalogue", "indexes/large", engine=engine)
    """

    def __init__(
        self, address: str | None = None, workers: int | None = None, shards: str | Path | None = None
    ) -> None:
        self._session = Session(address, workers)
        self._shards = None if shards is None else Path(shards)
        self.embedded = 0

    def __enter__(self) -> Self:
        self._session.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def sha256(self, files: Sequence[Path]) -> Iterable[str]:
        """SHA-256 of each file."""
        if not _is_many(files):
            return Local().sha256(files)
        return hash_files(self._session, files)

    def clean(self, catalogue: Catalogue, settings: CleaningSettings, sink: Sink, limit: int | None) -> CleaningReport:
        """File by file; by this process what is little: one file, few bytes, or the first rows alone."""
        if limit is not None or not _is_many(catalogue.files):
            return Local().clean(catalogue, settings, sink, limit)
        return clean_files(self._session, catalogue, settings, sink)

    def blocks(self, folder: Path, store: ProductStore, dimension: int, build: str) -> Blocks:
        """Parquet files."""
        return Shards(self._shards or folder / "shards", store, dimension, build)

    def embed(self, blocks: Blocks, store: ProductStore, encoder: Embedder, encoding: Encoding) -> None:  # noqa: ARG002
        """By a pool of actors. Ray is left then: its memory is for the index that is to be made."""
        self.embedded = embed_blocks(self._session, blocks, store, encoding)
        self._session.close()


def _is_many(files: Sequence[Path]) -> bool:
    return len(files) > 1 and sum(file.stat().st_size for file in files) >= _FEW_BYTES
