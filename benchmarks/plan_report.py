"""What `benchmarks.plan` fitted, as the tables and the picture of docs/scale.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from benchmarks.pages import put
from benchmarks.road import ROOT
from benchmarks.scale_report import exponent
from ragqa.planning.costs import COSTS, Costs, fitted
from ragqa.planning.plan import plan
from ragqa.planning.records import PlanSettings

PAGE: Final = ROOT / "docs" / "scale.md"
_FAR: Final = 300_000_000
PICTURE: Final = ROOT / "docs" / "scale-plan.svg"
# Unit -> how it is shown, and by what it is divided.
_SHOWN: Final = {"bytes": ("MB", 1e6), "s": ("s", 1.0), "ms": ("ms", 1.0)}
# Titles, questions a second, gigabytes and cores of a machine, hours.
_PLANS: Final = (
    (1_300_000, 50, 16, 4, 24),
    (10_000_000, 200, 64, 16, 24),
    (10_000_000, 200, 64, 16, 1),
    (100_000_000, 500, 64, 16, 24),
    (300_000_000, 2000, 64, 16, 24),
    (300_000_000, 2000, 64, 16, 6),
)


def tables(measured: dict[str, Any]) -> dict[str, str]:
    """Mark -> table."""
    costs = fitted(measured)
    return {"costs": _costs(costs), "laws": _laws(costs), "plans": _plans()}


def write_tables(measured: dict[str, Any]) -> None:
    """Put the tables between their marks, and draw the picture."""
    for mark, text in tables(measured).items():
        put(PAGE, mark, text)
    draw(fitted(measured), PICTURE)


def _costs(costs: Costs) -> str:
    """Cost for each million titles at each size: where it does not change from size to size, the cost grows like the titles."""
    titles = costs.measured["titles"]
    of = costs.measured["from"]["scale"]
    lines = [
        f"| for each million titles | {' | '.join(f'{size:,}' for size in titles)} | times | e of the last two |",
        "|---" * (len(titles) + 3) + "|",
    ]
    for name, cost in COSTS.items():
        if cost.unit == "ms":  # of one question
            continue
        unit, by = _SHOWN[cost.unit]
        lines.append(_row(f"{name}, {unit}", [1e6 / n * one / by for n, one in _of(costs, name)], costs, name))
    lines += ["", f"| of a question | {' | '.join(f'{size:,}' for size in titles)} | times | e of the last two |"]
    lines.append("|---" * (len(titles) + 3) + "|")
    lines += [
        _row(f"{name}, ms", [one for _, one in _of(costs, name)], costs, name)
        for name, cost in COSTS.items()
        if cost.unit == "ms"
    ]
    return "\n".join(
        [
            *lines,
            "",
            f"Measured on {' to '.join(dict.fromkeys((of['date'][0], of['date'][-1])))}: {costs.measured['machine']}, no GPU, "
            f"products of {costs.measured['product_bytes']} bytes as JSON. *Times*: the whole cost of the largest size by that of "
            f"the smallest, {titles[-1] / titles[0]:,.0f} times as many titles; *e*: cost ~ n^e between the two largest.",
        ]
    )  # fmt: skip


def _row(name: str, cells: list[float], costs: Costs, cost: str) -> str:
    titles, whole = zip(*_of(costs, cost), strict=True)
    slope = exponent(titles[-2:], whole[-2:])
    shown = " | ".join(f"{cell:,.0f}" if cell >= 100 else f"{cell:,.1f}" for cell in cells)
    return f"| {name} | {shown} | {whole[-1] / whole[0]:,.1f} | {slope:.2f} |"


def _of(costs: Costs, name: str) -> list[tuple[float, float]]:
    """The sizes and the whole cost at each."""
    parts = costs.measured["costs"][name].values()
    return [(n, sum(part[place] for part in parts)) for place, n in enumerate(costs.measured["titles"])]


def _laws(costs: Costs) -> str:
    titles = costs.measured["titles"]
    lines = [
        f"| cost | grows as | why | {' | '.join(f'{size:,}' for size in titles)} |",
        "|---" * (len(titles) + 3) + "|",
    ]
    for name, cost in COSTS.items():
        for laws, why, growth in (
            (cost.laws, cost.why, costs.growth[name]),
            (cost.rival, "*the other law*", costs.rival.get(name)),
        ):
            if growth is not None:
                terms = dict.fromkeys(
                    term for law in laws.values() for term in (("vectors, known",) if law.known else law.terms)
                )
                errors = " | ".join(f"{error:+.1%}" for error in growth.left_out())
                lines.append(f"| {name} | {', '.join(terms)} | {why} | {errors} |")
    once, other = costs.growth["question, at once"], costs.rival["question, at once"]
    lines += [
        "",
        "Where two laws could be argued for, the one is taken that says better what was left out, and the other is shown beside it. "
        f"They part where it matters: at {_FAR:,} titles a search that grows as n costs {once.at(_FAR).value / other.at(_FAR).value:,.0f} "
        "times as much as one that grows as the square root. What was measured speaks for n: predicted from the smaller sizes, "
        f"the largest is {-other.left_out()[-1]:.0%} too little by sqrt(n), and {-once.left_out()[-1]:.0%} by n.",
    ]
    return "\n".join(lines)


def _faiss_ends() -> int:
    """Millions of titles up to which FAISS is enough on the machines that `PlanSettings` begins with."""
    return next(millions for millions in range(1, 1000) if plan(1e6 * (millions + 1)).search.engine == "milvus")


def _plans() -> str:
    ends = _faiss_ends()
    lines = [
        f"On machines with 16 cores and 64 GB, within 24 hours and 100 ms, FAISS is enough up to {ends} million titles; beyond, "
        f"{plan(1e6 * (ends + 1)).reasons[0]}. Some plans, machines that answer with [the ends of the interval]; and if search "
        "grows as sqrt(n):",
        "",
        "| titles | questions/s | machines of | build within | engine | machines that answer | build | memory a machine | products found in, p50 |",
        "|---" * 9 + "|",
    ]
    for titles, qps, memory, cores, hours in _PLANS:
        found = plan(titles, qps, PlanSettings(memory=memory * 1e9, cores=cores, max_build_hours=hours))
        build, search = found.build, found.search
        by = "Ray" if build.engine == "ray" else "one machine"
        fewest, most = search.machines_between
        cells = [
            f"{titles:,}", f"{qps:,}", f"{cores} cores, {memory} GB", f"{hours} h",
            f"{by}, {'FAISS' if search.engine == 'faiss' else f'Milvus, {search.shards} shards'}",
            f"{search.machines:,} [{fewest:,}, {most:,}]; {search.machines_otherwise:,}",
            f"{build.hours.value:,.1f} h on {build.machines}", f"{search.memory.value / 1e9:,.1f} GB",
            f"{search.p50_ms.value:,.0f} ms, up to {search.p50_ms.high:,.0f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(costs: Costs, path: Path) -> None:
    """What was measured, the laws with their intervals, and each size as it is predicted from the others."""
    import numpy as np
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    titles = costs.measured["titles"]
    many = np.geomspace(titles[0], _FAR, 60)
    panels = {
        "disk": ("index on disk, GB", 1e9), "memory of the build": ("memory of the build, GB", 1e9),
        "build": ("build on 2 cores, hours", 3600), "question, at once": ("of many questions each, ms on 2 cores", 1.0),
    }  # fmt: skip
    with rc_context({"svg.hashsalt": "ragqa", "svg.fonttype": "path", "font.size": 9}):
        figure = Figure(figsize=(10, 6.6), layout="constrained")
        for axes, (name, (label, by)) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
            estimates = [costs.growth[name].at(n) for n in many]
            low = [max(one.low, one.value / 20) / by for one in estimates]
            axes.fill_between(many, low, [one.high / by for one in estimates], color="#56B4E9", alpha=0.3, linewidth=0, label="95 % interval")  # fmt: skip
            axes.plot(many, [one.value / by for one in estimates], color="#0072B2", linewidth=1.4, label="the law")
            if name in costs.rival:
                other = [costs.rival[name].at(n).value / by for n in many]
                axes.plot(many, other, color="#D55E00", linewidth=1, linestyle="--", label="the other law")
            measured = np.array([one for _, one in _of(costs, name)])
            predicted = measured * (1 + np.array(costs.growth[name].left_out()))
            axes.plot(titles, predicted / by, color="#D55E00", marker="s", markersize=7, markerfacecolor="none", linestyle="", label="left out and predicted")  # fmt: skip
            axes.plot(titles, measured / by, color="#000000", marker="o", markersize=4, linestyle="", label="measured")
            axes.axvspan(titles[-1], many[-1], color="0.95", zorder=-1)
            axes.set(xscale="log", yscale="log", xlabel="titles; grey: extrapolated", ylabel=label)
            axes.grid(color="0.9")
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(loc="upper left", frameon=False)
        figure.savefig(path, metadata={"Date": None})
