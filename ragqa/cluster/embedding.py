"""Embedding titles by a pool of actors, a block of the build at a time: the same blocks that one process embeds.

The machine that builds reads the titles and writes the vectors; the others need nothing of it but what Ray carries. A block
whose actor, or whose machine, is lost, Ray has another one do.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

import ragqa
from ragqa.catalogue.store import ProductStore
from ragqa.cluster.faults import from_text, to_text
from ragqa.cluster.session import Session, absolute
from ragqa.errors import ClusterError, ModelError, RagqaError
from ragqa.index.blocks import Blocks
from ragqa.index.embedder import difference, load_described
from ragqa.index.engine import Encoding
from ragqa.progress import progress_bar, say
from ragqa.retrieval.embed import SentenceEmbedder

_ANSWER: Final = pa.schema([("start", pa.int64()), ("vectors", pa.large_binary()), ("error", pa.string())])


@dataclass(frozen=True, slots=True)
class Titles:
    """Reads the titles of a block from the store."""

    path: Path

    def __call__(self, block: pa.Table) -> pa.Table:
        """A block's first row and its titles."""
        start, stop = (block.column(name)[0].as_py() for name in ("start", "stop"))
        store = ProductStore(self.path)
        try:
            titles = store.column("title", start, stop)
        finally:
            store.close()
        return pa.table({"start": [start], "titles": pa.array([titles], pa.large_list(pa.large_string()))})


class Embed:
    """An actor that embeds titles by the project's own embedder, which it loads when the first block comes."""

    def __init__(self, encoding: Encoding, device: str, home: str, version: str) -> None:
        self._encoding, self._device, self._home, self._version = encoding, device, home, version
        self._encoder: SentenceEmbedder | None = None

    def __call__(self, block: pa.Table) -> pa.Table:
        """The vectors (titles, dimension) of a block, as the bytes of float32; or why there are none."""
        start, titles = block.column("start")[0].as_py(), block.column("titles")[0].as_py()
        vectors = error = None
        try:
            vectors = self._loaded().embed_titles(titles).tobytes()
        except RagqaError as problem:
            error = to_text(problem, self._home)
        return pa.table({"start": [start], "vectors": [vectors], "error": [error]}, schema=_ANSWER)

    def _loaded(self) -> SentenceEmbedder:
        if self._encoder is None:
            import torch

            torch.set_num_threads(1)  # as many actors as cores: each computes on one
            if ragqa.__version__ != self._version:
                raise ClusterError(
                    f"ragqa {ragqa.__version__} is installed there, and {self._version} builds; install the same everywhere"
                )
            described = self._encoding.described
            encoder, source = load_described(described, self._encoding.name, self._device, described["dtype"])
            if differing := difference(source, described):
                what, has, want = differing
                raise ModelError(
                    f"{self._encoding.name}: {source} was found, whose {what} are {has} and not {want}; all machines need "
                    "the same embedder"
                )
            self._encoder = encoder
        return self._encoder


def embed_blocks(session: Session, blocks: Blocks, store: ProductStore, encoding: Encoding) -> int:
    """Embed all blocks that are not finished; returns the number of titles that were embedded.

    Raises:
        ModelError: a machine has not the same embedder.
        ClusterError: Ray failed, or a block did not come.
        StorageError: a block cannot be written.
    """
    ranges = dict(blocks.ranges())
    waiting = {start: stop for start, stop in ranges.items() if not blocks.finished(start, stop)}
    done = len(store) - sum(stop - start for start, stop in waiting.items())
    if not waiting:
        return 0
    if done:
        say(f"{done:,} titles are embedded already")
    device, size, asked = session.pool(encoding.device)
    workers = min(size, len(waiting))
    home = platform.node()

    def make() -> Any:
        items = session.items([{"start": start, "stop": stop} for start, stop in waiting.items()])
        # One process reads; each block would else be read by one that is started for it.
        titles = items.map_batches(
            Titles(store.path.absolute()), batch_size=1, batch_format="pyarrow",
            num_cpus=0, concurrency=1, label_selector=session.here,
        )  # fmt: skip
        return titles.map_batches(
            Embed, batch_size=1, batch_format="pyarrow", compute=session.actors(workers),
            fn_constructor_args=(replace(encoding, name=absolute(encoding.name)), device, home, ragqa.__version__), **asked,
        )  # fmt: skip

    left, embedded = dict(waiting), 0
    with progress_bar(f"embedding by {workers} {device} workers", len(store), "titles") as bar:
        bar.update(done)
        bar.unpause()
        for table in session.tables(make):
            for start, vectors, error in zip(*(table.column(c) for c in ("start", "vectors", "error")), strict=True):
                if error.is_valid:
                    raise from_text(error.as_py())
                first = start.as_py()
                left.pop(first, None)
                found = np.frombuffer(vectors.as_buffer(), np.float32).reshape(ranges[first] - first, -1)
                blocks.write(first, found)
                embedded += len(found)
                bar.update(len(found))
    if left:
        raise ClusterError(f"{len(left):,} of {len(ranges):,} blocks did not come; run the same command again")
    return embedded
