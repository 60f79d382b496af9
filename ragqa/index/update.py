"""Updating an index: a new catalogue -> what it changes -> a new generation, of which only the changes are computed.

Only titles that no product had before are embedded. All else is carried over: rows that stay keep their order and come
first, then the changed and the added products in the order of the catalogue. The parts are those that a build would
write of the same products in that order, but for the number format of vectors that were embedded in other batches, and
for what is kept as it was fitted or trained when the index was built: the confidence and the lists of a FAISS index.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from ragqa.catalogue.clean import CleaningReport
from ragqa.catalogue.columns import ReadOptions
from ragqa.catalogue.export import clean_catalogue
from ragqa.catalogue.read import Catalogue
from ragqa.catalogue.store import ProductStore, StoreWriter
from ragqa.errors import IndexDamagedError, InputError
from ragqa.files import HashingFile, copy_file, storage_errors, write_json
from ragqa.index.changes import Changes, Comparison
from ragqa.index.embedder import own_embedder
from ragqa.index.generations import MANIFEST, live_generation, publish
from ragqa.index.lock import writing_lock
from ragqa.index.quantise import FORMAT
from ragqa.index.storage import (
    CLEANING,
    CONFIDENCE,
    PACKAGES,
    PRODUCTS,
    TITLES,
    VECTORS,
    ProductIndex,
    content_hash,
    open_index,
)
from ragqa.progress import StageClock, progress_bar, say
from ragqa.retrieval.embed import Embedder, Vectors
from ragqa.retrieval.lexical import write_lexical
from ragqa.settings import CleaningSettings
from ragqa.versions import installed_versions

_WORK: Final = ".partial-update"
_BLOCK: Final = 8192
# When an index has grown to so many times the products it had when all its words were last read, they are read again:
# words left out as too common then need not be so any more.
_GROWN: Final = 2


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """What an update did.

    Attributes:
        count: number of products the index has now.
        added, changed, deleted, unchanged: numbers of products. If the first three are 0, no new generation was written.
        embedded: number of titles that were embedded; a product whose title some product had before takes its vector.
        seconds: by stage: "check", "clean", "embed", "write", "words", "total".
    """

    count: int
    added: int
    changed: int
    deleted: int
    unchanged: int
    embedded: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary of all fields."""
        return asdict(self)


