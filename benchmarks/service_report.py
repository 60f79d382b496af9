"""The result of `benchmarks.service` as Markdown and as a picture."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.pages import put
from benchmarks.road import HERE, README, ROOT

RESULT: Final = HERE / "results" / "service.json"
PICTURE: Final = ROOT / "docs" / "service.svg"
# Of Okabe and Ito's colours, which the colour-blind tell apart; the marks differ too.
_LOOKS: Final = (("#0072B2", "o"), ("#009E73", "^"), ("#D55E00", "s"), ("#CC79A7", "D"))
_MARK: Final = 16  # clients
_ABOUT: Final = {
    "copy": "titles in part; the first candidate's description, no generator",
    "exact titles": "exact titles, as by default; the generator is there and not needed",
    "extractive": "titles in part; the generator reads three candidates and chooses",
    "free": "titles in part; the adapter's model writes up to 128 tokens",
}


def at(loads: list[dict[str, Any]], clients: int) -> dict[str, Any] | None:
    """The load with so many clients."""
    return next((load for load in loads if load["clients"] == clients), None)


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    versions, dtype = result["versions"], f"; models in {result['dtype']}" if "dtype" in result else ""
    measured = [found | {"overload": None} for found in result["modes"].values()]
    measured += [found["overload"] for found in result["modes"].values() if "commit" in found.get("overload", {})]
    commits = dict.fromkeys(f"`{found['commit']}`" for found in measured)
    lines = [
        f"Measured on {result['date']} at commit {', '.join(commits)}: {result['machine']}, shared by server and clients, "
        f"Python {result['python']}, no GPU; torch {versions['torch']}, uvicorn {versions['uvicorn']}, fastapi "
        f"{versions['fastapi']}{dtype}. {result['products']:,} products. Milliseconds at the client.",
        "",
        "| mode | clients | one at a time: answers/s | p50 | p95 | p99 | batches: answers/s | p50 | p95 | p99 | times as many |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for mode, found in result["modes"].items():
        for load in found["ways"]["batches"]:
            single = at(found["ways"]["one at a time"], load["clients"])
            cells = [_cells(single), _cells(load)]
            gain = f"{load['answers_per_second'] / single['answers_per_second']:.2f}" if single else ""
            lines.append(f"| {mode} | {load['clients']} | {' | '.join(cells)} | {gain} |")
    lines += ["", *[f"*{mode}*: {_ABOUT[mode]}." for mode in result["modes"]], "", *_marks(result)]
    every = [load for found in result["modes"].values() for way in found["ways"].values() for load in way]
    every += [found["overload"] for found in result["modes"].values() if "overload" in found]
    lines += [
        "",
        f"Of {sum(load['answers'] for load in every):,} answers {sum(load['wrong'] for load in every)} were another "
        f"question's; {sum(load['lost'] for load in every)} requests were lost, {sum(load['hung'] for load in every)} hung.",
    ]
    return "\n".join(lines)


def _cells(load: dict[str, Any] | None) -> str:
    if load is None:
        return " | ".join([""] * 4)
    per_second = load["answers_per_second"]
    return " | ".join(
        [f"{per_second:.0f}" if per_second >= 20 else f"{per_second:.1f}"]
        + [f"{1000 * load[name]:.0f}" if load[name] is not None else "" for name in ("p50", "p95", "p99")]
    )


def _marks(result: dict[str, Any]) -> list[str]:
    lines = [
        "| mark | wanted | " + " | ".join(result["modes"]) + " |",
        "|---|---|" + "---|" * len(result["modes"]),
    ]
    gains, waits = [], []
    for found in result["modes"].values():
        load, single = at(found["ways"]["batches"], _MARK), at(found["ways"]["one at a time"], _MARK)
        alone = at(found["ways"]["batches"], 1)
        gains.append(f"{load['answers_per_second'] / single['answers_per_second']:.2f}" if load and single else "")
        waits.append(f"{load['p95'] / alone['p50']:.1f}" if load and alone else "")
    lines += [
        f"| answers/s with {_MARK} clients, times one at a time | at least 3 | {' | '.join(gains)} |",
        f"| p95 with {_MARK} clients, times the p50 of one client | under 3 | {' | '.join(waits)} |",
    ]
    overloads = [found.get("overload") for found in result["modes"].values()]
    for what, wanted, tell in (
        ("twice the load: offered a second", "", lambda o: f"{o['offered_per_second']:.0f}"),
        ("answered a second, of what can be borne", "", lambda o: f"{o['answered_per_second'] / o['best']:.0%}"),
        ("refused with 503", "", lambda o: f"{o['statuses'].get('503', 0) / o['offered']:.0%}"),
        ("p95 of those answered, s", "", lambda o: f"{o['p95']:.1f}"),
        ("as fast as before after, s", "under 5", lambda o: f"{o['recovered_after']:.1f}"),
    ):
        lines.append(f"| {what} | {wanted} | {' | '.join(tell(one) if one else '' for one in overloads)} |")
    return lines


def draw(result: dict[str, Any]) -> None:
    """Answers a second, and the time of an answer, over the number of clients."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    with rc_context({"svg.hashsalt": "ragqa", "svg.fonttype": "path", "font.size": 9}):
        figure = Figure(figsize=(13, 4.4), layout="constrained")
        for axes, (label, name, factor) in zip(
            figure.subplots(1, 2), (("answers a second", "answers_per_second", 1), ("p95 of an answer, ms", "p95", 1000)),
            strict=True,
        ):  # fmt: skip
            numbers: set[int] = set()
            for (colour, mark), (mode, found) in zip(_LOOKS, result["modes"].items(), strict=False):
                for way, loads in found["ways"].items():
                    clients = [load["clients"] for load in loads]
                    numbers |= set(clients)
                    batched = way == "batches"
                    axes.plot(
                        clients, [factor * load[name] for load in loads], color=colour, marker=mark, markersize=5,
                        markerfacecolor=colour if batched else "white", linestyle="-" if batched else "--",
                        linewidth=1.4 if batched else 1, label=f"{mode}, {way}",
                    )  # fmt: skip
            axes.set(xscale="log", yscale="log", xlabel="clients", ylabel=label)
            axes.set_xticks(sorted(numbers), [str(number) for number in sorted(numbers)])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(
                FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
            )
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.grid(color="0.9")
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        figure.savefig(PICTURE, metadata={"Date": None})


def write_tables(result: dict[str, Any]) -> None:
    """Put the table into benchmarks/README.md, and draw the picture."""
    put(README, "service", table(result))
    draw(result)
