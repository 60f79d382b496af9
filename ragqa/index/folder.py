"""An index folder's next generation, of what was embedded: vectors, titles, words, confidence, manifest."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragqa.catalogue.store import ProductStore
from ragqa.files import HashingFile, write_json
from ragqa.index.blocks import SIZE
from ragqa.index.generations import publish
from ragqa.index.recipe import Budgets, Plan, plan
from ragqa.index.storage import CLEANING, CONFIDENCE, FORMAT_VERSION, PRODUCTS, TITLES, VECTORS, content_hash
from ragqa.index.target import Embedded
from ragqa.index.tune import Tuned
from ragqa.index.vectors import build_dense, sampled, tune_dense
from ragqa.progress import StageClock, progress_bar, say
from ragqa.retrieval.dense import DenseIndex, import_faiss
from ragqa.retrieval.embed import Embedder, SentenceEmbedder
from ragqa.retrieval.lexical import FILES, LexicalIndex, write_lexical
from ragqa.retrieval.retriever import Retriever
from ragqa.retrieval.searcher import LocalSearcher
from ragqa.retrieval.titles import TitleTable
from ragqa.seals import file_part


@dataclass(slots=True)
class Folder:
    """An index folder: what was embedded becomes its next generation."""

    path: Path
    recipe: str
    budgets: Budgets
    deterministic: bool
    planned: Plan | None = None

    def check(self, dimension: int) -> None:
        """A recipe that there is not, is refused before anything is read."""
        import_faiss()
        plan(0, dimension, self.recipe)

    def plan(self, count: int, encoder: SentenceEmbedder) -> None:
        """Choose the FAISS index and say what it takes."""
        self.planned = planned = plan(count, encoder.dimension, self.recipe, self.budgets)
        say(f"{planned.line()}; while building, {_building(planned, count, encoder) / 1e6:,.0f} MB more")

    def write(self, made: Embedded) -> None:
        """Build the parts, and publish them."""
        planned = self.planned
        if planned is None:
            raise ValueError("plan comes before write")
        store, encoder, seed, clock = made.store, made.encoder, made.seed, made.clock
        index = build_dense(
            made.blocks, planned, len(store), encoder.dimension, seed, clock, encoder.device, self.deterministic
        )
        asked = [store[row] for row in sampled(len(store), seed)]
        tuned = tune_dense(index, made.blocks, asked, encoder, planned, self.budgets, seed, self.deterministic)
        clock.stage("tune")
        dense = DenseIndex(index, tuned.parameters)
        parts = cleaned(made.generation)
        parts |= _write_parts(made.generation, store, dense, encoder, seed, clock)
        seconds = clock.seconds()
        manifest = {
            "format_version": FORMAT_VERSION,
            "kind": "ragqa product index",
            "count": len(store),
            "dimension": dense.dimension,
            "metric": "cosine (inner product of unit vectors)",
            "dense": _dense_entry(planned, tuned, seconds, parts[VECTORS]["size"])
            | {"deterministic": self.deterministic},
            "embedder": made.embedded_by,
            **made.about,
            "parts": parts,
            "content_sha256": content_hash(parts),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": seconds,
        }
        store.close()
        publish(self.path, made.generation, manifest)


def _building(planned: Plan, count: int, encoder: SentenceEmbedder) -> int:
    """Bytes of vectors held while an index is trained, and a block of them; a graph made on a GPU takes all at once."""
    at_once = count if planned.recipe == "cagra" and encoder.device.startswith("cuda") else planned.sample
    return 4 * encoder.dimension * (at_once + SIZE)


def _dense_entry(planned: Plan, tuned: Tuned, seconds: dict[str, float], size: int) -> dict[str, Any]:
    """What the manifest says of the FAISS index: predicted before, measured after."""
    took = round(seconds.get("train", 0.0) + seconds["add"], 3)
    return {
        "recipe": planned.recipe,
        "factory": planned.factory,
        **tuned.to_dict(),
        "bytes": size,
        "seconds": took,
        "predicted": planned.to_dict(),
    }


def _write_parts(
    generation: Path,
    store: ProductStore,
    dense: DenseIndex,
    encoder: Embedder,
    seed: int,
    clock: StageClock,
) -> dict[str, dict[str, Any]]:
    """Write vectors, titles, words and confidence."""
    for name in (VECTORS, TITLES, *FILES, CONFIDENCE):
        (generation / name).unlink(missing_ok=True)
    titles = TitleTable.build(product.title for product in store)
    parts = {}
    with HashingFile(generation / VECTORS) as file:
        dense.save(file)
    parts[VECTORS] = {"size": file.size, "sha256": file.sha256}
    with HashingFile(generation / TITLES) as file:
        titles.save(file)
    parts[TITLES] = {"size": file.size, "sha256": file.sha256}
    clock.stage("write")
    with progress_bar("words", len(store), "products") as bar:
        written = write_lexical(store, generation, generation.parent / "words", bar.update)
    parts |= {name: {"size": file.size, "sha256": file.sha256} for name, file in written.items()}
    clock.stage("words")
    words = LexicalIndex.load(generation)
    confidence = Retriever(LocalSearcher(store, dense, titles, words), encoder).fit_confidence(seed=seed)
    size, sha256 = write_json(generation / CONFIDENCE, confidence.to_dict())
    parts[CONFIDENCE] = {"size": size, "sha256": sha256}
    clock.stage("confidence")
    return parts


def cleaned(generation: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of what cleaning writes."""
    return {name: file_part(generation / name) for name in (PRODUCTS, CLEANING)}
