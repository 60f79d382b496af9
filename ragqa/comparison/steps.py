"""What the stages of a comparison do: index, questions, training, answers. Each runs in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from ragqa import models
from ragqa.answerer import Answerer
from ragqa.catalogue.columns import ReadOptions
from ragqa.comparison.arms import ARMS, Asked, Catalogue, Given
from ragqa.files import storage_errors, write_json_lines
from ragqa.index.build import build_index
from ragqa.index.storage import CLEANING, on_disk
from ragqa.progress import progress_bar
from ragqa.records import Candidate, Retrieval
from ragqa.retrieval.searcher import Products
from ragqa.retrieval.text import fold, overlap
from ragqa.settings import CleaningSettings
from ragqa.training.checkpoints import newest_sealed
from ragqa.training.documents import METRICS
from ragqa.training.fine_tune import fine_tune
from ragqa.training.questions import LabelledQuestion, to_json
from ragqa.training.recipe import Recipe
from ragqa.training.splits import make_split, write_split
from ragqa.training.workplace import MANIFEST, work_folder

RANKED: Final = 10  # places in which the right product is looked for
_DEPTH: Final = 100  # candidates among which its scores are looked for
_BLOCK: Final = 64  # questions answered between two writings
QUESTIONS: Final = "questions.jsonl"
ADAPTER: Final = "adapter"


def index(folder: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Build the index."""
    built = build_index(
        inputs["source"],
        folder / "index",
        embedder=inputs["embedder"],
        device=inputs["device"],
        dtype=inputs["dtype"],
        options=ReadOptions(**inputs["options"]),
        cleaning=CleaningSettings(**inputs["cleaning"]),
        limit=inputs["limit"],
    )
    manifest = built.manifest
    return {
        "products": manifest["count"],
        "rows": json.loads((built.folder / CLEANING).read_text("utf-8"))["read"],
        "content_sha256": manifest["content_sha256"],
        "embedder": manifest["embedder"],
        "megabytes": round(sum(part["size"] for part in manifest["parts"].values()) / 1e6, 1),
    }


