"""What a plan is asked for, and what it says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from ragqa.planning.growth import Estimate
from ragqa.settings import Settings, at_least, at_most

DECODINGS: Final = ("copy", "extractive", "free")  # the modes in which the service was measured
_RANGES: Final = {
    "memory": (1e6, 1e18),
    "max_build_hours": (1e-3, 1e6),
    "max_latency_ms": (1e-3, 1e7),
    "titles_per_second": (1e-3, 1e12),
    "product_bytes": (1.0, 1e9),
}


@dataclass(frozen=True, slots=True)
class PlanSettings(Settings):
    """What a machine has, and what is asked of it.

    Attributes:
        memory: bytes of a machine.
        cores: of a machine.
        max_build_hours: within which the index is to be built.
        max_latency_ms: within which the products for a question are to be found, p50.
        titles_per_second: that one machine embeds, for example with a GPU; None for what was measured, by cores.
        decoding: "copy", "extractive" or "free", as in `AnswerSettings`; all but the first need the generator.
        min_replicas: of everything that answers, where questions a second are given, so that one may end.
        product_bytes: of a product as JSON, title and description; None for what was measured.
    """

    memory: float = 64e9
    cores: int = 16
    max_build_hours: float = 24.0
    max_latency_ms: float = 100.0
    titles_per_second: float | None = None
    decoding: str = "copy"
    min_replicas: int = 2
    product_bytes: float | None = None

    def _problems(self) -> list[str]:
        problems = at_least(self, {"cores": 1, "min_replicas": 1})
        problems += at_most(self, {"cores": 100_000, "min_replicas": 10_000})
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is None and name in ("titles_per_second", "product_bytes"):
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                problems.append(f"{name} must be a number from {low:g} to {high:g}, not {value!r}")
        if self.decoding not in DECODINGS:
            problems.append(f"decoding must be one of {', '.join(DECODINGS)}, not {self.decoding!r}")
        return problems


@dataclass(frozen=True, slots=True)
class Build:
    """How the index is built.

    Attributes:
        engine: "single": one process of `ragqa build-index`; "ray": workers on several machines embed.
        machines: while it is built.
        hours: all of it; with Milvus without its own indexing.
        embedding_hours: of them, embedding.
        memory: bytes at its peak, of the machine that makes the index; None with Milvus.
        disk: bytes of that machine: the vectors as float32 while it works, and the index.
    """

    engine: Literal["single", "ray"]
    machines: int
    hours: Estimate
    embedding_hours: float
    memory: Estimate | None
    disk: float


@dataclass(frozen=True, slots=True)
class Search:
    """How questions are answered.

    Attributes:
        engine: "faiss": each machine has the whole index; "milvus": query nodes have a shard each.
        machines: all that answer.
        replicas: of the index.
        shards: into which it is parted.
        services: machines that run `ragqa serve`; with FAISS all of them.
        processes: of `ragqa serve` on each.
        answers_per_second: of one of them, at `LOAD`; with Milvus beside its searches.
        memory: bytes of a machine that holds (a shard of) the index.
        disk: bytes of it; with FAISS also for the generation before and the next.
        p50_ms: until the products for a question are found.
        machines_between: the fewest and the most that the interval of the search's cost allows.
        machines_otherwise: by the law that says less well what was left out.
    """

    engine: Literal["faiss", "milvus"]
    machines: int
    replicas: int
    shards: int
    services: int
    processes: int
    answers_per_second: float
    memory: Estimate
    disk: float
    p50_ms: Estimate
    machines_between: tuple[int, int]
    machines_otherwise: int


@dataclass(frozen=True, slots=True)
class Predicted:
    """A cost of the whole catalogue on the machine that was measured.

    Attributes:
        unit: "bytes", "s" or "ms".
        otherwise: by the law that says less well what was left out; None where there is none.
        left_out: of each measured size, the relative error of its prediction from the other sizes.
        why: the law's reason.
    """

    unit: str
    estimate: Estimate
    otherwise: float | None
    left_out: tuple[float, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What so many titles and questions a second take.

    Attributes:
        times_measured: the titles, by those of the largest measured size; above 1 all is extrapolated.
        sizes: that were measured.
        costs: of the whole catalogue on the machine that was measured.
        reasons: why not simpler engines.
        assumptions: what was not measured.
    """

    titles: int
    qps: float
    settings: PlanSettings
    build: Build
    search: Search
    times_measured: float
    sizes: tuple[int, ...]
    costs: dict[str, Predicted]
    reasons: tuple[str, ...]
    assumptions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return asdict(self)
