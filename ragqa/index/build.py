"""Building an index: catalogue -> cleaned products -> title embeddings -> FAISS -> a new generation.

The work stands in ``.partial`` until it is whole. Embeddings are written a block at a time; a build that
was interrupted goes on after the last whole block, if catalogue, settings and embedder are the same.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from pathlib import Path
from typing import Any, Final

from ragqa import models
from ragqa.catalogue.clean import CleaningReport
from ragqa.catalogue.columns import ReadOptions
from ragqa.catalogue.read import Catalogue
from ragqa.catalogue.store import ProductStore, StoreWriter
from ragqa.errors import InputError
from ragqa.files import storage_errors, write_json
from ragqa.index.engine import Encoding, Engine, Local
from ragqa.index.folder import Folder, cleaned
from ragqa.index.generations import CURRENT
from ragqa.index.lock import writing_lock
from ragqa.index.quantise import FORMAT, check, quantised, usual_format
from ragqa.index.recipe import Budgets
from ragqa.index.storage import (
    CLEANING,
    FORMAT_VERSION,
    PACKAGES,
    PRODUCTS,
    ProductIndex,
    open_index,
)
from ragqa.index.target import Embedded, Target
from ragqa.json_files import read_json
from ragqa.progress import StageClock, say
from ragqa.retrieval.embed import Embedder, SentenceEmbedder
from ragqa.seals import digest
from ragqa.settings import CleaningSettings
from ragqa.versions import installed_versions

_KEY: Final = "key.json"
_GENERATION: Final = "generation"


def build_index(
    source: Any,
    out: str | Path,
    *,
    embedder: str = models.DEFAULT_EMBEDDER,
    device: str = "auto",
    dtype: str = "auto",
    options: ReadOptions | None = None,
    cleaning: CleaningSettings | None = None,
    limit: int | None = None,
    seed: int = 0,
    recipe: str = "auto",
    budgets: Budgets | None = None,
    deterministic: bool = False,
    engine: Engine | None = None,
) -> ProductIndex:
    """Build a product index, or go on with one that was interrupted.

    Args:
        source: a path, a Hub data set's name, a `datasets` data set, or an iterable of mappings.
        out: the index folder, for example ``indexes/demo``. Readers see the old index until the new one
            is whole.
        embedder: a sentence-transformers model: a Hub id or a local folder.
        device, dtype: where and in which number format titles are embedded; besides those of `ragqa.models.choose_dtype`
            there is "int8", for BERT encoders on a CPU, see `ragqa.retrieval.int8`. Its loss is in the manifest.
        options: columns, encoding, what to do with malformed rows.
        cleaning: how texts are cleaned.
        limit: take only this many products.
        seed: chooses the questions on which search is tuned and the confidence fitted, and what FAISS is trained on.
        recipe: the FAISS index: "auto", a name in `ragqa.index.recipe.RECIPES`, or a factory string. Another one may be
            taken when an interrupted build goes on.
        budgets: what it may take and must find.
        deterministic: add vectors to graphs by one thread, and choose search parameters by what they make it look at
            instead of the clock, so that the same build gives the same index on the same machine. With up to 20,000
            products it is always so.
        engine: what cleans and embeds; None is this process, `ragqa.cluster.engine.RayEngine` has Ray do it.

    Returns:
        The index, opened.

    Raises:
        InputError: the catalogue cannot be used, or the budgets cannot be kept.
        ModelError: the embedder cannot be found or loaded, or not in this format.
        MissingDependencyError: what the format needs is not installed.
        StorageError, BusyError: `out` cannot be written, or another process is writing there.
    """
    folder = Folder(Path(out), recipe, budgets or Budgets(), deterministic)
    build_into(
        folder,
        source,
        out,
        embedder=embedder,
        device=device,
        dtype=dtype,
        options=options,
        cleaning=cleaning,
        limit=limit,
        seed=seed,
        engine=engine,
    )
    return open_index(out, verify="sizes")


def build_into(
    target: Target,
    source: Any,
    out: str | Path,
    *,
    embedder: str = models.DEFAULT_EMBEDDER,
    device: str = "auto",
    dtype: str = "auto",
    options: ReadOptions | None = None,
    cleaning: CleaningSettings | None = None,
    limit: int | None = None,
    seed: int = 0,
    engine: Engine | None = None,
) -> None:
    """Clean and embed a catalogue, or go on with it, and hand it to a target.

    Args:
        target: takes it.
        out: a folder, in which the unfinished build stands.
        source, embedder, device, dtype, options, cleaning, limit, seed, engine: see `build_index`.

    Raises:
        RagqaError: see `build_index`, and what the target raises.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit must be at least 1, not {limit}")
    clock = StageClock()
    path = Path(out)
    settings = cleaning or CleaningSettings()
    catalogue = Catalogue(source, options)
    model, model_source = models.load_embedder(embedder, device, usual_format(dtype, device))
    encoder = SentenceEmbedder(model)
    in_format = FORMAT if dtype == FORMAT else encoder.dtype
    engine = engine or Local()
    if in_format == FORMAT:
        if not isinstance(engine, Local):
            raise InputError("--dtype int8 is made and used on one machine; leave it out, or leave --engine out")
        check(encoder)
    say(f"embedder {model_source}, {encoder.device}, {in_format}")
    target.check(encoder.dimension)
    new = not path.exists()
    with writing_lock(path):
        try:
            partial = path / ".partial"
            embedded_by = model_source.to_dict() | {"dtype": in_format, "fused": encoder.bert is not None}
            key = {
                "format_version": FORMAT_VERSION,
                "cleaning": settings.to_dict(),
                "options": _options_key(catalogue.options),
                "embedder": embedded_by,
                "limit": limit,
                "catalogue": catalogue.fingerprint(engine.sha256),
                "versions": installed_versions(PACKAGES),
            }
            clock.stage("start")
            report = _clean(engine, catalogue, settings, partial, key, limit)
            clock.stage("clean")
            generation = partial / _GENERATION
            store = ProductStore(generation / PRODUCTS)
            target.plan(len(store), encoder)
            blocks = engine.blocks(partial, store, encoder.dimension, _build(key))
            embedding: Embedder = encoder
            if in_format == FORMAT:
                embedding, loss = quantised(embedder, encoder, store, partial, seed)
                embedded_by = embedded_by | {"loss": loss.to_dict()}
            engine.embed(blocks, store, embedding, Encoding(embedder, device, embedded_by))
            clock.stage("embed")
            about = {
                "catalogue": {
                    "name": catalogue.name,
                    "sha256": key["catalogue"],
                    "columns": report["columns"],
                },
                "cleaning": settings.to_dict(),
                "limit": limit,
                "seed": seed,
                "versions": key["versions"],
            }
            target.write(Embedded(generation, store, blocks, encoder, embedded_by, about, seed, clock))
            shutil.rmtree(partial, ignore_errors=True)
        except BaseException:
            if new:
                _leave_no_trace(path)
            raise


