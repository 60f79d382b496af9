"""The pictures of a report, as SVG that looks the same on every machine and in every run.

Letters are drawn as outlines, so that no font is needed and nothing moves. Arms differ in colour (Okabe and Ito 2008,
which the colour-blind tell apart) and in marker; hollow markers are arms that read no context.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from ragqa.report.blocks import Picture
from ragqa.report.reading import COPY, OWN, PLAIN, RANKS, SETS, Reading, Row, group_label

_BLACK, _ORANGE, _SKY, _GREEN, _BLUE, _RED, _PINK, _GREY = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#6B6B6B",
)  # fmt: skip
_STYLES: Final = {
    COPY: (_BLACK, "s"),
    "copy_bm25": (_GREY, "D"),
    "base": (_SKY, "v"),
    "base_context": (_SKY, "^"),
    PLAIN: (_ORANGE, "v"),
    "plain_context": (_ORANGE, "^"),
    OWN: (_BLUE, "o"),
    "retrieval_gold": (_GREEN, "*"),
    "retrieval": (_BLUE, "v"),
    "retrieval_written": (_RED, "X"),
    "choice_without_model": (_PINK, "P"),
}
_SET_STYLES: Final = {"unseen": (_BLUE, "o"), "seen": (_ORANGE, "s")}
_MODES: Final = {"plain": (_ORANGE, "v"), "retrieval": (_BLUE, "o")}
_RETRIEVERS: Final = {"ragqa": ("ragqa", _BLUE, "o"), "bm25": ("BM25", _GREY, "D")}
_INTERVAL: Final = "95 % interval"


def draw_all(reading: Reading) -> list[Picture]:
    """Every picture that the result has figures for, in the order of the report."""
    pictures = [
        forest(reading),
        gain(reading),
        panels(reading, "kinds", reading.kinds, "kind of question"),
        panels(reading, "ranks", [g for g in RANKS if g in reading.groups], "rank of the right product"),
        learning(reading),
        latency(reading),
        risk(reading),
        recall(reading),
    ]
    return [picture for picture in pictures if picture is not None]


def _style(reading: Reading, arm: str) -> dict[str, Any]:
    """Colour and marker of an arm; hollow where it reads no context."""
    colour, marker = _STYLES.get(arm, (_GREY, "h"))
    hollow = reading.raw["arms"][arm].get("context") == "none"
    return {"color": colour, "marker": marker, "markerfacecolor": "white" if hollow else colour, "markersize": 6}


def _dot(axes: Axes, x: float, y: float, row: Row, style: dict[str, Any], **more: Any) -> None:
    """A mean with its interval, across."""
    spread = None
    if row.get("low") is not None and row.get("high") is not None:
        spread = [[max(0.0, x - row["low"])], [max(0.0, row["high"] - x)]]
    axes.errorbar(x, y, xerr=spread, linestyle="none", elinewidth=1.4, capsize=2, **style, **more)


def forest(reading: Reading) -> Picture | None:
    """F1 of all arms on all sets."""
    arms = [arm for arm in reading.arms if any(reading.cell(arm, name) for name in reading.sets)]
    if not arms:
        return None
    figure = _figure(8.0, 1.3 + 0.42 * len(arms))
    axes = figure.subplots()
    for place, arm in enumerate(arms):
        for i, name in enumerate(reading.sets):
            if row := reading.cell(arm, name):
                colour, marker = _SET_STYLES[name]
                style = {"color": colour, "marker": marker, "markersize": 6}
                shift = 0.15 * (2 * i - (len(reading.sets) - 1))
                _dot(
                    axes,
                    row["mean"],
                    place + shift,
                    row,
                    style,
                    label=SETS[name] if name in _first(reading, arms, arm) else None,
                )
    _names(axes, [reading.label(arm) for arm in arms])
    axes.set(xlabel=f"F1 (0 to 1; mean and {_INTERVAL})", xlim=(-0.02, 1.02))
    _legend(figure, axes, columns=2)
    return _picture(reading, figure, "forest", f"F1 of every arm with its {_INTERVAL}, by set of questions.")


def _first(reading: Reading, arms: Sequence[str], arm: str) -> list[str]:
    """Sets that this arm is the first to have figures for: their names stand in the legend once."""
    before = arms[: arms.index(arm)]
    return [name for name in reading.sets if not any(reading.cell(other, name) for other in before)]


def gain(reading: Reading) -> Picture | None:
    """What retrieval-conditioned fine-tuning adds to retrieve and return, over all and by kind of question."""
    groups = ["all", *reading.kinds]
    pairs = {(g, name): reading.pair(OWN, COPY, name, g) for g in groups for name in reading.sets}
    groups = [g for g in groups if any(pairs[g, name] for name in reading.sets)]
    if not groups:
        return None
    figure = _figure(8.0, 1.5 + 0.45 * len(groups))
    axes = figure.subplots()
    axes.axvline(0, color=_GREY, linewidth=1)
    named = set()
    for (group, name), row in pairs.items():
        if row is not None:
            colour, marker = _SET_STYLES[name]
            place = groups.index(group) + 0.15 * (2 * reading.sets.index(name) - (len(reading.sets) - 1))
            style = {"color": colour, "marker": marker, "markersize": 6, "label": None if name in named else SETS[name]}
            _dot(axes, row["difference"], place, row, style)
            named.add(name)
    _names(axes, [group_label(g) for g in groups])
    axes.set(xlabel=f"difference in F1 (mean and {_INTERVAL})")
    _legend(figure, axes, columns=2)
    caption = f"{reading.label(OWN)} minus {reading.label(COPY)}, over all and by kind: right of zero it is better."
    return _picture(reading, figure, "gain", caption)


def panels(reading: Reading, file: str, groups: Sequence[str], what: str) -> Picture | None:
    """F1 of all arms on the main set, a panel for each group of questions."""
    name = reading.main_set
    arms = [arm for arm in reading.arms if any(reading.cell(arm, name, g) for g in groups)]
    groups = [g for g in groups if any(reading.cell(arm, name, g) for arm in arms)]
    if not groups:
        return None
    figure = _figure(3.2 + 1.75 * len(groups), 1.7 + 0.32 * len(arms))
    for column, (axes, group) in enumerate(zip(_across(figure, len(groups), sharey=True), groups, strict=True)):
        asked = 0
        for place, arm in enumerate(arms):
            if row := reading.cell(arm, name, group):
                _dot(axes, row["mean"], place, row, _style(reading, arm) | {"markersize": 5})
                asked = max(asked, row["n"])
        axes.set_title(f"{_wrapped(group_label(group))}\n({asked:,} questions)", fontsize=9)
        axes.set_xlim(-0.04, 1.04)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        if column == 0:
            _names(axes, [reading.label(arm) for arm in arms])
        else:
            axes.tick_params(axis="y", length=0)
    figure.supxlabel(f"F1 (0 to 1; mean and {_INTERVAL})", fontsize=10)
    return _picture(reading, figure, file, f"F1 by {what}, {SETS[name]}. Hollow markers: arms that read no context.")


def _wrapped(text: str) -> str:
    """Words over several lines, each short enough for a narrow panel."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) > 17:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def learning(reading: Reading) -> Picture | None:
    """F1 and validation loss over training examples."""
    rows = [row for row in reading.analysis.get("curve", ()) if row["metric"] == "f1" and row["mean"] is not None]
    runs = [
        (run, points)
        for run in reading.raw["training"]
        if (points := [(e["examples"], e["eval_loss"]) for e in run["history"] if e.get("eval_loss") is not None])
    ]
    if not rows and not runs:
        return None
    drawn = [draw for draw, there in ((_curve, rows), (_losses, runs)) if there]
    figure = _figure(5.0 * len(drawn) if len(drawn) > 1 else 6.0, 3.6)
    panes = _across(figure, len(drawn))
    for axes, draw in zip(panes, drawn, strict=True):
        draw(axes, rows if draw is _curve else runs)
    _legend(figure, max(panes, key=lambda axes: len(axes.get_legend_handles_labels()[1])), columns=2)
    shown = " and ".join(name for name, there in (("F1", rows), ("validation loss", runs)) if there)
    return _picture(reading, figure, "learning", f"{shown[0].upper()}{shown[1:]} over the number of training examples.")


