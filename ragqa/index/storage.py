"""The index folder: immutable generations, one pointer to the live one, a manifest with hashes.

::

    indexes/demo/
        CURRENT              the name of the live generation, and the SHA-256 of its manifest
        g000001/
            manifest.json    format version, embedder, dimension, counts, size and SHA-256 of every part
            products.arrow   id, title, description (Arrow IPC)
            vectors.faiss    unit vectors of the titles (FAISS)
            titles.bin       exact-title look-up (uint64 hashes and rows)
            title-words.bin  which titles have a word, and its BM25 scores
            description-words.bin  the same of the descriptions
            spelling.bin     words of the titles by what is left of them without a letter
            confidence.json  the model behind `Answer.confidence`
            cleaning.json    what cleaning dropped, and why
        .partial/            an unfinished build; the same command goes on from it
        .partial-update/     an unfinished update; the next one removes it
        .lock                held by the one process that writes

A generation is never changed. A build writes a new one, its manifest last, and then replaces ``CURRENT``:
a reader sees the old index or the new one, whole (see `ragqa.index.generations`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from ragqa.catalogue.store import ProductStore
from ragqa.errors import IndexDamagedError, IndexMismatchError, InputError
from ragqa.files import ends_sha256, sha256_of
from ragqa.index.generations import MANIFEST, Hold, hold_live, live_generation
from ragqa.json_files import UNREADABLE, read_json
from ragqa.retrieval import lexical
from ragqa.retrieval.confidence import Confidence
from ragqa.retrieval.dense import DenseIndex
from ragqa.retrieval.embed import Embedder
from ragqa.retrieval.lexical import LexicalIndex
from ragqa.retrieval.retriever import Retriever
from ragqa.retrieval.searcher import LocalSearcher
from ragqa.retrieval.titles import TitleTable

FORMAT_VERSION: Final = 4
PRODUCTS: Final = "products.arrow"
VECTORS: Final = "vectors.faiss"
TITLES: Final = "titles.bin"
CONFIDENCE: Final = "confidence.json"
CLEANING: Final = "cleaning.json"
# What an index depends on; their versions stand in the manifest.
PACKAGES: Final = ("sentence-transformers", "transformers", "torch", "faiss-cpu", "faiss-gpu", "numpy", "pyarrow")
PARTS: Final = (PRODUCTS, VECTORS, TITLES, *lexical.FILES, CONFIDENCE, CLEANING)

Verify = Literal["auto", "full", "sizes"]
_CHANGED: Final = "its content changed since it was written; build the index anew"
_FULL_BELOW: Final = 2_000_000_000


class SearchIndex(Protocol):
    """What an `Answerer` asks: a `ProductIndex`, or a catalogue in Milvus."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What was noted when it was built."""

    @property
    def confidence(self) -> Confidence:
        """The model behind `Answer.confidence`."""

    @property
    def name(self) -> str:
        """Of its generation."""

    @property
    def place(self) -> str:
        """Where it is, for messages."""

    def __len__(self) -> int:
        """How many products it has."""

    def retriever(self, embedder: Embedder) -> Retriever:
        """What finds its products; with the encoder that made its vectors."""

    def newer(self, verify: Verify = "auto") -> SearchIndex | None:
        """The generation that was made the live one since, opened; None where there is none."""

    def use(self, device: str) -> None:
        """Search on this device, if it can."""

    def close(self) -> None:
        """Nobody asks it any more."""


@dataclass(frozen=True, slots=True)
class ProductIndex:
    """An opened index on disk.

    Attributes:
        folder: the generation it was opened from.
        manifest: its manifest.
        hold: keeps that folder from being removed by a writer.
    """

    folder: Path
    manifest: Mapping[str, Any]
    store: ProductStore
    dense: DenseIndex
    titles: TitleTable
    words: LexicalIndex
    confidence: Confidence
    hold: Hold | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.store)

    @property
    def name(self) -> str:
        """Of its generation, such as "g000003"."""
        return self.folder.name

    @property
    def place(self) -> str:
        """The index folder."""
        return str(self.folder.parent)

    def newer(self, verify: Verify = "auto") -> ProductIndex | None:
        """The generation that a build or an update has made the live one since, opened; None where there is none."""
        path = self.folder.parent
        return None if live_generation(path).name == self.name else open_index(path, verify)

    def use(self, device: str) -> None:
        """Search vectors on this device, if it is a GPU that has FAISS and room."""
        self.dense.use(device)

    def close(self) -> None:
        """Unmap the products."""
        self.store.close()

    def retriever(self, embedder: Embedder) -> Retriever:
        """What finds its products; with the encoder that made its vectors."""
        searcher = LocalSearcher(self.store, self.dense, self.titles, self.words)
        return Retriever(searcher, embedder, self.confidence)


def on_disk(index: SearchIndex) -> ProductIndex:
    """An index whose files are at hand: to train on, to compare, to save.

    Raises:
        InputError: it lies elsewhere.
    """
    if not isinstance(index, ProductIndex):
        raise InputError(f"{index.place}: lies in Milvus; for this an index folder is needed, as build_index writes it")
    return index