def _options_key(options: ReadOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in options.__slots__}


def _leave_no_trace(path: Path) -> None:
    """Take away a folder this build made, unless work worth going on with stands in it."""
    if not (path / CURRENT).exists() and not (path / ".partial" / _KEY).exists():
        shutil.rmtree(path, ignore_errors=True)


def _build(key: dict[str, Any]) -> str:
    """What tells a build from others; where the rows are not known before they come, from all others."""
    return digest(key) if key["catalogue"] else uuid.uuid4().hex


def _clean(
    engine: Engine,
    catalogue: Catalogue,
    settings: CleaningSettings,
    partial: Path,
    key: dict[str, Any],
    limit: int | None,
) -> dict[str, Any]:
    """Clean the catalogue into ``.partial``, unless an interrupted build with the same key has done so."""
    key_file, generation = partial / _KEY, partial / _GENERATION
    with contextlib.suppress(OSError, ValueError):
        if key["catalogue"] and read_json(key_file) == {"key": key, "parts": cleaned(generation)}:
            report: dict[str, Any] = read_json(generation / CLEANING)
            say("going on with the interrupted build")
            return report
    with storage_errors(partial):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    try:
        with StoreWriter(generation / PRODUCTS) as writer:
            done: CleaningReport = engine.clean(catalogue, settings, writer.add, limit)
        say(done.table())
        write_json(generation / CLEANING, done.to_dict())
        write_json(key_file, {"key": key, "parts": cleaned(generation)})
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return done.to_dict()