def _curve(axes: Axes, rows: Sequence[Any]) -> None:
    for mode, (colour, marker) in _MODES.items():
        found = sorted((row for row in rows if row["mode"] == mode), key=lambda row: row["examples"])
        if found:
            x, y = [row["examples"] for row in found], [row["mean"] for row in found]
            if all(row.get("low") is not None and row.get("high") is not None for row in found):
                axes.fill_between(
                    x, [r["low"] for r in found], [r["high"] for r in found], color=colour, alpha=0.15, lw=0
                )
            axes.plot(x, y, color=colour, marker=marker, label=f"{mode} fine-tuning")
    axes.set(xlabel="training examples", ylabel=f"F1 (0 to 1; band: {_INTERVAL})", ylim=(-0.02, 1.02))


def _losses(axes: Axes, runs: Sequence[Any]) -> None:
    named = set()
    for run, points in runs:
        colour, marker = _MODES.get(run["mode"], (_GREY, "h"))
        label = f"{run['mode']} fine-tuning" if run["mode"] not in named else None
        named.add(run["mode"])
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=4, label=label)
    axes.set(xlabel="training examples seen", ylabel="validation loss (nats a token)", ylim=(0, None))


def latency(reading: Reading) -> Picture | None:
    """F1 on the main set against the time of an answer."""
    name = reading.main_set
    found = [
        (arm, row, cost)
        for arm in reading.arms
        if (row := reading.cell(arm, name)) and (cost := reading.cost(arm)) and cost.get("median_ms")
    ]
    if not found:
        return None
    figure = _figure(8.5, 4.2)
    axes = figure.subplots()
    for arm, row, cost in found:
        style = _style(reading, arm)
        spread = None
        if row.get("low") is not None and row.get("high") is not None:
            spread = [[max(0.0, row["mean"] - row["low"])], [max(0.0, row["high"] - row["mean"])]]
        slow = [[0.0], [max(0.0, (cost.get("p95_ms") or cost["median_ms"]) - cost["median_ms"])]]
        axes.errorbar(cost["median_ms"], row["mean"], yerr=spread, xerr=slow, linestyle="none", elinewidth=1.1, **style)
        axes.plot([], [], linestyle="none", label=reading.label(arm), **style)  # the legend shows the marker alone
    axes.set_xscale("log")
    times = [t for _, _, cost in found for t in (cost["median_ms"], cost.get("p95_ms") or cost["median_ms"])]
    _milliseconds(axes, max(min(times), 1e-3), min(max(times), 5e6))
    axes.set(xlabel="time of an answer (ms, log scale)", ylabel=f"F1 (0 to 1; {_INTERVAL})", ylim=(-0.02, 1.02))
    _legend(figure, axes, columns=1, right=True)
    caption = f"Quality against time, {SETS[name]}. Lines across go from the median time to the time 95 % stay within."
    return _picture(reading, figure, "latency", caption)


