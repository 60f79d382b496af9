"""Vectors -> a FAISS index as planned, tuned and measured against exact search."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ragqa.errors import InputError, first_line
from ragqa.index.blocks import Blocks
from ragqa.index.recipe import DEFAULT_RECALL, Budgets, Plan, new_index
from ragqa.index.tune import QUESTIONS, Tuned, exact_nearest, made_questions, measured, tune
from ragqa.progress import StageClock, progress_bar, say
from ragqa.records import Product
from ragqa.retrieval.dense import DenseIndex, import_faiss, one_thread, repeatable
from ragqa.retrieval.embed import Embedder
from ragqa.retrieval.gpu import cagra, to_gpu

# Measured on other questions than those that chose, a recall may be a little below.
_TOLERANCE: Final = 0.01


def build_dense(
    blocks: Blocks,
    plan: Plan,
    count: int,
    dimension: int,
    seed: int,
    clock: StageClock,
    device: str = "cpu",
    deterministic: bool = False,
) -> Any:
    """Train a FAISS index on a sample of the vectors, and add all of them block by block; it comes back on the CPU.

    Args:
        blocks: the vectors.
        plan: what to build.
        count, dimension: of the vectors.
        seed: chooses the sample.
        clock: is told of the stages "train" and "add".
        deterministic: see `ragqa.retrieval.dense.repeatable`.
        device: a GPU trains and adds what has to be trained, if FAISS can use it and it has room.
    """
    faiss = import_faiss()
    if plan.recipe == "cagra":
        graph = cagra(faiss, lambda: blocks.rows(np.arange(count)), device)
        if graph is not None:
            clock.stage("add")
            return graph
    index, on_gpu = new_index(plan.factory, dimension), None
    if not index.is_trained:
        chosen = np.sort(np.random.default_rng(seed).choice(count, plan.sample, replace=False))
        say(f"training {plan.factory} on {plan.sample:,} titles")
        lists = faiss.try_extract_index_ivf(index)
        if lists is not None:
            # The sample is as large as it is to be: none of it is to be left out, and nothing warned of.
            lists.cp.max_points_per_centroid, lists.cp.min_points_per_centroid = plan.sample, 1
            lists.cp.seed = seed + 1
        on_gpu = to_gpu(faiss, index, device)
        try:
            (index if on_gpu is None else on_gpu).train(blocks.rows(chosen))
        except RuntimeError as error:
            if on_gpu is None:
                raise
            say(f"FAISS goes on on the CPU ({first_line(error)})")
            on_gpu = None
            index.train(blocks.rows(chosen))
        clock.stage("train")
    added = 0
    in_order = one_thread(index, repeatable(count, deterministic))
    with in_order, progress_bar("adding", count, "vectors") as bar:
        for block in blocks:
            vectors = np.ascontiguousarray(block)
            if on_gpu is not None:
                try:
                    on_gpu.add(vectors)
                except RuntimeError as error:
                    say(f"FAISS goes on on the CPU ({first_line(error)})")
                    index, on_gpu = faiss.index_gpu_to_cpu(on_gpu), None
                    vectors = vectors[index.ntotal - added :]
            if on_gpu is None:
                index.add(vectors)
            added += len(block)
            bar.update(len(block))
    if on_gpu is not None:
        index = faiss.index_gpu_to_cpu(on_gpu)
    clock.stage("add")
    return index


def tune_dense(
    index: Any,
    blocks: Blocks,
    products: Sequence[Product],
    encoder: Embedder,
    plan: Plan,
    budgets: Budgets,
    seed: int,
    deterministic: bool = False,
) -> Tuned:
    """Tune an index on made questions about `products`, and measure it.

    Its search parameters are chosen by the clock, or, where the result is to be `repeatable`, by what they make it look at.

    Raises:
        InputError: a budget that was given cannot be kept; it says what can.
    """
    questions = encoder.embed_questions(made_questions(products, seed))
    if plan.factory == "Flat":
        tuned = measured(DenseIndex(index), questions)
    else:
        nearest = exact_nearest(questions, blocks)
        tuned = tune(
            index, questions, nearest, budgets.recall or DEFAULT_RECALL, not repeatable(index.ntotal, deterministic)
        )
    say(
        f"{plan.factory} finds {tuned.recall:.1%} of the 10 nearest in {tuned.latency_ms:.2f} ms a question"
        + (f" ({tuned.parameters})" if tuned.parameters else "")
    )
    reached = f"{plan.factory} reaches {tuned.recall:.3f} in {tuned.latency_ms:.2f} ms"
    if budgets.recall is not None and tuned.recall < budgets.recall - _TOLERANCE:
        raise InputError(f"--min-recall {budgets.recall:g}: {reached}; ask for so much, or take --recipe ivf or flat")
    if budgets.latency_ms is not None and tuned.latency_ms > budgets.latency_ms:
        raise InputError(
            f"--max-latency-ms {budgets.latency_ms:g}: {reached}; ask for less recall or more time, or take --recipe hnsw"
        )
    return tuned


def sampled(count: int, seed: int) -> list[int]:
    """Rows of the products that questions for tuning are made about, ascending."""
    random_ = random.Random(f"tuned {seed}")  # noqa: S311  (not for secrets)
    return sorted(random_.sample(range(count), min(count, QUESTIONS)))
