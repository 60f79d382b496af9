"""The costs of an index, each with the law by which it grows and why; the figures are those of ``python -m benchmarks.scale``.

``measured.json`` is written from the benchmark's committed results by ``python -m benchmarks.plan --keep``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from ragqa.json_files import read_json
from ragqa.planning.growth import EXACT_TITLES, Estimate, Growth, Law, lists

MEASURED: Final = Path(__file__).with_name("measured.json")
DIMENSION: Final = 384  # of all-MiniLM-L6-v2


def vector_bytes(titles: float) -> float:
    """What FAISS keeps of so many titles: vectors as they are, or 8-bit codes with number and place, and the lists' centres."""
    if titles <= EXACT_TITLES:
        return titles * DIMENSION * 4
    return titles * (DIMENSION + 16) + lists(titles) * (DIMENSION * 4 + 8)


@dataclass(frozen=True, slots=True)
class Cost:
    """A cost and how it grows.

    Attributes:
        unit: "bytes", "s" or "ms".
        laws: part -> its law; parts are as in `MEASURED`.
        why: the reason for the laws.
        rival: other laws that could be argued for, which say less well what was left out; {} for none.
    """

    unit: str
    laws: Mapping[str, Law]
    why: str
    rival: Mapping[str, Law]


_VECTORS: Final = Law(known=vector_bytes)
COSTS: Final = {
    "disk": Cost(
        "bytes",
        {"vectors": _VECTORS, "texts and words": Law(("n", "sqrt(n)"))},
        "vectors as FAISS lays them out; texts and postings n; the vocabulary about sqrt(n) (Heaps' law)",
        {},
    ),
    "memory of a process": Cost(
        "bytes",
        {"own": Law(("1", "n"))},
        "models 1; tables of titles and terms n; the index's files are mapped and count once a machine",
        {},
    ),
    "resident while searching": Cost(
        "bytes", {"all": Law(("1", "n"))}, "models and libraries 1; pages of the index that searches touch n", {}
    ),
    "memory of the build": Cost(
        "bytes",
        {"vectors": _VECTORS, "else": Law(("1", "sqrt(n)"))},
        "the index being filled n, as above; vocabulary and the sample that lists are trained on sqrt(n)",
        {"vectors": _VECTORS, "else": Law(("1", "n"))},
    ),
    "build": Cost(
        "s",
        {
            "embed": Law(("n",)),
            "train": Law(("lists^2",)),
            "add": Law(("n lists",)),
            "clean": Law(("n log n",)),
            "words": Law(("n log n",)),
            "write": Law(("n",)),
            "start, tune, confidence": Law(("1", "n")),
        },
        "a title is embedded n times; 40 titles a list are compared with every list, then every title with every list; "
        "words are sorted; lists are 4 sqrt(n), from 268 million titles on 65,536",
        {},
    ),
    "question, p50": Cost(
        "ms",
        {"all": Law(("1", "n"))},
        "embedding the question 1; lists of postings and candidates to compare n at worst",
        {"all": Law(("1", "sqrt(n)"))},
    ),
    "question, at once": Cost(
        "ms",
        {"all": Law(("1", "n"))},
        "of many questions together, each; as above",
        {"all": Law(("1", "sqrt(n)"))},
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Costs:
    """The measured figures, and what was fitted to them.

    Attributes:
        measured: what `MEASURED` says.
        growth: cost -> how it grows.
        rival: the same by the law that says less well what was left out, of costs that have one.
    """

    measured: dict[str, Any]
    growth: dict[str, Growth]
    rival: dict[str, Growth]

    def upper(self, cost: str, titles: float) -> Estimate:
        """The estimate, its upper end raised to what the rival law says, where that is more."""
        found = self.growth[cost].at(titles)
        if cost not in self.rival:
            return found
        return Estimate(found.value, found.low, max(found.high, self.rival[cost].at(titles).value))


def fitted(measured: dict[str, Any]) -> Costs:
    """The laws fitted to measured figures."""
    titles, costs = measured["titles"], measured["costs"]
    return Costs(
        measured,
        {name: Growth(cost.laws, titles, costs[name]) for name, cost in COSTS.items()},
        {name: Growth(cost.rival, titles, costs[name]) for name, cost in COSTS.items() if cost.rival},
    )


@cache
def known_costs() -> Costs:
    """The laws fitted to the figures that come with the package."""
    return fitted(read_json(MEASURED))
