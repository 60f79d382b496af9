"""A catalogue in Milvus, opened: all that answering needs comes from its address."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ragqa.errors import IndexDamagedError, IndexMismatchError, IndexNotFoundError
from ragqa.index.storage import Verify
from ragqa.milvus import layout
from ragqa.milvus.address import Address
from ragqa.milvus.connection import Connection
from ragqa.milvus.load import count_of, id_hash, note
from ragqa.milvus.searcher import MilvusSearcher
from ragqa.milvus.vocabulary import Vocabulary
from ragqa.records import Product
from ragqa.retrieval.confidence import Confidence
from ragqa.retrieval.embed import Embedder
from ragqa.retrieval.retriever import Retriever

_WANTED = {"count": int, "dimension": int, "embedder": dict, "dense": dict, "confidence": dict}
_HASHES = {"name", "weights_sha256", "config_sha256"}


@dataclass(frozen=True, slots=True)
class MilvusIndex:
    """A catalogue's live collection, as it was when it was opened.

    Attributes:
        manifest: what the build noted.
        confidence: the model behind `Answer.confidence`.
        name: the collection.
    """

    manifest: Mapping[str, Any]
    confidence: Confidence
    name: str
    connection: Connection

    @classmethod
    def open(cls, address: str | Address) -> Self:
        """Open a catalogue and check it.

        Raises:
            InputError: the address cannot be read.
            MissingDependencyError: pymilvus is not installed.
            MilvusError: Milvus cannot be reached, or refuses.
            IndexNotFoundError: it has no such catalogue, or none that was loaded to its end.
            IndexMismatchError: another format version wrote it.
            IndexDamagedError: its manifest is not readable, or products are missing.
        """
        address = address if isinstance(address, Address) else Address.parse(address)
        connection = Connection(address)
        name = connection.aliased()
        if name is None:
            raise _not_found(connection)
        manifest = _manifest(connection, f"{name}_words")
        if (kept := count_of(connection, name)) < manifest["count"]:
            raise IndexDamagedError(
                f"{address.shown}: has {kept:,} of its {manifest['count']:,} products; build it anew: {_build(address)}"
            )
        return cls(manifest, Confidence.from_dict(manifest["confidence"]), name, connection)

    def __len__(self) -> int:
        return int(self.manifest["count"])

    @property
    def place(self) -> str:
        """Its address, as it may be printed."""
        return self.connection.address.shown

    def retriever(self, embedder: Embedder) -> Retriever:
        """What finds its products; with the encoder that made its vectors."""
        return Retriever(self._searcher(), embedder, self.confidence)

    def find(self, id_: str) -> Product | None:
        """The product with this id, None if there is none; the first of several."""
        return self._searcher().with_id(id_, id_hash(id_))

    def newer(self, verify: Verify = "auto") -> Self | None:  # noqa: ARG002  (Milvus checks its own files)
        """What a build has made the live collection since; None where there is none."""
        return None if self.connection.aliased() == self.name else self.open(self.connection.address)

    def use(self, device: str) -> None:
        """Milvus computes where it was set up to."""

    def close(self) -> None:
        """The connection is shared with those to the same Milvus, and stays."""

    def _searcher(self) -> MilvusSearcher:
        words = Vocabulary(self.connection, f"{self.name}_words", len(self))
        return MilvusSearcher(self.connection, self.name, words, len(self), self.manifest["dense"])


def _manifest(connection: Connection, words: str) -> dict[str, Any]:
    address = connection.address
    try:
        text = note(connection, words, layout.MANIFEST)
    except IndexNotFoundError:
        text = None
    if text is None:
        raise _half_loaded(address)
    try:
        manifest: dict[str, Any] = json.loads(text)
        version = manifest["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise IndexDamagedError(f"{address.shown}: its manifest is not readable; {_build(address)}") from error
    if version != layout.FORMAT_VERSION:
        raise IndexMismatchError(
            f"{address.shown}: format {version!r} in Milvus, this ragqa reads format {layout.FORMAT_VERSION}; build it anew: "
            f"{_build(address)}"
        )
    wrong = [field for field, kind in _WANTED.items() if not isinstance(manifest.get(field), kind)]
    if "embedder" not in wrong and not set(manifest["embedder"]) >= _HASHES:
        wrong.append("embedder")
    if wrong:
        raise IndexDamagedError(
            f"{address.shown}: its manifest lacks {', '.join(wrong)}; build it anew: {_build(address)}"
        )
    return manifest


def _not_found(connection: Connection) -> IndexNotFoundError:
    address = connection.address
    # A killed load has left collections, and no alias.
    if any(layout.is_collection_of(address.name, other) for other in connection.call("list_collections")):
        return _half_loaded(address)
    return IndexNotFoundError(f"{address.shown}: no such catalogue in this Milvus; build it: {_build(address)}")


def _half_loaded(address: Address) -> IndexNotFoundError:
    return IndexNotFoundError(
        f"{address.shown}: was not loaded to its end; the same command goes on with it: {_build(address)}"
    )


def _build(address: Address) -> str:
    return f"python -m ragqa.build_index CATALOGUE --store milvus --uri {address.shown}"
