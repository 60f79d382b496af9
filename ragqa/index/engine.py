"""What does the two long works of a build, cleaning and embedding: this process, or others for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ragqa.catalogue.clean import CleaningReport
from ragqa.catalogue.export import clean_catalogue
from ragqa.catalogue.read import Catalogue
from ragqa.catalogue.store import ProductStore
from ragqa.files import sha256_of
from ragqa.index.blocks import Blocks
from ragqa.records import Product
from ragqa.retrieval.embed import Embedder
from ragqa.settings import CleaningSettings

Sink = Callable[[Sequence[Product]], None]


@dataclass(frozen=True, slots=True)
class Encoding:
    """By which model titles are embedded, for a process that has to load it by itself.

    Attributes:
        name: of the model: a Hub id or a local folder.
        device: where to compute, as the user asked for it.
        described: what the manifest says of it: hashes of its files, number format.
    """

    name: str
    device: str
    described: Mapping[str, Any]


class Engine(Protocol):
    """Cleans and embeds. Whatever does it, what comes of it is the same."""

    def sha256(self, files: Sequence[Path]) -> Iterable[str]:
        """SHA-256 of each file, in hexadecimal."""

    def clean(self, catalogue: Catalogue, settings: CleaningSettings, sink: Sink, limit: int | None) -> CleaningReport:
        """Clean a catalogue into `sink`, see `ragqa.catalogue.export.clean_catalogue`."""

    def blocks(self, folder: Path, store: ProductStore, dimension: int, build: str) -> Blocks:
        """Where vectors are written.

        Args:
            folder: of the unfinished build.
            store: the cleaned products.
            dimension: length of a vector.
            build: a word that tells this build from others, of another catalogue or embedder.
        """

    def embed(self, blocks: Blocks, store: ProductStore, encoder: Embedder, encoding: Encoding) -> None:
        """Embed the titles of all blocks that are not finished."""


class Local:
    """This process does it."""

    def sha256(self, files: Sequence[Path]) -> Iterable[str]:
        """One after the other."""
        return map(sha256_of, files)

    def clean(self, catalogue: Catalogue, settings: CleaningSettings, sink: Sink, limit: int | None) -> CleaningReport:
        """Row by row."""
        return clean_catalogue(catalogue, settings, sink, limit)

    def blocks(self, folder: Path, store: ProductStore, dimension: int, build: str) -> Blocks:  # noqa: ARG002
        """In the folder of the build, which tells by itself whose they are."""
        return Blocks(folder, len(store), dimension)

    def embed(self, blocks: Blocks, store: ProductStore, encoder: Embedder, encoding: Encoding) -> None:  # noqa: ARG002
        """By the encoder that is loaded."""
        blocks.embed(store, encoder)