def questions(folder: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Make the test questions, and rank the products for each, by ragqa's retriever and by BM25."""
    answerer = Answerer.from_pretrained(inputs["index"], device=inputs["device"])
    products = list(on_disk(answerer.index).store)
    rows = {product.id: row for row, product in enumerate(products)}
    recipe = Recipe.from_dict(inputs["recipe"])
    split = make_split(products, recipe.split())
    without = frozenset(split.rows["absent"])
    lexical = _lexical(products)
    lines = []
    for name in ("seen", "unseen"):
        asked = split.questions[f"test_{name}"][: inputs[name]]
        found = _retrieve(answerer, [q.text for q in asked], without)
        for question, retrieval in zip(asked, found, strict=True):
            right = rows.get(question.product_id or "", -1)
            ranked = [c.row for c in retrieval.candidates[:RANKED]]
            best = rank_bm25(lexical, retrieval.question.subject, without)
            lines.append(
                to_json(question)
                | {"set": name, "rank": _place(ranked, right), "bm25_rank": _place(best, right), "lexical": best}
            )
    write_json_lines(folder / QUESTIONS, lines)
    return {
        "split": {part: len(found) for part, found in split.rows.items()} | {"groups": split.groups},
        "data": {
            name: file["sha256"] for name, file in write_split(split, products, folder / "split")["files"].items()
        },
        "without": sorted(without),
    }


def read_questions(file: Path) -> list[dict[str, Any]]:
    """The test questions as the questions stage wrote them."""
    return [json.loads(line) for line in file.read_text("utf-8").split("\n")[:-1]]


def rank_bm25(lexical: Any, subject: str, without: frozenset[int]) -> list[int]:
    """The first rows by BM25 (`rank_bm25.BM25Okapi` with its own constants), ties in the order of the rows."""
    scores = lexical.get_scores(fold(subject).split())
    scores[list(without)] = -np.inf
    return [int(row) for row in np.argsort(-scores, kind="stable")[:RANKED]]


def train(folder: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Fine-tune an adapter, or go on with one that was interrupted."""
    out = folder / ADAPTER
    if not (out / MANIFEST).exists():
        fine_tune(
            inputs["index"],
            out,
            mode=inputs["mode"],
            recipe=Recipe.from_dict(inputs["recipe"]),
            device=inputs["device"],
            dtype=inputs["dtype"],
            resume=newest_sealed(work_folder(out)) is not None,
        )
    manifest = json.loads((out / MANIFEST).read_text("utf-8"))
    history = [json.loads(line) for line in (out / METRICS).read_text("utf-8").splitlines()]
    per_epoch = manifest["examples"] / manifest["recipe"]["epochs"]
    return {
        "history": [
            {
                "step": line["step"],
                "examples": round(line.get("epoch", 0.0) * per_epoch),
                "loss": line.get("loss"),
                "eval_loss": line.get("eval_loss"),
            }
            for line in history
            if "loss" in line or "eval_loss" in line
        ],
        "seconds": manifest["seconds"],
        **{
            name: manifest[name]
            for name in ("examples", "trained", "choice", "base", "dtype", "device", "recipe", "data")
        },
    }


def answers(folder: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Ask the arms of one system; a killed process goes on after the last finished block."""
    system, places = inputs["system"], inputs["questions"]
    recipe = Recipe.from_dict(inputs["recipe"])
    answerer = Answerer.from_pretrained(
        inputs["index"],
        generator=recipe.generator,
        adapter=inputs["adapter"],
        device=inputs["device"],
        dtype=inputs["dtype"],
    )
    catalogue = Catalogue(
        products=on_disk(answerer.index).store,
        tokenizer=models.load_tokenizer(models.find_model(recipe.generator)),
        shown=recipe.products,
        context_tokens=recipe.context_tokens,
        answer_tokens=recipe.max_new_tokens,
        answerer=answerer,
    )
    without = frozenset(inputs["without"])
    lines = read_questions(Path(inputs["asked"]))
    lines = lines if places is None else [lines[i] for i in places]
    asked = _asked(answerer, lines, without)
    given = {name: _answer_all(name, asked, catalogue, folder / f"{name}.jsonl") for name in inputs["arms"]}
    timed = [a for a, line in zip(asked, lines, strict=True) if a.gold and line["set"] == "unseen"]
    timed = random.Random(0).sample(timed, min(inputs["timed"], len(timed)))  # noqa: S311
    seconds: dict[str, list[float | None]] = {name: [None] * len(asked) for name in inputs["arms"]}
    if timed:
        texts = [a.label.text for a in asked]
        lexical = _lexical(on_disk(answerer.index).store) if "copy_bm25" in inputs["arms"] else None
        for name in inputs["arms"]:
            by_text = dict(
                zip((a.label.text for a in timed), _time(name, timed, catalogue, without, lexical), strict=True)
            )
            seconds[name] = [by_text.get(text) for text in texts]
    generator = answerer.generator if system != "none" else None
    return {
        "answers": given,
        "seconds": seconds,
        "references": [catalogue.text(a.gold.product) if a.gold else "" for a in asked],
        "dtype": models.dtype_name(generator.model) if generator else None,
        "base": answerer.generator_source.to_dict() if answerer.generator_source else None,
    }


def _asked(answerer: Answerer, lines: Sequence[Mapping[str, Any]], without: frozenset[int]) -> list[Asked]:
    rows = {product.id: row for row, product in enumerate(on_disk(answerer.index).store)}
    asked = []
    found = _retrieve(answerer, [line["text"] for line in lines], without)
    for line, retrieval in zip(lines, found, strict=True):
        label = LabelledQuestion(**{name: line[name] for name in LabelledQuestion.__slots__})
        gold = None
        if label.product_id is not None:
            row = rows[label.product_id]
            product = on_disk(answerer.index).store[row]
            bare = Candidate(product, row, 0.0, 0.0, overlap(retrieval.question.subject, product.title), exact=False)
            gold = next((c for c in retrieval.candidates if c.row == row), bare)
        asked.append(Asked(label, retrieval, gold, tuple(line["lexical"])))
    return asked


def _retrieve(answerer: Answerer, texts: Sequence[str], without: frozenset[int]) -> list[Retrieval]:
    found: list[Retrieval] = []
    for start in range(0, len(texts), _BLOCK):
        found += answerer.retriever.retrieve(texts[start : start + _BLOCK], _DEPTH, without=without)
    return found


def _answer_all(name: str, asked: Sequence[Asked], catalogue: Catalogue, file: Path) -> list[dict[str, Any]]:
    given = _kept(file)
    with progress_bar(name, len(asked), "questions") as bar:
        bar.update(len(given))
        for start in range(len(given), len(asked), _BLOCK):
            block = asked[start : start + _BLOCK]
            new = [_to_json(g) for g in ARMS[name].answer(block, catalogue)]
            given += new
            with storage_errors(file), file.open("a", encoding="utf-8") as out:
                out.writelines(json.dumps(g) + "\n" for g in new)
                out.flush()
                os.fsync(out.fileno())
            bar.update(len(block))
    return given


def _kept(file: Path) -> list[dict[str, Any]]:
    """The answers of whole blocks that a killed process left."""
    given: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError, RecursionError):
        for line in file.read_text("utf-8").split("\n")[:-1]:
            given.append(json.loads(line))
    given = given[: len(given) // _BLOCK * _BLOCK]
    write_json_lines(file, given)
    return given


def _to_json(given: Given) -> dict[str, Any]:
    return {"text": given.text, "source": given.source, "confidence": given.confidence}


def _lexical(products: Products) -> Any:
    from rank_bm25 import BM25Okapi

    return BM25Okapi([fold(products[row].title).split() for row in range(len(products))])


def _time(
    name: str, asked: Sequence[Asked], catalogue: Catalogue, without: frozenset[int], lexical: Any
) -> list[float]:
    """Seconds from question to answer, one at a time, retrieval included; the first is asked twice."""
    retriever = catalogue.model.retriever
    seconds = []
    for one in (asked[0], *asked):
        started = time.perf_counter()
        if name == "copy_bm25":
            rank_bm25(lexical, one.found.question.subject, without)
        elif ARMS[name].context != "none":
            retriever.retrieve([one.label.text], RANKED, without=without)
        ARMS[name].answer([one], replace(catalogue, known={}))
        seconds.append(round(time.perf_counter() - started, 4))
    return seconds[1:]


def _place(ranked: Sequence[int], row: int) -> int | None:
    return ranked.index(row) if row in ranked else None
