"""The pictures of `benchmarks.scale`: the build, a question, memory and files, each over the number of products."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.road import ROOT
from benchmarks.scale_report import PICTURE, PICTURES, WAYS, build_stages, costs

FILES: Final = {name: ROOT / "docs" / PICTURE.format(name) for name in PICTURES}
# Of Okabe and Ito's colours, which the colour-blind tell apart; the marks differ too.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#B8860B", "#555555")
_MARKS: Final = ("o", "s", "^", "v", "D", "P", "X", "<", ">")


def draw(result: dict[str, Any], paths: dict[str, Path]) -> None:
    """The build's stages, the time of a question, and memory and files, each over the number of products."""
    from matplotlib import rc_context

    sizes = [at["build"]["products"] for at in result["sizes"].values()]
    with rc_context({"svg.hashsalt": "ragqa", "svg.fonttype": "path", "font.size": 9}):
        build = {
            stage: [at["build"]["seconds"].get(stage) for at in result["sizes"].values()]
            for stage in ("total", *build_stages(result))
        }
        _save(paths["build"], sizes, [("build, seconds", {"all": build.pop("total")} | build, {})])
        ours = {name: [at["search"]["ms"][way]["p50"] for at in result["sizes"].values()] for way, name in WAYS.items()}
        _save(paths["question"], sizes, [("a question, p50, ms", ours, _of_peers(result, lambda p: p["ms"]["p50"]))])
        grows = costs(result)
        held = {
            "peak of the build": grows["peak memory of the build, MB"],
            "resident while searching": grows["resident while searching, MB"],
            "of it its own": grows["of it its own, MB"],
        }
        peers = _of_peers(result, lambda peer: peer["memory"]["resident"] / 1e6)
        parts = dict.fromkeys(name for at in result["sizes"].values() for name in at["build"]["parts"])
        files = {
            name: [at["build"]["parts"].get(name, 0) / 1e6 or None for at in result["sizes"].values()] for name in parts
        }
        disk = {"all": grows["on disk, MB"]} | {name: cost for name, cost in files.items() if (cost[-1] or 0) > 0.1}
        _save(paths["memory"], sizes, [("memory, MB", held, peers), ("on disk, MB", disk, {})])


def _of_peers(result: dict[str, Any], value: Any) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for at in result["sizes"].values() for name in at["peers"])
    ats = result["sizes"].values()
    return {name: [value(at["peers"][name]) if name in at["peers"] else None for at in ats] for name in names}


def _save(path: Path, sizes: Sequence[int], panels: Sequence[tuple[str, dict[str, Any], dict[str, Any]]]) -> None:
    """Lines on logarithmic axes, a panel for each kind of cost: of ragqa drawn through, of peers dashed and hollow."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    figure = Figure(figsize=(8 * len(panels), 4.4), layout="constrained")
    for axes, (label, ours, peers) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for number, (name, cost) in enumerate((ours | peers).items()):
            points = [(n, c) for n, c in zip(sizes, cost, strict=True) if c]
            mine = name in ours
            # A peer looks the same in all pictures, however many lines of ragqa's there are.
            look = number if mine else list(peers).index(name) + 3
            colour, mark = _COLOURS[look % len(_COLOURS)] if number else "#000000", _MARKS[look % len(_MARKS)]
            axes.plot(
                [n for n, _ in points], [c for _, c in points], color=colour, marker=mark,
                markersize=5, markerfacecolor=colour if mine else "white", linewidth=1.4 if mine else 1,
                linestyle="-" if mine else "--", label=name if not peers or not mine else f"ragqa: {name}",
            )  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="products", ylabel=label)
        axes.set_xticks(sizes, [f"{n / 1e6:.3g}M" if n >= 1e6 else f"{n / 1e3:.3g}k" for n in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        drawn = [c for cost in (ours | peers).values() for c in cost if c]
        if max(drawn) < 100 * min(drawn):
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path, metadata={"Date": None})
