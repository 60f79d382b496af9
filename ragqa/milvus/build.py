"""Building a catalogue in Milvus: cleaned and embedded here, as for an index on disk, then loaded.

Vectors stand in the folder of the unfinished build until all is loaded, so that an interrupted load embeds nothing again. What
lies in a finished index folder is loaded as it is.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from ragqa import models
from ragqa.catalogue.columns import ReadOptions
from ragqa.errors import InputError
from ragqa.index.build import build_into
from ragqa.index.engine import Engine
from ragqa.index.generations import CURRENT
from ragqa.index.storage import PRODUCTS, ProductIndex, open_index
from ragqa.index.target import Embedded
from ragqa.milvus import layout
from ragqa.milvus.address import Address
from ragqa.milvus.connection import Connection
from ragqa.milvus.index import MilvusIndex
from ragqa.milvus.load import Contents, check_name, load
from ragqa.milvus.searcher import MilvusSearcher
from ragqa.retrieval.confidence import Confidence
from ragqa.retrieval.embed import SentenceEmbedder, Vectors
from ragqa.retrieval.retriever import Retriever
from ragqa.seals import digest, file_part
from ragqa.settings import CleaningSettings

_KEY_DIGITS: Final = 12
_BLOCK: Final = 8192
# FAISS indexes that keep vectors as they were made.
_WHOLE: Final = ("Flat", ",Flat")
# What the manifest of an index folder and of a catalogue in Milvus have in common.
_COMMON: Final = ("catalogue", "cleaning", "limit", "seed", "embedder", "content_sha256")


def build_milvus(
    source: Any,
    uri: str,
    *,
    out: str | Path | None = None,
    name: str | None = None,
    embedder: str = models.DEFAULT_EMBEDDER,
    device: str = "auto",
    dtype: str = "auto",
    options: ReadOptions | None = None,
    cleaning: CleaningSettings | None = None,
    limit: int | None = None,
    seed: int = 0,
    recipe: str = "auto",
    engine: Engine | None = None,
) -> MilvusIndex:
    """Build a catalogue in Milvus, or go on with one that was interrupted.

    Args:
        source: see `ragqa.build_index`; or an index folder, which is loaded as it is, without embedding anything.
        uri: such as ``milvus://host:19530/catalogue``, see `ragqa.milvus.address`. Readers see the old catalogue of this
            name until the new one is whole.
        out: a folder for the work, which is removed at the end; None takes ``indexes/NAME``.
        name: of the catalogue, where the address has none.
        embedder, device, dtype, options, cleaning, limit, seed, engine: see `ragqa.build_index`.
        recipe: the index of the vectors: "auto", "flat", "ivf", "ivf-sq8" or "hnsw".

    Returns:
        The catalogue, opened.

    Raises:
        InputError: catalogue or address cannot be used, the name is taken, or a text is longer than Milvus takes.
        MissingDependencyError: pymilvus is not installed.
        MilvusError: Milvus cannot be reached, refuses, or has not kept all rows.
        ModelError, StorageError, BusyError: see `ragqa.build_index`.
    """
    address = Address.parse(uri, name)
    target = _Milvus(Connection(address), recipe)
    if isinstance(source, str | Path) and (Path(source) / CURRENT).is_file():
        target.check(0)
        _load_folder(target, Path(source))
        return MilvusIndex.open(address)
    work = Path("indexes") / address.name if out is None else Path(out)
    build_into(
        target,
        source,
        work,
        embedder=embedder,
        device=device,
        dtype=dtype,
        options=options,
        cleaning=cleaning,
        limit=limit,
        seed=seed,
        engine=engine,
    )
    if not (work / CURRENT).exists():
        shutil.rmtree(work, ignore_errors=True)
    return MilvusIndex.open(address)


class _Milvus:
    """A catalogue in Milvus, as `ragqa.index.build.Target`."""

    def __init__(self, connection: Connection, recipe: str) -> None:
        self.connection = connection
        self.recipe = recipe

    def check(self, dimension: int) -> None:  # noqa: ARG002  (Milvus takes any that a model has)
        """Refuse a recipe or a name before anything is read."""
        layout.dense_index(self.recipe, 0)
        check_name(self.connection)

    def plan(self, count: int, encoder: SentenceEmbedder) -> None:
        """Milvus plans by itself."""

    def write(self, made: Embedded) -> None:
        """Load it."""
        products = file_part(made.generation / PRODUCTS)["sha256"]
        about = {k: v for k, v in made.about.items() if k in _COMMON} | {"embedder": dict(made.embedded_by)}
        about["content_sha256"] = digest({"products": products, "embedder": about["embedder"]})

        def fit(searcher: MilvusSearcher) -> Confidence:
            return Retriever(searcher, made.encoder).fit_confidence(seed=made.seed)

        self.load(made.store, made.blocks, made.encoder.dimension, about, fit)
        made.store.close()

    def load(self, store: Any, vectors: Any, dimension: int, about: Mapping[str, Any], fit: Any) -> None:
        """Load products and vectors under a name made from what they are."""
        catalogue = dict(about.get("catalogue") or {})
        if "name" in catalogue:
            # Folders of this machine are nobody else's business.
            about = {**about, "catalogue": catalogue | {"name": Path(str(catalogue["name"])).name}}
        dense = layout.dense_index(self.recipe, len(store))
        depends = {
            "content": about["content_sha256"], "dense": dense, "format": layout.FORMAT_VERSION, "seed": about.get("seed"),
        }  # fmt: skip
        key = digest(depends)[:_KEY_DIGITS]
        load(self.connection, Contents(store, vectors, dimension, about, key), self.recipe, fit)


def _load_folder(target: _Milvus, folder: Path) -> None:
    """Load a finished index; its confidence is taken over.

    Raises:
        InputError: it keeps its vectors in fewer bits than they were made in.
    """
    index = open_index(folder)
    factory = str(index.manifest["dense"].get("factory", ""))
    if not factory.endswith(_WHOLE):
        raise InputError(
            f"{folder}: keeps its vectors as {factory}, not as they were made; give the catalogue in its place, or build it "
            "with --recipe flat or ivf"
        )
    about = {name: index.manifest[name] for name in _COMMON if name in index.manifest}
    target.load(index.store, _blocks(index), index.dense.dimension, about, lambda _: index.confidence)


def _blocks(index: ProductIndex) -> Iterator[Vectors]:
    for start in range(0, len(index), _BLOCK):
        yield index.dense.vectors(np.arange(start, min(start + _BLOCK, len(index))))
