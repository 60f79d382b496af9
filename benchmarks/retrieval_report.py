"""What `benchmarks.retrieval` found: tables and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from benchmarks.pages import put
from benchmarks.road import HERE, README, ROOT

RESULT: Final = HERE / "results" / "retrieval.json"
PICTURE: Final = ROOT / "docs" / "retrieval.svg"
# Of Okabe and Ito's colours, which the colour-blind tell apart; ours is the last and the darkest.
_COLOURS: Final = ("#999999", "#56B4E9", "#E69F00", "#CC79A7", "#009E73", "#F0E442", "#D55E00", "#0072B2", "#000000")
_MARKS: Final = ("o", "s", "^", "v", "D", "P", "X", "<", "*")


def _three(found: list[float], sign: str = "") -> str:
    return f"{found[0]:{sign}.3f} [{found[1]:{sign}.3f}, {found[2]:{sign}.3f}]"


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    machine = result["machine"]
    parts = [
        f"Measured on {machine['date']} at commit `{machine['commit']}`: {machine['machine']}, no GPU; "
        f"{', '.join(f'{name} {version}' for name, version in result['versions'].items() if name not in ('python', 'ragqa'))}. In brackets 95 % intervals, "
        "resampled by product; *difference*: ragqa less the best of the others."
    ]
    for name, found in result["catalogues"].items():
        parts += [_made(name, found), *(_shoppers(kind, one) for kind, one in found["shoppers"].items())]
    return "\n\n".join(parts)


def _made(name: str, found: dict[str, Any]) -> str:
    made = found["made"]
    kinds = list(made["against"])
    lines = [
        f"**{name}**, {found['products']:,} products, {made['questions']:,} made questions: recall@1 by kind, and over all "
        "kinds recall@10, MRR@10 and nDCG@10",
        "",
        f"| method | {' | '.join(kinds)} | recall@10 | MRR@10 | nDCG@10 |",
        "|---" * (len(kinds) + 4) + "|",
    ]
    for method, scores in made["methods"].items():
        cells = [
            _three(scores[kind]["recall@1"]) if kind == "all" else f"{scores[kind]['recall@1'][0]:.3f}"
            for kind in kinds
        ]
        cells += [f"{scores['all'][measure][0]:.3f}" for measure in ("recall@10", "mrr@10", "ndcg@10")]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    cells = [
        f"{_three(made['against'][kind]['difference'], '+')} ({made['against'][kind]['method']})" for kind in kinds
    ]
    lines.append(f"| *difference* | {' | '.join(cells)} | | | |")
    cells = [f"{made['ambiguous'][kind]:.3f}" for kind in kinds]
    lines.append(f"| *of them ambiguous* | {' | '.join(cells)} | | | |")
    return "\n".join(lines)


def _shoppers(kind: str, found: dict[str, Any]) -> str:
    against = found["against"]
    lines = [
        f"The same, {found['queries']} shoppers' queries, {kind}",
        "",
        "| method | nDCG@10 | first is suitable | not graded of the first 10 |",
        "|---|---|---|---|",
        *(
            f"| {method} | {_three(scores['ndcg@10'])} | {_three(scores['suitable@1'])} | {scores['ungraded']:.3f} |"
            for method, scores in found["methods"].items()
        ),
        f"| *difference* | {_three(against['difference'], '+')} ({against['method']}) | | |",
    ]
    return "\n".join(lines)


def write_tables(result: dict[str, Any]) -> None:
    """Put the tables between their marks in benchmarks/README.md, and draw the picture."""
    put(README, "retrieval", table(result))
    draw(result, PICTURE)


def draw(result: dict[str, Any], path: Path) -> None:
    """For each catalogue recall@1 by kind of question, and nDCG@10 of shoppers' queries, of all methods."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    catalogues = result["catalogues"]
    with rc_context({"svg.hashsalt": "ragqa", "svg.fonttype": "path", "font.size": 9}):
        figure = Figure(figsize=(10, 3.6 * len(catalogues) + 0.6), layout="constrained")
        panels = figure.subplots(len(catalogues), 1, squeeze=False)[:, 0]
        for axes, (name, found) in zip(panels, catalogues.items(), strict=True):
            made, shoppers = found["made"], found["shoppers"]
            groups = {kind: {m: s[kind]["recall@1"] for m, s in made["methods"].items()} for kind in made["against"]}
            groups |= {
                f"shoppers,\n{kind}": {m: s["ndcg@10"] for m, s in one["methods"].items()}
                for kind, one in shoppers.items()
            }
            methods = list(made["methods"])
            # Ours in the right most place of each group.
            methods.sort(key=lambda method: method == "ragqa")
            for number, method in enumerate(methods):
                shift = (number - (len(methods) - 1) / 2) * 0.8 / len(methods)
                points = [scores[method] for scores in groups.values()]
                axes.errorbar(
                    [place + shift for place in range(len(points))],
                    [p[0] for p in points],
                    yerr=[[p[0] - p[1] for p in points], [p[2] - p[0] for p in points]],
                    fmt=_MARKS[number], color=_COLOURS[number if method != "ragqa" else -1], markersize=9 if method == "ragqa" else 5, elinewidth=1,
                    label=method if axes is panels[0] else None,
                )  # fmt: skip
            axes.axvline(len(made["against"]) - 0.5, color="0.7", linewidth=1)
            axes.set_xticks(range(len(groups)), list(groups))
            axes.set_ylabel(f"{name}: recall@1 | nDCG@10")
            axes.grid(axis="y", color="0.9")
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper center", ncols=5, frameon=False)
        figure.savefig(path, metadata={"Date": None})
