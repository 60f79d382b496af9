"""A plan for the screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from ragqa.planning.growth import Estimate
from ragqa.planning.records import Plan

_ENGINES: Final = {
    ("single", "faiss"): "one machine builds, FAISS searches",
    ("ray", "faiss"): "Ray embeds, FAISS searches",
    ("single", "milvus"): "one machine embeds, Milvus searches",
    ("ray", "milvus"): "Ray embeds, Milvus searches",
}


def lines(plan: Plan) -> Iterator[str]:
    """The plan, its errors and its assumptions."""
    settings, build, search = plan.settings, plan.build, plan.search
    asked = f", {plan.qps:,g} questions a second" if plan.qps else ""
    yield f"{plan.titles:,} titles{asked}; machines of {settings.cores} cores and {_unit(settings.memory, 'bytes')}"
    if plan.times_measured > 1:
        yield (
            f"extrapolated: {plan.times_measured:,.1f} times the largest size that was measured, {max(plan.sizes):,}; the intervals "
            "say what the laws leave open, not whether the laws hold so far"
        )
    yield ""
    yield from _table(
        [
            ["engine", _ENGINES[build.engine, search.engine]],
            ["machines", _machines(plan)],
            ["build", f"{_hours(build.hours)}, of it embedding {build.embedding_hours:,.1f} h"],
            ["", f"{_count(build.machines, 'machine')}, {_memory(build.memory)}disk {_unit(build.disk, 'bytes')}"],
            ["search", _searching(plan)],
            ["", f"memory {_interval(search.memory, 'bytes')}, disk {_unit(search.disk, 'bytes')} a machine"],
            ["products found in", f"{_interval(search.p50_ms, 'ms')}, p50"],
        ]
    )
    if plan.reasons:
        yield ""
        yield "why"
        yield from (f"  {reason}" for reason in plan.reasons)
    yield ""
    yield "on the machine that was measured, and the error where a size was left out and predicted from the others"
    head = ["", "all titles", "95 % interval", "by another law", *(f"{size:,}" for size in plan.sizes)]
    rows = [head]
    for name, cost in plan.costs.items():
        estimate, unit = cost.estimate, cost.unit
        rows.append(
            [
                name,
                _unit(estimate.value, unit),
                f"{_unit(estimate.low, unit)} to {_unit(estimate.high, unit)}",
                "" if cost.otherwise is None else _unit(cost.otherwise, unit),
                *(f"{error:+.1%}" for error in cost.left_out),
            ]
        )
    yield from _table(rows)
    yield ""
    yield "assumed"
    yield from (f"  {assumption}" for assumption in plan.assumptions)


def _machines(plan: Plan) -> str:
    search = plan.search
    fewest, most = search.machines_between
    told = f"{search.machines:,}" + (f" [{fewest:,}, {most:,}]" if fewest < most else "")
    if search.engine == "milvus":
        told += f": {_count(search.shards * search.replicas, 'query node')} and {search.services:,} with ragqa serve"
    if search.machines_otherwise != search.machines:
        told += f" (a search that grows as sqrt(n) instead: {search.machines_otherwise:,})"
    return told


def _searching(plan: Plan) -> str:
    search = plan.search
    told = f"{_count(search.shards, 'shard')}, {_count(search.replicas, 'replica')}; {_count(search.processes, 'process', 'processes')} of ragqa serve "
    return told + f"a machine, {search.answers_per_second:,.1f} answers a second together"


def _memory(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"memory {_interval(estimate, 'bytes')}, "


def _hours(estimate: Estimate) -> str:
    return f"{estimate.value:,.1f} h [{estimate.low:,.1f}, {estimate.high:,.1f}]"


def _interval(estimate: Estimate, unit: str) -> str:
    return f"{_unit(estimate.value, unit)} [{_unit(estimate.low, unit)}, {_unit(estimate.high, unit)}]"


def _unit(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1e9:,.1f} GB" if value >= 1e9 else f"{value / 1e6:,.0f} MB"
    if unit == "s":
        return f"{value / 3600:,.1f} h" if value >= 3600 else f"{value:,.0f} s"
    return f"{value:,.0f} ms" if value >= 100 else f"{value:,.1f} ms"


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The first column to the left, the others to the right, or to the left where there are two."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = (
            others if len(rows[0]) == 2 else [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        )
        yield "  ".join([f"  {first:<{widths[0]}}", *cells]).rstrip()
