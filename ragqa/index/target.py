"""What a build hands over when a catalogue is cleaned and embedded, and what takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ragqa.catalogue.store import ProductStore
from ragqa.index.blocks import Blocks
from ragqa.progress import StageClock
from ragqa.retrieval.embed import SentenceEmbedder


@dataclass(frozen=True, slots=True)
class Embedded:
    """A catalogue, cleaned and embedded, in the folder of an unfinished build.

    Attributes:
        generation: where its products are, and the report of their cleaning.
        store: the products.
        blocks: unit vectors of their titles.
        encoder: what made them.
        embedded_by: what the manifest says of it.
        about: what the manifest says of the catalogue, how it was cleaned, and the seed.
        seed: of questions that are made.
        clock: is told of the stages.
    """

    generation: Path
    store: ProductStore
    blocks: Blocks
    encoder: SentenceEmbedder
    embedded_by: Mapping[str, Any]
    about: Mapping[str, Any]
    seed: int
    clock: StageClock


class Target(Protocol):
    """Where what was embedded goes: a folder on this machine, or a server."""

    def check(self, dimension: int) -> None:
        """Refuse what cannot be, before anything is read."""

    def plan(self, count: int, encoder: SentenceEmbedder) -> None:
        """Refuse what cannot be, and say what it will take, before so many titles are embedded."""

    def write(self, made: Embedded) -> None:
        """Take it, whole or not at all."""