def open_index(path: str | Path, verify: Verify = "auto") -> ProductIndex:
    """Open a product index and check it.

    Args:
        path: the index folder.
        verify: "sizes" compares the sizes and both ends of all parts with the manifest; "full" their SHA-256 as well;
            "auto" is full below 2 GB, and above it checks the SHA-256 of the vectors alone, which FAISS would trust.

    Raises:
        IndexNotFoundError: there is no finished index.
        IndexMismatchError: it was written by another format version.
        IndexDamagedError: a part is missing, cut short or changed, or the parts' counts differ.
    """
    (folder, sha256), hold = hold_live(Path(path))
    manifest = read_manifest(folder, sha256)
    check_parts(folder, manifest["parts"], verify)
    store = ProductStore(folder / PRODUCTS)
    dense = DenseIndex.load(folder / VECTORS, manifest["dense"]["parameters"])
    titles = TitleTable.load(folder / TITLES)
    words = LexicalIndex.load(folder)
    counts = {
        "products": len(store),
        "vectors": len(dense),
        "titles": len(titles),
        "words": len(words),
        "manifest": manifest["count"],
    }
    if len(set(counts.values())) != 1 or dense.dimension != manifest["dimension"]:
        raise IndexDamagedError(
            f"{folder}: its parts do not belong together ({counts}, dimension {dense.dimension} "
            f"against {manifest['dimension']}); build the index anew"
        )
    try:
        confidence = Confidence.from_dict(read_json(folder / CONFIDENCE))
    except UNREADABLE as error:
        raise IndexDamagedError(f"{folder / CONFIDENCE}: not readable; build the index anew") from error
    return ProductIndex(folder, manifest, store, dense, titles, words, confidence, hold)


def read_manifest(folder: Path, sha256: str | None = None) -> dict[str, Any]:
    """The manifest of a generation, checked for its format version.

    Args:
        folder: the generation.
        sha256: of the manifest, where that is known.

    Raises:
        IndexDamagedError: it is missing, changed, or not what this program writes.
        IndexMismatchError: it has another format version.
    """
    path = folder / MANIFEST
    try:
        manifest = read_json(path)
        version = manifest["format_version"]
    except UNREADABLE as error:
        raise IndexDamagedError(f"{path}: not a readable manifest; build the index anew") from error
    if version != FORMAT_VERSION:
        raise IndexMismatchError(
            f"{folder.parent}: index format {version!r}, this ragqa reads format {FORMAT_VERSION}; build it anew: "
            f"python -m ragqa.build_index CATALOGUE --out {folder.parent}"
        )
    if sha256 is not None and sha256_of(path) != sha256:
        raise IndexDamagedError(f"{path}: changed since it was written; build the index anew")
    wanted = {"parts": dict, "count": int, "dimension": int, "embedder": dict, "dense": dict}
    wrong = [name for name, kind in wanted.items() if not isinstance(manifest.get(name), kind)]
    if "dense" not in wrong and not isinstance(manifest["dense"].get("parameters"), str):
        wrong.append("dense")
    if "embedder" not in wrong and not {"name", "weights_sha256", "config_sha256"} <= set(manifest["embedder"]):
        wrong.append("embedder")
    if wrong or not _whole_parts(manifest["parts"]):
        raise IndexDamagedError(f"{path}: {', '.join(wrong) or 'parts'} missing or wrong; build the index anew")
    return dict(manifest)


def content_hash(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """One hash over what answers depend on; the cleaning report, which holds a time, is left out."""
    named = "".join(f"{name}\0{parts[name]['sha256']}\n" for name in sorted(parts) if name != CLEANING)
    return hashlib.sha256(named.encode()).hexdigest()


def _whole_parts(parts: dict[str, Any]) -> bool:
    return set(PARTS) <= set(parts) and all(
        isinstance(part, dict) and isinstance(part.get("size"), int) and isinstance(part.get("sha256"), str)
        for part in parts.values()
    )


def check_parts(folder: Path, parts: Mapping[str, Any], verify: Verify) -> None:
    """Compare the parts in a folder with what a manifest says of them.

    Raises:
        IndexDamagedError: one is missing, cut short or changed.
    """
    for name in PARTS:
        path, size = folder / name, parts[name]["size"]
        if not path.is_file():
            raise IndexDamagedError(f"{path}: missing; build the index anew")
        if path.stat().st_size != size:
            raise IndexDamagedError(
                f"{path}: {path.stat().st_size:,} bytes where the manifest says {size:,}; build the index anew"
            )
        if parts[name].get("ends_sha256", ends := ends_sha256(path)) != ends:
            raise IndexDamagedError(f"{path}: {_CHANGED}")
    large = verify == "auto" and sum(parts[name]["size"] for name in PARTS) >= _FULL_BELOW
    # What FAISS reads it trusts.
    checked = () if verify == "sizes" else (VECTORS,) if large else PARTS
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda name: sha256_of(folder / name), checked)
        for name, sha256 in zip(checked, found, strict=True):
            if sha256 != parts[name]["sha256"]:
                raise IndexDamagedError(f"{folder / name}: {_CHANGED}")