def _milliseconds(axes: Axes, least: float, most: float) -> None:
    """Ticks at 1, 2 and 5 times powers of ten around the figures, written out; fewer where they would crowd."""
    ticks = [step * 10.0**power for power in range(-3, 7) for step in (1, 2, 5)]
    if most / least > 30:
        ticks = [10.0**power for power in range(-3, 7)]
    below, above = max(t for t in ticks if t <= least), min(t for t in ticks if t >= most)
    axes.set_xlim(below / 1.2, above * 1.2)
    axes.xaxis.set_major_locator(FixedLocator([t for t in ticks if below <= t <= above]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def risk(reading: Reading) -> Picture | None:
    """Risk-coverage curves of the arms that state a confidence, on the main set."""
    rows = [
        row
        for row in reading.analysis.get("abstention", ())
        if row["set"] == reading.main_set and row.get("curve") and row["arm"] in reading.raw["arms"]
    ]
    if not rows:
        return None
    figure = _figure(8.0, 3.9)
    axes = figure.subplots()
    for row in rows:
        colour, marker = _STYLES.get(row["arm"], (_GREY, "h"))
        x, y = zip(*row["curve"], strict=True)
        # A few markers tell the curves apart without hiding them.
        every = max(1, len(x) // 8)
        axes.plot(
            x, y, color=colour, marker=marker, markevery=every, markersize=5, lw=1.4, label=reading.label(row["arm"])
        )
    axes.set(xlabel="coverage (share of questions answered)", ylabel="risk (share of answers that are wrong)")
    axes.set(xlim=(0, 1.02), ylim=(0, max(0.05, *(1.08 * risk for row in rows for _, risk in row["curve"]))))
    _legend(figure, axes, columns=1, right=True)
    caption = (
        f"Risk against coverage as the threshold falls, questions about {SETS[reading.main_set]}. Lower is better; an answer is right "
        "if it matches exactly, and none is to a question without a product."
    )
    return _picture(reading, figure, "risk", caption)


def recall(reading: Reading) -> Picture | None:
    """How often the right product is among the first k, by set."""
    cells = {
        (r["retriever"], r["set"], r["metric"]): r for r in reading.analysis.get("retrieval", ()) if r["group"] == "all"
    }
    sets = [name for name in reading.sets if any(key[1] == name for key in cells)]
    if not sets:
        return None
    figure = _figure(1.6 + 3.4 * len(sets), 3.6)
    for column, (axes, name) in enumerate(zip(_across(figure, len(sets), sharey=True), sets, strict=True)):
        for i, (retriever, (label, colour, marker)) in enumerate(_RETRIEVERS.items()):
            found = [
                (at, row) for at, k in enumerate((1, 3, 10)) if (row := cells.get((retriever, name, f"recall@{k}")))
            ]
            if not found:
                continue
            x, y = [at + 0.1 * i for at, _ in found], [row["mean"] for _, row in found]
            spread = None
            if all(row.get("low") is not None and row.get("high") is not None for _, row in found):
                spread = [
                    [max(0.0, r["mean"] - r["low"]) for _, r in found],
                    [max(0.0, r["high"] - r["mean"]) for _, r in found],
                ]
            axes.errorbar(x, y, yerr=spread, color=colour, marker=marker, capsize=2, lw=1.4, label=label)
        axes.set_xticks([0.05, 1.05, 2.05], ["1", "3", "10"])
        axes.set(xlabel="k (candidates looked at)", title=SETS[name], ylim=(0, 1.03), xlim=(-0.3, 2.4))
        if column == 0:
            axes.set_ylabel(f"recall@k (0 to 1; {_INTERVAL})")
    _legend(figure, figure.axes[0], columns=2)
    return _picture(reading, figure, "recall", "How often the right product is among the first k candidates.")


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _across(figure: Figure, count: int, sharey: bool = False) -> list[Axes]:
    return list(figure.subplots(1, count, squeeze=False, sharey=sharey)[0])


def _names(axes: Axes, labels: Sequence[str]) -> None:
    """Rows named at the left, the first on top."""
    # No text of an analysis is mathematics, whatever dollar signs it has.
    axes.set_yticks(range(len(labels)), [label.replace("$", r"\$") for label in labels], fontsize=9)
    axes.set_ylim(len(labels) - 0.5, -0.5)


def _legend(figure: Figure, axes: Axes, columns: int, right: bool = False) -> None:
    """Outside the axes, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    place: Any = "outside right upper" if right else "outside lower center"
    figure.legend(handles, labels, loc=place, ncols=columns, edgecolor="none", fontsize=9)


def _picture(reading: Reading, figure: Figure, name: str, caption: str) -> Picture:
    for axes in figure.axes:
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    catalogue = str(reading.raw["catalogue"]["name"])
    return Picture(name, f"{caption} Catalogue: {catalogue}.", _svg(figure, name))


def _svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element without dates, addresses or names that another picture on the page has, too."""
    FigureCanvasSVG(figure)
    file = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata=nothing)
    svg = file.getvalue().decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.S)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
