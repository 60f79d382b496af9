"""Loading a catalogue into Milvus: partition by partition, then the words, the indexes, the confidence; the alias last.

A load that was killed, or whose connection was lost, leaves a collection that nobody reads. The same command goes on with it
after the last whole partition; another one drops it.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc
import xxhash

from ragqa.catalogue.store import ProductStore
from ragqa.errors import InputError, MilvusError
from ragqa.milvus import layout
from ragqa.milvus.connection import PATIENCE, Connection, import_pymilvus
from ragqa.milvus.searcher import MilvusSearcher
from ragqa.milvus.vocabulary import Vocabulary
from ragqa.progress import progress_bar, say
from ragqa.records import Product
from ragqa.retrieval.confidence import Confidence
from ragqa.retrieval.embed import Vectors
from ragqa.retrieval.terms import terms
from ragqa.retrieval.titles import title_hash
from ragqa.versions import installed_versions

# Rows of a partition at least; Milvus takes 1,024 partitions.
_PARTITION: Final = 65_536
_MOST_PARTITIONS: Final = 1000
# Rows and bytes of text of one request; with their vectors some megabytes, where Milvus takes 64.
_ROWS: Final = 1000
_BYTES: Final = 8_000_000
_WORDS: Final = 5000
# How often a partition is begun anew whose connection was lost.
_ATTEMPTS: Final = 3
_PACKAGES: Final = ("pymilvus", "milvus-lite", "sentence-transformers", "transformers", "torch", "numpy", "pyarrow")

Fit = Callable[[MilvusSearcher], Confidence]


@dataclass(frozen=True, slots=True)
class Contents:
    """What is loaded.

    Attributes:
        store: the products.
        vectors: unit vectors (n, dimension) of their titles, block by block in the order of their rows.
        dimension: length of a vector.
        about: for the manifest: catalogue, embedder, cleaning and the like.
        key: hash of what all of this depends on, twelve hexadecimal digits.
    """

    store: ProductStore
    vectors: Iterable[Vectors]
    dimension: int
    about: Mapping[str, Any]
    key: str


def load(connection: Connection, contents: Contents, recipe: str, fit: Fit) -> str:
    """Load a catalogue, or go on with it, and make it the live one; gives back its collection.

    Args:
        connection: to Milvus; its address names the catalogue.
        contents: what is loaded.
        recipe: see `layout.dense_index`.
        fit: fits the confidence on what was loaded.

    Raises:
        InputError: the name is taken by something else, a text is too long, or there is no such recipe.
        MilvusError: Milvus cannot be reached, refuses, or has not kept all rows.
    """
    dense = layout.dense_index(recipe, len(contents.store))
    before = check_name(connection)
    _check_lengths(contents.store)
    work = _Load(connection, contents, dense)
    if work.is_whole():
        say(f"{connection.address.shown}: these products are there already, in {work.products}")
    else:
        work.fill()
        work.finish(fit)
    _publish(connection, before, work.products)
    return work.products


def check_name(connection: Connection) -> str | None:
    """The live collection of a catalogue; None where there is none.

    Raises:
        InputError: the name is taken by something else.
    """
    name, live = connection.address.name, connection.aliased()
    if (live and not layout.is_collection_of(name, live)) or (live is None and connection.has(name)):
        raise InputError(
            f"{connection.address.shown}: in this Milvus {name!r} is something else, which is left alone; choose another name"
        )
    return live


def note(connection: Connection, words: str, key: str) -> str | None:
    """What is noted under a key in a collection of words; None where nothing is."""
    fields = {"output_fields": ["text"], "consistency_level": "Strong"}
    rows = connection.read("query", words, filter=f'key == "{key}"', **fields)
    return next((str(row["text"]) for row in rows), None)


@dataclass(slots=True)
class _Counted:
    """How many titles and descriptions have each word."""

    titles: Counter[str] = field(default_factory=Counter)
    descriptions: Counter[str] = field(default_factory=Counter)

    def add(self, title: Sequence[str], description: Sequence[str]) -> None:
        """Count a product's."""
        self.titles.update(set(title))
        self.descriptions.update(set(description))

    def merge(self, other: _Counted) -> None:
        """Count what was counted elsewhere."""
        self.titles.update(other.titles)
        self.descriptions.update(other.descriptions)


