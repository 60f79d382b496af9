"""From so many titles and questions a second to machines, engines, memory, disk and time, by what was measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from ragqa.errors import InputError
from ragqa.planning.costs import COSTS, DIMENSION, Costs, known_costs
from ragqa.planning.growth import Estimate
from ragqa.planning.records import Build, Plan, PlanSettings, Predicted, Search

MOST_TITLES: Final = 10**12
_MOST_QPS: Final = 1e9
# Assumed, not measured; each stands in `Plan.assumptions`.
EFFICIENCY: Final = 0.85  # of cores beyond those measured, and of Ray's workers
LOAD: Final = 0.7  # of what a process can answer
ROOM: Final = 0.9  # of a machine's memory
MILVUS_MEMORY: Final = 1.5  # times the files of ragqa's own index
# Stages of the build that use all cores, and those that grow with the length of a product.
_PARALLEL: Final = ("embed", "train", "add")
_OF_TEXT: Final = ("clean", "words")
# Stages that Milvus does in its own way.
_BY_MILVUS: Final = ("train", "add", "words", "write", "start, tune, confidence")
# Stages that Ray's workers share.
_BY_RAY: Final = ("embed", "clean")


def plan(titles: float, qps: float = 0.0, settings: PlanSettings | None = None) -> Plan:
    """Plan machines for a catalogue, from figures that were measured with up to 1.3 million titles.

    What must fit is held against the upper end of its 95 % interval, and against the rival law where there is one.

    Args:
        titles: how many, a whole number.
        qps: questions a second at the busiest; 0 for one machine, however many there are.
        settings: what a machine has, and what is asked of it.

    Raises:
        InputError: a number is out of range, or no number of such machines can do it.
    """
    if not _is_number(titles) or not 1 <= titles <= MOST_TITLES or titles != int(titles):
        raise InputError(f"titles must be a whole number from 1 to {MOST_TITLES:.0e}, not {_told(titles)}")
    if not _is_number(qps) or not 0 <= qps <= _MOST_QPS:
        raise InputError(f"qps must be a number from 0 to {_MOST_QPS:.0e}, not {_told(qps)}")
    return _Planner(int(titles), float(qps), settings or PlanSettings(), known_costs()).plan()


class _Planner:
    """One question put to the costs."""

    def __init__(self, titles: int, qps: float, settings: PlanSettings, costs: Costs) -> None:
        self.titles, self.qps, self.settings, self.costs = titles, qps, settings, costs
        self.measured = costs.measured
        self.reasons: list[str] = []
        cores = settings.cores / self.measured["cores"]
        self.cores = cores * EFFICIENCY if cores > 1 else cores  # times those measured
        self.text = (settings.product_bytes or self.measured["product_bytes"]) / self.measured["product_bytes"]
        self.generator = 0.0 if settings.decoding == "copy" else float(self.measured["generator"])
        # What an answer takes beside its search, milliseconds of the machine measured.
        service = self.measured["service"]
        self.answer = 1000 / service["answers_per_second"][settings.decoding] - self._at_once(service["titles"]).value

    def plan(self) -> Plan:
        """One machine with FAISS where that is enough, else Milvus."""
        least = max(self._high("memory of the build", 1), self._process(1) + self.measured["libraries"])
        if least > self.settings.memory * ROOM:
            raise InputError(
                f"--memory {_gb(self.settings.memory)}: a process that embeds or answers holds up to {_gb(least)}, however "
                "few titles there are; give more"
            )
        build = self._faiss_build()
        processes = self._processes(self.titles, self.disk(self.titles).high)
        self._say_if_too_much(build, processes)
        if self.reasons:
            search, build, alone = self._milvus(), self._milvus_build(), self._hours(1, _BY_MILVUS)
        else:
            search, alone = self._faiss(processes), self._hours(1)
        if build.engine == "ray":
            self.reasons.append(
                f"one machine would take {_hours(alone)}; {self.settings.max_build_hours:g} h are given: "
                f"{build.machines:,} Ray workers"
            )
        return Plan(
            self.titles, self.qps, self.settings, build, search, self.titles / max(self.measured["titles"]),
            tuple(self.measured["titles"]), self._costs(), tuple(self.reasons), self._assumptions(build, search),
        )  # fmt: skip

    def disk(self, titles: float) -> Estimate:
        """Bytes of an index."""
        return self.costs.growth["disk"].at(titles, {"texts and words": self.text})

    def _high(self, cost: str, titles: float | None = None) -> float:
        return self.costs.upper(cost, self.titles if titles is None else titles).high

    def _at_once(self, titles: float, rival: bool = False) -> Estimate:
        """Milliseconds of a question's search, of many together, on the machine measured."""
        return (self.costs.rival if rival else self.costs.growth)["question, at once"].at(titles)

    def _hours(self, workers: int, without: tuple[str, ...] = ()) -> Estimate:
        """Of the build, embedding on so many machines."""
        factors = dict.fromkeys(_PARALLEL, 1 / self.cores) | dict.fromkeys(_OF_TEXT, self.text)
        if self.settings.titles_per_second:
            measured = self.costs.growth["build"].parts["embed"].at(self.titles)
            factors["embed"] = self.titles / self.settings.titles_per_second / measured
        if workers > 1:
            factors |= {part: factors[part] / workers / EFFICIENCY for part in _BY_RAY}
        factors |= dict.fromkeys(without, 0.0)
        return self.costs.growth["build"].at(self.titles, factors).scaled(1 / 3600)

    def _only(self, *parts: str) -> tuple[str, ...]:
        """All other parts of the build."""
        return tuple(part for part in self.costs.growth["build"].parts if part not in parts)

    def _embedding(self, workers: int) -> float:
        return self._hours(workers, self._only("embed")).value

    def _workers(self, without: tuple[str, ...]) -> int | None:
        """Machines that clean and embed in time; None where the rest alone takes too long."""
        hours = self.settings.max_build_hours
        if self._hours(1, without).high <= hours:
            return 1
        rest = self._hours(1, (*without, *_BY_RAY)).high
        if rest >= hours:
            return None
        # The upper ends of both add up to a little more than that of their sum.
        return max(2, math.ceil(self._hours(1, self._only(*_BY_RAY)).high / EFFICIENCY / (hours - rest)))

    def _faiss_build(self) -> Build:
        workers = self._workers(())
        if workers is None:
            rest = self._hours(1, _BY_RAY)
            self.reasons.append(
                f"one machine makes a FAISS index in {_hours(rest)}, however many embed; {self.settings.max_build_hours:g} h are "
                "given: Milvus' nodes make theirs together"
            )
        count = workers or 1
        return Build(
            "ray" if count > 1 else "single", count, self._hours(count), self._embedding(count),
            self.costs.upper("memory of the build", self.titles), self._working(),
        )  # fmt: skip

    def _working(self) -> float:
        return self.titles * 4 * DIMENSION + self.disk(self.titles).high

    def _milvus_build(self) -> Build:
        """What makes a FAISS index is not done; how long Milvus indexes is not known."""
        count = self._workers(_BY_MILVUS) or 1  # all that is left is shared
        return Build(
            "ray" if count > 1 else "single", count, self._hours(count, _BY_MILVUS), self._embedding(count), None,
            self._working(),
        )  # fmt: skip

    def _process(self, titles: float) -> float:
        """Bytes that a process of `ragqa serve` has for itself at most."""
        return self._high("memory of a process", titles) + self.generator

    def _processes(self, titles: float, files: float) -> int:
        """Processes of `ragqa serve` that have their cores and room on a machine beside the index's files; 0 for none."""
        room: float = self.settings.memory * ROOM - self.measured["libraries"] - files
        of_cores = max(self.settings.cores // int(self.measured["cores"]), 1)
        return min(of_cores, max(math.floor(room / self._process(titles)), 0))

    def _say_if_too_much(self, build: Build, processes: int) -> None:
        """Why FAISS on one machine is not enough, if so."""
        memory, latency = self.settings.memory * ROOM, self.settings.max_latency_ms
        if processes == 0:
            needed = self.disk(self.titles).high + self.measured["libraries"] + self._process(self.titles)
            self.reasons.append(f"the whole index in memory takes up to {_gb(needed)}; {_gb(memory)} are there: Milvus")
        if build.memory and build.memory.high > memory:
            self.reasons.append(
                f"making a FAISS index takes up to {_gb(build.memory.high)} of memory; {_gb(memory)} are there: Milvus"
            )
        question = self.costs.upper("question, p50", self.titles)
        if question.high > latency:
            self.reasons.append(
                f"finding products takes one machine {question.value:,.0f} ms and up to {question.high:,.0f}; {latency:g} are given: "
                "shards, by Milvus"
            )

    def _rate(self, processes: int, milliseconds: float) -> float:
        """Answers a second of a machine."""
        together = processes * EFFICIENCY if processes > 1 else min(self.cores, 1.0)
        return together * LOAD * 1000 / milliseconds

    def _count(self, rate: float) -> int:
        """Machines for the questions a second."""
        return max(self.settings.min_replicas, math.ceil(self.qps / rate)) if self.qps else 1

    def _faiss(self, processes: int) -> Search:
        def rate(search: float) -> float:
            return self._rate(processes, self.answer + search)

        once, index = self._at_once(self.titles), self.disk(self.titles)
        machines, fewest, most = (self._count(rate(one)) for one in _ends(once))
        own = self.costs.growth["memory of a process"].at(self.titles)
        more = self.measured["libraries"] + processes * self.generator
        held = (more + files + processes * one for files, one in zip(_ends(index), _ends(own), strict=True))
        return Search(
            "faiss", machines, machines, 1, machines, processes, rate(once.value), Estimate(*held), 3 * index.high,
            self.costs.upper("question, p50", self.titles), (fewest, most),
            self._count(rate(self._at_once(self.titles, True).value)),
        )  # fmt: skip

    def _milvus(self) -> Search:
        shards = self._shards()
        part, index = self.titles / shards, self.disk(self.titles / shards).scaled(MILVUS_MEMORY)
        processes = self._processes(1, 0)
        beside = self._at_once(0).value
        rate = self._rate(processes, self.answer + beside)
        services = self._count(rate)

        def nodes(search: float) -> int:
            """Query nodes that compare so many milliseconds a shard and question, on the machine measured."""
            cores = self.qps * shards * max(search, 0.0) / 1000 * self.measured["cores"] / LOAD / EFFICIENCY
            groups = max(self.settings.min_replicas, math.ceil(cores / (shards * self.settings.cores)))
            return shards * (groups if self.qps else 1)

        count, fewest, most = (nodes(one - beside) for one in _ends(self._at_once(part)))
        otherwise = nodes(self._at_once(part, True).value - self._at_once(0, True).value)
        return Search(
            "milvus", count + services, count // shards, shards, services, processes, rate, index, index.high,
            self.costs.upper("question, p50", part), (fewest + services, most + services), otherwise + services,
        )  # fmt: skip

    def _shards(self) -> int:
        """The fewest that fit a machine's memory and the latency."""

        def enough(shards: int) -> bool:
            fits = self.disk(self.titles / shards).high * MILVUS_MEMORY <= self.settings.memory * ROOM
            return fits and self._high("question, p50", self.titles / shards) <= self.settings.max_latency_ms

        least = self._high("question, p50", 0)
        if least >= self.settings.max_latency_ms:
            raise InputError(
                f"--max-latency-ms {self.settings.max_latency_ms:g}: embedding a question and putting its candidates in order "
                f"takes up to {least:,.1f} ms, however few titles there are; give more"
            )
        return _smallest(enough, self.titles)

    def _costs(self) -> dict[str, Predicted]:
        return {
            name: Predicted(
                cost.unit,
                self.costs.growth[name].at(self.titles),
                self.costs.rival[name].at(self.titles).value if name in self.costs.rival else None,
                tuple(self.costs.growth[name].left_out()),
                cost.why,
            )
            for name, cost in COSTS.items()
        }

    def _assumptions(self, build: Build, search: Search) -> tuple[str, ...]:
        settings, measured = self.settings, self.measured
        told = [
            f"measured on {measured['machine']}, no GPU: all-MiniLM-L6-v2 in bfloat16, products of {measured['product_bytes']} "
            "bytes"
            + (f"; texts, words and their time taken {self.text:.2g} times as long" if settings.product_bytes else "")
        ]
        if settings.titles_per_second:
            told.append(f"{settings.titles_per_second:,.0f} titles/s a machine: your figure, not measured here")
        if settings.cores > measured["cores"] or build.machines > 1:
            told.append(
                f"cores beyond {measured['cores']}, and Ray's workers, give {EFFICIENCY:.0%} of what as many alone would (not measured)"
            )
        told.append(
            f"answers were measured with {measured['service']['titles']:,} products, their clients on the same cores, and take longer as "
            "search does; a process of "
            f"`ragqa serve` for each {measured['cores']} cores, busy {LOAD:.0%} of the time"
        )
        told.append(
            f"{ROOM:.0%} of a machine's memory is used, all files of the index being in it; a new generation's take their place"
        )
        if search.engine == "milvus":
            told.append(
                f"of Milvus nothing was measured: {MILVUS_MEMORY:g} times the bytes of ragqa's index in memory, searches as long as "
                "ragqa's of as many titles, shards searched together, no time on the network; its own indexing is not in the hours"
            )
        if settings.decoding == "copy":
            told.append("descriptions are copied; a generator on CPUs takes far more: --decoding extractive")
        return tuple(told)


def _smallest(enough: Callable[[int], bool], most: int) -> int:
    """The smallest number from 1 on that is enough, if more always is."""
    high = 1
    while high < most and not enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _told(value: object) -> str:
    """A value that cannot be used, for a message."""
    return f"{value:g}" if isinstance(value, float) else repr(value)[:40]


def _hours(estimate: Estimate) -> str:
    return f"{estimate.value:,.1f} h [{estimate.low:,.1f}, {estimate.high:,.1f}]"


def _ends(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"