def update_index(
    path: str | Path,
    source: Any,
    *,
    embedder: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    options: ReadOptions | None = None,
    limit: int | None = None,
    allow_deletions: bool = False,
) -> UpdateReport:
    """Make an index that of a new catalogue, by way of what differs.

    Readers see the old index until the new generation is whole. Interrupted, nothing is changed, and the same call
    begins anew.

    Args:
        path: the index folder.
        source: the whole new catalogue, as `build_index` takes it; what is not in it is deleted, also what is not in it
            because its row is malformed and skipped. It is cleaned as the index was.
        embedder: where the encoder that built the index lies now; None takes it by its name.
        device, dtype: where and in which number format new titles are embedded; "auto" takes the index's own format.
        options: columns, encoding, what to do with malformed rows.
        limit: take only this many products; None takes the limit that the index was built with, if it was.
        allow_deletions: delete more than half of the products, too.

    Raises:
        InputError: the catalogue cannot be used, or more than half of the products are not in it.
        IndexNotFoundError, IndexMismatchError, IndexDamagedError: the index cannot be used.
        ModelError: the embedder cannot be found or loaded.
        StorageError, BusyError: the folder cannot be written, or another process is writing there.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit must be at least 1, not {limit}")
    clock = StageClock()
    path = Path(path)
    catalogue = Catalogue(source, options)
    live_generation(path)  # or the lock would make a folder
    with writing_lock(path):
        work = path / _WORK
        with storage_errors(work):
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
        try:
            # In full: a damaged part must not be carried over into a generation whose hashes are right.
            old = open_index(path, verify="full")
            with closing(old.store):
                clock.stage("check")
                return _update(path, work, old, catalogue, (embedder, device, dtype), limit, allow_deletions, clock)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _update(
    path: Path,
    work: Path,
    old: ProductIndex,
    catalogue: Catalogue,
    encoder: tuple[str | None, str, str],
    limit: int | None,
    allow_deletions: bool,
    clock: StageClock,
) -> UpdateReport:
    manifest = old.manifest
    if limit is None and (limit := manifest.get("limit")) is not None:
        say(f"{path} was built with --limit {limit}: of this catalogue, too, the first {limit:,} products are taken")
    with StoreWriter(work / PRODUCTS) as writer:
        comparison = Comparison(old.store, writer)
        cleaning = clean_catalogue(catalogue, _cleaning(old), comparison.add, limit)
    say(cleaning.table())
    clock.stage("clean")
    changes = comparison.changes()
    say(
        f"{changes.added:,} products added, {changes.changed:,} changed, {changes.deleted:,} deleted, "
        f"{changes.unchanged:,} unchanged"
    )
    if not allow_deletions:
        _check_deletions(changes, len(old), cleaning, manifest)
    numbers = (changes.added, changes.changed, changes.deleted, changes.unchanged)
    if not changes:
        return UpdateReport(len(old), *numbers, 0, clock.seconds())
    fresh = ProductStore(work / PRODUCTS)
    with closing(fresh):
        vectors, embedded = _vectors(fresh, old, lambda: _own_encoder(old, path, *encoder))
        clock.stage("embed")
        generation = work / "generation"
        parts = {CLEANING: _part(write_json(generation / CLEANING, cleaning.to_dict()))}
        parts |= _write_rows(generation, old, changes, fresh, vectors)
        clock.stage("write")
        words_of = _write_words(generation, old, changes, fresh, parts)
        clock.stage("words")
    count = changes.unchanged + len(vectors)
    report = UpdateReport(count, *numbers, embedded, clock.seconds())
    before = manifest.get("updated", {})
    publish(
        path,
        generation,
        {
            **manifest,
            "catalogue": {
                "name": catalogue.name,
                "sha256": catalogue.fingerprint(),
                "columns": cleaning.columns,
            },
            "count": count,
            "dense": {**manifest["dense"], "bytes": parts[VECTORS]["size"]},
            "limit": limit,
            "parts": parts,
            "content_sha256": content_hash(parts),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": installed_versions(PACKAGES),
            "updated": report.to_dict() | {"times": before.get("times", 0) + 1, "words_of": words_of},
        },
    )
    return report


def _cleaning(old: ProductIndex) -> CleaningSettings:
    try:
        return CleaningSettings.from_dict(old.manifest["cleaning"])
    except (InputError, KeyError, TypeError) as error:
        raise IndexDamagedError(f"{old.folder / MANIFEST}: cleaning missing or wrong; build the index anew") from error


def _check_deletions(changes: Changes, count: int, cleaning: CleaningReport, manifest: Mapping[str, Any]) -> None:
    """Refuse to delete most of an index: what was given is more likely a part of a catalogue, or read by another id."""
    if changes.deleted * 2 <= count:
        return
    before = manifest["catalogue"].get("columns")
    columns = "" if before == cleaning.columns else f" (its columns: {cleaning.columns}; the index's: {before})"
    raise InputError(
        f"{cleaning.source}: {changes.deleted:,} of the index's {count:,} products are not in it{columns}, and nothing was "
        "changed; give the whole catalogue, or --allow-deletions if it is whole"
    )


def _own_encoder(old: ProductIndex, path: Path, embedder: str | None, device: str, dtype: str) -> Embedder:
    dtype = old.manifest["embedder"].get("dtype", dtype) if dtype == "auto" else dtype
    if dtype == FORMAT:  # made for a whole catalogue; a few titles are embedded as questions are
        dtype = "auto"
    encoder, source = own_embedder(old, path, embedder, device, dtype)
    say(f"embedder {source}, {encoder.device}, {encoder.dtype}")
    return encoder


def _vectors(fresh: ProductStore, old: ProductIndex, encoder: Callable[[], Embedder]) -> tuple[Vectors, int]:
    """The vectors of the products that are new or changed, (len(fresh), dimension), and how many were embedded.

    The encoder is loaded only if there is a title that no product of the index had.
    """
    vectors = np.empty((len(fresh), old.dense.dimension), np.float32)
    titles = fresh.column("title", 0, len(fresh))
    known = np.fromiter((_row_of(title, old) for title in titles), np.int64, len(titles))
    new = np.flatnonzero(known < 0)
    carried = np.flatnonzero(known >= 0)
    for start in range(0, len(carried), _BLOCK):
        rows = carried[start : start + _BLOCK]
        vectors[rows] = old.dense.vectors(known[rows])
    if len(new):
        embed = encoder().embed_titles
        with progress_bar("embedding", len(new), "titles") as bar:
            for start in range(0, len(new), _BLOCK):
                rows = new[start : start + _BLOCK]
                vectors[rows] = embed([titles[row] for row in rows.tolist()], bar.update)
    return vectors, len(new)


def _row_of(title: str, old: ProductIndex) -> int:
    """The first row of the index with this very title, or -1."""
    return next((row for row in old.titles.rows(title) if old.store.column("title", row, row + 1) == [title]), -1)


def _write_rows(
    generation: Path, old: ProductIndex, changes: Changes, fresh: ProductStore, vectors: Vectors
) -> dict[str, dict[str, Any]]:
    """Write products, vectors, titles and the confidence as it was."""
    with StoreWriter(generation / PRODUCTS) as writer:
        writer.copy(old.store, changes.kept)
        writer.copy(fresh, np.arange(len(fresh)))
    with HashingFile(generation / VECTORS) as dense:
        deterministic = bool(old.manifest["dense"].get("deterministic", False))
        old.dense.updated(changes.kept, vectors, deterministic).save(dense)
    with HashingFile(generation / TITLES) as titles:
        old.titles.updated(changes.kept, fresh.column("title", 0, len(fresh))).save(titles)
    with storage_errors(generation):
        copy_file(old.folder / CONFIDENCE, generation / CONFIDENCE)
    parts = {name: _of(file) for name, file in ((PRODUCTS, writer.file), (VECTORS, dense), (TITLES, titles))}
    return parts | {CONFIDENCE: old.manifest["parts"][CONFIDENCE]}


def _write_words(
    generation: Path, old: ProductIndex, changes: Changes, fresh: ProductStore, parts: dict[str, dict[str, Any]]
) -> int:
    """Write the lexical index; returns how many products there were when all words were last read."""
    scratch = generation.parent / "words"
    words_of = int(old.manifest.get("updated", {}).get("words_of", len(old)))
    count = changes.unchanged + len(fresh)
    anew = count > _GROWN * words_of
    with closing(ProductStore(generation / PRODUCTS)) as all_products:
        products = all_products if anew else fresh
        with progress_bar("words", len(products), "products") as bar:
            if anew:
                files = write_lexical(products, generation, scratch, bar.update)
            else:
                files = write_lexical(products, generation, scratch, bar.update, old.words, changes.kept)
    parts |= {name: _of(file) for name, file in files.items()}
    return count if anew else words_of


def _of(file: HashingFile) -> dict[str, Any]:
    return _part((file.size, file.sha256))


def _part(written: tuple[int, str]) -> dict[str, Any]:
    return {"size": written[0], "sha256": written[1]}
