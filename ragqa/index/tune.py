"""How far an index may look less closely: its search parameters, tuned on made questions against exact search.

Half of the questions choose the parameters, the other half measure what they give.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ragqa.records import Product
from ragqa.retrieval.dense import DenseIndex, import_faiss
from ragqa.retrieval.embed import Vectors
from ragqa.retrieval.noise import mistyped, partial_title, reordered

Rows = npt.NDArray[np.int64]

QUESTIONS: Final = 400
NEAREST: Final = 10
# What is tried, from the fastest on: lists looked into, width of a graph's search, and how many times as many as are
# asked for are refined.
_TRIED: Final = {
    "nprobe": (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512),
    "efSearch": (16, 24, 32, 48, 64, 96, 128, 192, 256, 512),
    "k_factor_rf": (2, 4, 8, 16),
}
# The recall on the questions that choose is to be above what is asked for by so much, so that others keep it, too.
_MARGIN: Final = 0.005
# A recall that does not grow any more is as far as the index's own codes go; below this it may only be slow to.
_HARDLY_MORE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Tuned:
    """What search parameters give.

    Attributes:
        parameters: as `DenseIndex` takes them; "" for an exact index.
        recall: share of the 10 nearest titles by exact search that are among the 10 found.
        latency_ms: median of searches of one question each, in milliseconds.
        questions: on how many that was measured.
    """

    parameters: str
    recall: float
    latency_ms: float
    questions: int

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "parameters": self.parameters,
            "recall_at_10": round(self.recall, 4),
            "latency_ms": round(self.latency_ms, 4),
            "questions": self.questions,
        }


def made_questions(products: Sequence[Product], seed: int) -> list[str]:
    """What people might type about products: their titles in part, mistyped or re-ordered, one text each."""
    random_ = random.Random(f"tuning {seed}")  # noqa: S311  (not for secrets)
    kinds: Sequence[Callable[[str, random.Random], str]] = (partial_title, mistyped, reordered)
    return [kinds[number % len(kinds)](product.title, random_) for number, product in enumerate(products)]


def exact_nearest(questions: Vectors, blocks: Iterable[Vectors], k: int = NEAREST) -> Rows:
    """The rows of the k nearest vectors by exact search, (len(questions), k), from vectors given block by block."""
    faiss = import_faiss()
    best = np.empty((len(questions), 0), np.float32)
    rows = np.empty((len(questions), 0), np.int64)
    start = 0
    for block in blocks:
        scores, found = faiss.knn(questions, block, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        best, rows = np.hstack([best, scores]), np.hstack([rows, found + start])
        start += len(block)
        kept = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best, rows = np.take_along_axis(best, kept, 1), np.take_along_axis(rows, kept, 1)
    return rows


def recall(found: Rows, nearest: Rows) -> float:
    """The share of the nearest rows (n, k) that are among those found (n, k)."""
    hits = (found[:, :, None] == nearest[:, None, :]) & (nearest[:, None, :] >= 0)
    return float(hits.any(1).mean()) if nearest.size else 1.0


def tune(index: Any, questions: Vectors, nearest: Rows, wished: float, clocked: bool = True) -> Tuned:
    """Choose the fastest search parameters that find enough, or else those that find most; and measure them.

    Args:
        index: a FAISS index with all its vectors; left with the parameters that were chosen.
        questions: (n, dimension) unit vectors.
        nearest: (n, k) rows that exact search finds for them.
        wished: the recall that is to be reached.
        clocked: measure what is fastest; else, what looks at the fewest vectors is taken to be, and the same is chosen each time.
    """
    half = len(questions) // 2
    parameters = _fastest(index, questions[:half], nearest[:half], min(wished + _MARGIN, 1.0), clocked)
    dense = DenseIndex(index, parameters)
    return measured(dense, questions[half:], nearest[half:])


def measured(dense: DenseIndex, questions: Vectors, nearest: Rows | None = None) -> Tuned:
    """What an index gives on these questions, each searched alone; `nearest` None stands for what it finds."""
    found, seconds = [], []
    for question in questions:
        started = time.perf_counter()
        rows = dense.search(question[None], NEAREST)[1]
        seconds.append(time.perf_counter() - started)
        found.append(rows[0])
    right = recall(np.stack(found), nearest) if found and nearest is not None else 1.0
    return Tuned(dense.parameters, right, 1000 * float(np.median(seconds or [0.0])), len(questions))


def _fastest(index: Any, questions: Vectors, nearest: Rows, wished: float, clocked: bool) -> str:
    faiss = import_faiss()
    space = faiss.ParameterSpace()
    space.initialize(index)
    names = [space.parameter_ranges.at(place).name for place in range(space.parameter_ranges.size())]
    lists = faiss.try_extract_index_ivf(index)
    most = {"nprobe": lists.nlist if lists is not None else 0}
    tried = {name: [v for v in _TRIED[name] if v <= most.get(name, v)] for name in names if name in _TRIED}
    if not tried or not len(questions):
        return ""
    best = (math.inf, math.inf, "")
    # For each setting of the others, the first parameter grows until enough is found, or nothing more is.
    first, *others = sorted(tried, key=list(_TRIED).index)
    for fixed in itertools.product(*(tried[name] for name in others)):
        last = -1.0
        for value in tried[first]:
            settings = dict(zip((first, *others), (value, *fixed), strict=True))
            parameters = ",".join(f"{name}={number}" for name, number in settings.items())
            space.set_index_parameters(index, parameters)
            started = time.perf_counter()
            rows = np.vstack([index.search(question[None], nearest.shape[1])[1] for question in questions])
            seconds, right = time.perf_counter() - started, recall(rows, nearest)
            # Enough first, then fast; where it is not enough, the most first.
            found = (-min(right, wished), seconds if clocked else _looked_at(index, settings), parameters)
            best = min(best, found)
            if right >= wished or (right <= last and right > _HARDLY_MORE):
                break
            last = right
    return best[2]


def _looked_at(index: Any, settings: Mapping[str, int]) -> float:
    """About how many vectors a search compares: in the lists it looks into, and of those that it refines."""
    lists = import_faiss().try_extract_index_ivf(index)
    found = float(settings.get("efSearch", 0))
    if lists is not None:
        # A product code is compared in about an eighth of the time that a vector takes.
        found += settings.get("nprobe", 1) * index.ntotal / lists.nlist / 8
    return found + NEAREST * settings.get("k_factor_rf", 0)