class _Load:
    """One load.

    Attributes:
        products, words: the names of its collections.
    """

    def __init__(self, connection: Connection, contents: Contents, dense: dict[str, Any]) -> None:
        self._connection, self._contents, self._dense = connection, contents, dense
        self.products, self.words = layout.collections_of(connection.address.name, contents.key)
        self._milvus = import_pymilvus()
        self._counted = _Counted()
        self._count = len(contents.store)
        self._size = max(_PARTITION, -(-self._count // _MOST_PARTITIONS))
        self._begun = time.perf_counter()

    def is_whole(self) -> bool:
        """Whether all of it was loaded before."""
        if not (self._connection.has(self.words) and self._connection.has(self.products)):
            return False
        return note(self._connection, self.words, layout.MANIFEST) is not None

    def fill(self) -> None:
        """Load the products, partition by partition, and count their words."""
        done = self._begin()
        with progress_bar("loading", self._count, "products") as bar:
            for number, start, blocks in self._partitions():
                stop = start + sum(len(block) for block in blocks)
                if number in done:
                    for product in self._read(start, stop):
                        self._counted.add(terms(product.title), terms(product.description))
                    bar.update(stop - start)
                    bar.unpause()
                    continue
                self._load_partition(number, start, blocks, bar.update)
                self._note(f"#part-{number}", stop - start)

    def finish(self, fit: Fit) -> None:
        """Load the words, have all indexed, see that nothing is lost, fit the confidence, and write the manifest."""
        call = self._connection.call
        titles, descriptions = self._counted.titles, self._counted.descriptions
        words = titles.keys() | descriptions.keys()
        with progress_bar("words", len(words), "words") as bar:
            for part in _chunks(sorted(words), _WORDS):
                rows = [layout.word_row(word, titles[word], descriptions[word]) for word in part]
                call("upsert", self.words, rows, timeout=PATIENCE)
                bar.update(len(part))
        say("Milvus indexes and loads what it has")
        for collection in (self.words, self.products):
            call("flush", collection, timeout=PATIENCE)
        if not call("list_indexes", self.products):
            indexes = layout.products_indexes(self._milvus, self._dense)
            call("create_index", self.products, indexes, timeout=PATIENCE)
        call("load_collection", self.products, timeout=PATIENCE)
        kept = count_of(self._connection, self.products)
        if kept < self._count:
            _drop(self._connection, self.products)
            raise MilvusError(
                f"{self._connection.address.shown}: Milvus has kept {kept:,} of {self._count:,} products; they were taken "
                "away, and nobody reads them; run the same command again"
            )
        vocabulary = Vocabulary(self._connection, self.words, self._count)
        searcher = MilvusSearcher(self._connection, self.products, vocabulary, self._count, self._dense)
        loaded = time.perf_counter() - self._begun
        confidence = fit(searcher)
        self._note(layout.MANIFEST, self._manifest(confidence, loaded))
        call("flush", self.words, timeout=PATIENCE)

    def _manifest(self, confidence: Confidence, loaded: float) -> dict[str, Any]:
        return {
            "format_version": layout.FORMAT_VERSION,
            "kind": "ragqa products in Milvus",
            **self._contents.about,
            "count": self._count,
            "dimension": self._contents.dimension,
            "dense": self._dense,
            "confidence": confidence.to_dict(),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": {"load": round(loaded, 3), "total": round(time.perf_counter() - self._begun, 3)},
            "versions": installed_versions(_PACKAGES) | {"milvus": str(self._connection.call("get_server_version"))},
        }

    def _begin(self) -> set[int]:
        """Make the collections, unless a killed load has; the partitions that it finished."""
        connection, call = self._connection, self._connection.call
        plan = {"partition": self._size, "count": self._count, "format_version": layout.FORMAT_VERSION}
        there = connection.has(self.words) and connection.has(self.products)
        if there and note(connection, self.words, layout.LOAD) == layout.note_row("", plan)["text"]:
            say(f"going on with the interrupted load into {self.products}")
            done = {"output_fields": ["key"], "consistency_level": "Strong"}
            rows = connection.read("query", self.words, filter='key like "#part-%"', **done)
            return {int(row["key"].removeprefix("#part-")) for row in rows}
        _drop(connection, self.products)
        bounded: dict[str, Any] = {"consistency_level": "Bounded", "timeout": PATIENCE}
        call(
            "create_collection",
            self.products,
            schema=layout.products_schema(self._milvus, self._contents.dimension),
            **bounded,
        )
        of_words: dict[str, Any] = {"index_params": layout.words_indexes(self._milvus), **bounded}
        call("create_collection", self.words, schema=layout.words_schema(self._milvus), **of_words)
        call("load_collection", self.words, timeout=PATIENCE)
        self._note(layout.LOAD, plan)
        return set()

    def _note(self, key: str, value: Any) -> None:
        self._connection.call("upsert", self.words, [layout.note_row(key, value)], timeout=PATIENCE)

    def _partitions(self) -> Iterator[tuple[int, int, list[Vectors]]]:
        """Each partition's number, its first row and its vectors."""
        number, held, blocks = 0, 0, list[Vectors]()
        for block in self._contents.vectors:
            while len(block):
                taken = block[: self._size - held]
                blocks.append(taken)
                held, block = held + len(taken), block[len(taken) :]
                if held == self._size:
                    yield number, number * self._size, blocks
                    number, held, blocks = number + 1, 0, []
        if blocks:
            yield number, number * self._size, blocks

    def _load_partition(self, number: int, start: int, blocks: Sequence[Vectors], done: Callable[[int], Any]) -> None:
        call, name = self._connection.call, f"p{number:04d}"
        for attempt in range(1, _ATTEMPTS + 1):
            # What a killed load, or the last attempt, has left in it.
            if call("has_partition", self.products, name):
                with contextlib.suppress(MilvusError):
                    call("release_collection", self.products)
                call("drop_partition", self.products, name)
            call("create_partition", self.products, name)
            counted = _Counted()
            try:
                for rows in self._rows(start, blocks, counted):
                    call("insert", self.products, rows, partition_name=name, timeout=PATIENCE, again=False)
                    done(len(rows) if attempt == 1 else 0)
                break
            except MilvusError as error:
                if attempt == _ATTEMPTS:
                    raise
                say(f"partition {name} is begun anew ({error})")
        self._counted.merge(counted)

    def _rows(self, start: int, blocks: Sequence[Vectors], counted: _Counted) -> Iterator[list[dict[str, Any]]]:
        """The rows of a partition, as many at once as one request takes."""
        waiting, held = list[dict[str, Any]](), 0
        for block in blocks:
            for row, (product, vector) in enumerate(
                zip(self._read(start, start + len(block)), block, strict=True), start
            ):
                entity = _entity(row, product, counted) | {layout.VECTOR: vector}
                waiting.append(entity)
                held += len(entity["description"]) + len(entity["title"])
                if len(waiting) == _ROWS or held > _BYTES:
                    yield waiting
                    waiting, held = [], 0
            start += len(block)
        if waiting:
            yield waiting

    def _read(self, start: int, stop: int) -> list[Product]:
        columns = (self._contents.store.column(name, start, stop) for name in ("id", "title", "description"))
        return [Product(*texts) for texts in zip(*columns, strict=True)]


def count_of(connection: Connection, collection: str) -> int:
    """How many products a collection has."""
    answer = connection.read("query", collection, filter="", output_fields=["count(*)"], consistency_level="Strong")
    return int(answer[0]["count(*)"])


def _entity(row: int, product: Product, counted: _Counted) -> dict[str, Any]:
    title, description = terms(product.title), terms(product.description)
    counted.add(title, description)
    return {
        "row": row,
        "id": product.id,
        "title": product.title,
        "description": product.description,
        "title_hash": layout.signed(title_hash(product.title)),
        "id_hash": layout.signed(id_hash(product.id)),
        layout.TITLE_WORDS: layout.joined(title),
        layout.DESCRIPTION_WORDS: layout.joined(description),
    }


def _check_lengths(store: ProductStore) -> None:
    """Refuse texts that Milvus would, before anything is loaded."""
    for start, batch in store.batches():
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            sizes = np.asarray(pc.binary_length(column))
            if len(sizes) and sizes.max() > layout.LONGEST:
                product = store[start + int(sizes.argmax())]
                raise InputError(
                    f"product {product.id[:80]!r}: its {name} has {sizes.max():,} bytes, Milvus takes {layout.LONGEST:,}; "
                    "cut longer ones with --max-title-chars 16000 and --max-description-chars 16000"
                )


def id_hash(id_: str) -> int:
    """64-bit hash of a product's id."""
    return xxhash.xxh3_64_intdigest(id_.encode("utf-8", "replace"))


def _publish(connection: Connection, before: str | None, products: str) -> None:
    """Make a collection the live one; of the others keep the one that was live before."""
    name = connection.address.name
    if before != products:
        connection.call("create_alias" if before is None else "alter_alias", products, name)
    for other in connection.call("list_collections"):
        first = other.removesuffix("_words")
        if layout.is_collection_of(name, first) and first not in (before, products):
            _drop(connection, first)


def _drop(connection: Connection, products: str) -> None:
    for collection in (products, f"{products}_words"):
        if connection.has(collection):
            connection.call("drop_collection", collection, timeout=PATIENCE)


def _chunks(words: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (words[start : start + size] for start in range(0, len(words), size))
