"""Which FAISS index for how many titles, and what it takes, told before the work starts.

A recipe is a name or one of FAISS's own factory strings. ``auto`` takes the first that stays within the budgets of:
exact search; inverted lists of 8-bit vectors; inverted lists of product codes, refined by 4-bit vectors; product codes
alone. The order is that of what they lose. Graphs (``hnsw``; ``cagra``, made on a GPU) are taken by name alone: they take
the most memory, on a CPU by far the longest to build, and have to be built anew when the catalogue changes.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ragqa.errors import InputError
from ragqa.retrieval.dense import import_faiss

# {lists}: about four times the square root of the number of rows, as FAISS's guide has it; {quarter}, {eighth}: of the
# dimension.
RECIPES: Final = {
    "flat": "Flat",
    "flat-fp16": "SQfp16",
    "ivf": "IVF{lists},Flat",
    "ivf-sq8": "IVF{lists},SQ8",
    "ivf-pq": "IVF{lists},PQ{quarter}x4fs,Refine(SQ4)",
    "ivf-pq-small": "IVF{lists},PQ{eighth}",
    "hnsw": "HNSW32,SQ8",
    "cagra": "HNSW32,Flat",
}
# What "auto" tries, in this order.
_AUTO: Final = ("flat", "ivf-sq8", "ivf-pq", "ivf-pq-small")
_AUTO_EXACT: Final = ("flat", "ivf", "flat-fp16")
# Where no latency is asked for, so many numbers of vectors are searched exactly: 52,000 titles of 384, a few milliseconds.
_EXACT_NUMBERS: Final = 20_000_000
DEFAULT_RECALL: Final = 0.95
# Below this many rows there is nothing to train lists on.
_FEWEST_FOR_LISTS: Final = 5000
# Vectors a list that training looks at; FAISS asks for at least 39.
_SAMPLE_A_LIST: Final = 40
# Vectors that quantisers without lists are trained on.
_FEWEST_TRAINED: Final = 20000
_ROUNDS: Final = 10
# Numbers in the vectors on which the machine is tried: 32 MB, more than its caches hold.
_TRIED: Final = 8_000_000
# Vectors that a graph's search compares, for each doubling of their number; what adding one to it takes.
_GRAPH_COMPARED: Final = 100
_GRAPH_ROW_SECONDS: Final = 0.001
# Where no search parameter has been measured yet: so many lists are looked into.
_LISTS_SEARCHED: Final = 16
# Above this recall exact vectors are kept: 8-bit ones were measured at 0.97 to 0.99 with all lists looked into.
_MOST_OF_CODES: Final = 0.97
_GRAPH_LINKS_BYTES: Final = 2 * 32 * 4 + 16  # a row of HNSW32


@dataclass(frozen=True, slots=True)
class Budgets:
    """What an index may take and must give.

    Attributes:
        memory: bytes of its vectors, in memory while searching; None for no limit.
        latency_ms: of one search for one question, in milliseconds; None for exact search of small catalogues.
        recall: share of the 10 nearest titles that are to be found; None for `DEFAULT_RECALL`, which is a wish: where it
            cannot be reached, the build says so and goes on.
    """

    memory: int | None = None
    latency_ms: float | None = None
    recall: float | None = None

    def __post_init__(self) -> None:
        if self.memory is not None and self.memory < 1:
            raise InputError(f"--max-memory must be above 0, not {self.memory}")
        if self.latency_ms is not None and not self.latency_ms > 0:
            raise InputError(f"--max-latency-ms must be above 0, not {self.latency_ms}")
        if self.recall is not None and not 0 < self.recall <= 1:
            raise InputError(f"--min-recall must be above 0 and at most 1, not {self.recall}")


@dataclass(frozen=True, slots=True)
class Plan:
    """An index that is going to be built.

    Attributes:
        recipe: its name in `RECIPES`, or the factory string.
        factory: FAISS's factory string.
        memory: bytes it will take in memory.
        latency_ms: of one search, in milliseconds.
        seconds: that training and adding will take.
        sample: how many vectors it is trained on; 0 for none.
    """

    recipe: str
    factory: str
    memory: int
    latency_ms: float
    seconds: float
    sample: int

    def line(self) -> str:
        """The prediction for the screen."""
        return (
            f"index {self.factory} ({self.recipe}): about {self.memory / 1e6:,.0f} MB of vectors, "
            f"{self.latency_ms:,.2f} ms a search, {self.seconds:,.0f} s to train and add"
        )

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {"memory": self.memory, "latency_ms": round(self.latency_ms, 3), "seconds": round(self.seconds, 1)}


def plan(count: int, dimension: int, recipe: str = "auto", budgets: Budgets | None = None) -> Plan:
    """Choose an index for `count` vectors and say what it will take.

    Args:
        count: how many vectors.
        dimension: their length.
        recipe: "auto", a name in `RECIPES`, or a FAISS factory string.
        budgets: what it may take.

    Raises:
        InputError: no such recipe, or no index stays within the memory; it says what would.
    """
    budgets = budgets or Budgets()
    speed = _speed(dimension)
    if recipe != "auto":
        chosen = _planned(recipe, count, dimension, speed)
        if budgets.memory is not None and chosen.memory > budgets.memory:
            raise InputError(
                f"--max-memory {budgets.memory / 1e6:,.0f} MB: {count:,} vectors in {chosen.factory} take "
                f"{chosen.memory / 1e6:,.0f} MB; {_smaller(count, dimension, speed, budgets.memory)}"
            )
        return chosen
    # Codes of 8 bits and fewer find less, however many lists are looked into.
    names = _AUTO_EXACT if budgets.recall is not None and budgets.recall > _MOST_OF_CODES else _AUTO
    plans = [
        _planned(name, count, dimension, speed) for name in names if count >= _FEWEST_FOR_LISTS or "ivf" not in name
    ]
    fitting = [one for one in plans if budgets.memory is None or one.memory <= budgets.memory]
    if not fitting:
        raise InputError(
            f"--max-memory {budgets.memory or 0:,} bytes and --min-recall {budgets.recall or DEFAULT_RECALL} cannot both be "
            f"kept for {count:,} vectors of {dimension} numbers; {_smaller(count, dimension, speed, budgets.memory)}"
        )
    if budgets.latency_ms is None:
        small = count * dimension <= _EXACT_NUMBERS
        fast = [one for one in fitting if small or not one.recipe.startswith("flat")]
    else:
        fast = [one for one in fitting if one.latency_ms <= budgets.latency_ms]
    return fast[0] if fast else min(fitting, key=lambda one: one.latency_ms)


def lists_for(count: int) -> int:
    """How many inverted lists `count` vectors get: a power of two near four times the square root, 16 to 65,536."""
    return int(min(max(2 ** round(math.log2(4 * math.sqrt(max(count, 1)))), 16), 65536))


def new_index(factory: str, dimension: int) -> Any:
    """An untrained FAISS index for inner products.

    Raises:
        InputError: FAISS knows no such index, or vectors cannot be got back from it.
    """
    faiss = import_faiss()
    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
        # PCA and the like shorten vectors, and what was cut off cannot be compared any more.
        if isinstance(faiss.downcast_index(index), faiss.IndexPreTransform):
            raise InputError(f"--recipe {factory!r}: indexes that transform vectors first are not supported")
        _bytes_per_row(index)
    except (RuntimeError, TypeError) as error:
        raise InputError(
            f"--recipe {factory!r}: not a FAISS factory string for {dimension} dimensions; accepted are auto, "
            f"{', '.join(RECIPES)}, or such strings as IVF4096,SQ8"
        ) from error
    return index


def _planned(recipe: str, count: int, dimension: int, speed: _Speed) -> Plan:
    # Sub-vectors of product codes must divide the dimension.
    quarter, eighth = (max(m for m in range(1, dimension // by + 1) if dimension % m == 0) for by in (4, 8))
    lists = lists_for(count)
    factory = RECIPES.get(recipe, recipe).format(lists=lists, quarter=quarter, eighth=eighth)
    index = new_index(factory, dimension)
    faiss = import_faiss()
    inverted = faiss.try_extract_index_ivf(index)
    graph = isinstance(faiss.downcast_index(index), faiss.IndexHNSW)
    lists = inverted.nlist if inverted is not None else 0
    row = _bytes_per_row(index)
    sample = min(count, max(_SAMPLE_A_LIST * lists, 0 if index.is_trained else _FEWEST_TRAINED))
    compared = lists + count * min(_LISTS_SEARCHED / lists, 1) if lists else count
    latency = (_GRAPH_COMPARED * math.log2(count + 2) if graph else compared) * dimension / speed.scan
    # k-means goes over its sample in ten rounds; then each vector is put into its list.
    products = (_ROUNDS * sample * lists + count * lists) * dimension
    built = count * dimension / speed.add + products / speed.product + (count * _GRAPH_ROW_SECONDS if graph else 0)
    return Plan(recipe, factory, count * row + lists * dimension * 4, latency * 1000, built, sample)


def _bytes_per_row(index: Any) -> int:
    """What a row takes in memory, all told."""
    faiss = import_faiss()
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        return _bytes_per_row(index.base_index) + _bytes_per_row(index.refine_index)
    if isinstance(index, faiss.IndexIVF):
        return int(index.code_size) + 16  # its number, and where it stands
    if isinstance(index, faiss.IndexHNSW):
        return _bytes_per_row(index.storage) + _GRAPH_LINKS_BYTES
    return int(index.code_size) if isinstance(index, faiss.IndexFlatCodes) else int(index.sa_code_size())


def _smaller(count: int, dimension: int, speed: _Speed, memory: int | None) -> str:
    """What takes the least memory, or which recipes take less than `memory`."""
    plans = sorted((_planned(name, count, dimension, speed) for name in RECIPES), key=lambda one: one.memory)
    if memory is not None and plans[0].memory <= memory:
        fitting = ", ".join(f"{one.recipe} ({one.memory / 1e6:,.0f} MB)" for one in plans if one.memory <= memory)
        return f"within it are --recipe {fitting}, or auto"
    return f"the least is {plans[0].memory / 1e6:,.0f} MB, with --recipe {plans[0].recipe}"


@dataclass(frozen=True, slots=True)
class _Speed:
    """What this machine does in a second.

    Attributes:
        scan: numbers of stored vectors compared by one search.
        product: multiply-adds of a matrix product.
        add: numbers of vectors copied or coded.
    """

    scan: float
    product: float
    add: float = 2e8


def _speed(dimension: int) -> _Speed:
    """Try the machine for a moment."""
    faiss = import_faiss()
    rows = max(_TRIED // dimension, 64)
    # Any numbers will do, but none so small that they are slow to compute with.
    tried = np.resize(np.linspace(-1, 1, 997, dtype=np.float32), (rows, dimension))
    index = faiss.IndexFlatIP(dimension)
    index.add(tried)
    questions = tried[:256]
    scan, product = math.inf, math.inf
    for _ in range(3):
        started = time.perf_counter()
        index.search(questions[:1], 10)
        between = time.perf_counter()
        questions @ tried.T
        scan = min(scan, between - started)
        product = min(product, time.perf_counter() - between)
    return _Speed(tried.size / scan, tried.size * len(questions) / product)
