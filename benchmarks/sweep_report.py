"""What the runs of `benchmarks.sweep` say: right choices with their intervals, a table and a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pages import put
from benchmarks.road import HERE, README, ROOT
from ragqa.evaluation.significance import bootstrap_means, percentile_interval

RESULT = HERE / "results" / "sweep.json"
PAGES = (README, ROOT / "docs" / "process.md")
PICTURE = ROOT / "docs" / "sweep.svg"
FOLDS = 5
# Runs are shown in the order of what they change.
SHOWN = ("training_seed", "learning_rate", "gold_fraction", "products", "order", "rank", "number_weight")


def judge(runs: Sequence[dict[str, Any]], named: Sequence[str], planned: Sequence[str]) -> dict[str, Any]:
    """What each run's choices are worth, question by question.

    Args:
        runs: as `benchmarks.sweep.measure` gives them.
        named: fields of the baseline's recipe to keep in the result.
        planned: names of all runs there could be.
    """
    asked = _judged(runs[0]["asked"])
    about = list(dict.fromkeys(q["about"] for q in asked))
    if any([q["about"] for q in _judged(run["asked"])] != [q["about"] for q in asked] for run in runs):
        raise SystemExit("the runs were not asked the same questions: another index, or another --examples")
    first = next(run for run in runs if run["name"] == "baseline")
    return {
        "machine": first["machine"] | {"threads": first["threads"]},
        "baseline": {k: first["recipe"][k] for k in ("examples", *named)},
        "planned": list(planned),
        "questions": [{k: q[k] for k in ("kind", "ambiguous")} | {"product": about.index(q["about"])} for q in asked],
        "no model": _choices(first["asked"], without_model=True),
        "runs": {
            run["name"]: {k: run[k] for k in ("changes", "plan", "loss", "weighted_loss", "seconds", "peak_mb")}
            | {"alone": [_best(*q["known"][2]) in q["right"] for q in _judged(run["asked"])]}
            | _choices(run["asked"])
            for run in sorted(runs, key=_place)
        },
    }


def _place(run: dict[str, Any]) -> tuple[int, Any]:
    changed = next(iter(run["changes"].items()), None)
    return (SHOWN.index(changed[0]), changed[1]) if changed else (-1, 0)


def _best(*values: float) -> int:
    return max(range(len(values)), key=lambda i: (values[i], -i))


def _judged(asked: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The questions that the model read."""
    return [question for question in asked if question["known"][2]]


def _choices(asked: Sequence[dict[str, Any]], without_model: bool = False) -> dict[str, Any]:
    """The logit's choices on questions it was not fitted on: right or wrong, and the loss of the right number."""
    from ragqa.generation.choice import Alternatives, fit

    def known(question: dict[str, Any]) -> Alternatives:
        candidates, none, log_probs = question["known"]
        return Alternatives(tuple(map(tuple, candidates)), tuple(none), () if without_model else tuple(log_probs))

    judged, unread = _judged(asked), [q for q in asked if not q["known"][2]]
    right, losses = [False] * len(judged), [0.0] * len(judged)
    for fold in range(FOLDS):
        others = unread + [q for i, q in enumerate(judged) if i % FOLDS != fold]
        choice = fit([known(q) for q in others], [q["label"] for q in others])
        for i in range(fold, len(judged), FOLDS):
            shares = choice.probabilities(known(judged[i]))
            right[i] = _best(*shares) in judged[i]["right"]
            losses[i] = round(-math.log(max(shares[judged[i]["label"]], 1e-12)), 6)
    return {"joint": right, "log_loss": losses}


def interval(values: Sequence[float], products: Sequence[int]) -> tuple[float, float, float]:
    """The mean, and its 95 % interval by the bootstrap over products."""
    means, resampled = bootstrap_means(np.asarray(values, float)[:, None], np.asarray(products, np.intp))
    low, high = percentile_interval(resampled)
    return float(means[0]), float(low[0]), float(high[0])


def intervals(
    result: dict[str, Any], run: dict[str, Any], measure: str, less: bool = False
) -> tuple[float, float, float]:
    """A run's measure with its interval; `less` the baseline's on the same questions."""
    values = np.asarray(run[measure], float)
    if less:
        values = values - np.asarray(result["runs"]["baseline"][measure], float)
    return interval(values.tolist(), [q["product"] for q in result["questions"]])


def _three(found: tuple[float, float, float], sign: str = "") -> str:
    return f"{found[0]:{sign}.3f} [{found[1]:{sign}.3f}, {found[2]:{sign}.3f}]"


def table(result: dict[str, Any]) -> str:
    """The runs, as Markdown."""
    machine, few, runs = result["machine"], result["baseline"], result["runs"]
    baseline, asked = runs["baseline"], result["questions"]
    left = [name for name in result["planned"] if name not in runs]
    lines = [
        f"Measured on {machine['date']} at commit `{machine['commit']}`: {machine['threads']} threads of "
        f"{machine['machine']}, no GPU. Baseline: the default recipe with {few['examples']} examples, "
        f"{baseline['plan']['steps']} steps. Asked: {len(asked)} validation questions that "
        f"are not exact titles; what is left of {few['validation']} teaches the weights of what the retriever knew. The validation loss, in nats a token of the answer on {few['watched']} examples, was "
        f"{baseline['loss'][0]:.3f} before training. In brackets 95 % intervals, resampled by product; differences are to the baseline on the "
        "same questions.",
        "",
        "| changed | steps | loss | alone | difference | joint | difference | log-loss | difference | training | memory |",
        "|---" * 11 + "|",
    ]
    for name, run in {**runs, "*no model*": result["no model"]}.items():
        cells = [name, *[""] * 10]
        cells[5], cells[7] = _three(intervals(result, run, "joint")), f"{sum(run['log_loss']) / len(asked):.3f}"
        if "loss" in run:
            cells[1:4] = str(run["plan"]["steps"]), f"{run['loss'][1]:.3f}", _three(intervals(result, run, "alone"))
            cells[9:] = f"{run['seconds']['train']:.0f} s", f"{run['peak_mb']:,} MB"
        for place, measure in ((4, "alone"), (6, "joint"), (8, "log_loss")):
            # With more or fewer candidates another number is the right one of some questions.
            comparable = measure != "log_loss" or "products" not in run.get("changes", {})
            if run is not baseline and measure in run:
                cells[place] = (
                    _three(intervals(result, run, measure, less=True), "+") if comparable else "not comparable"
                )
        lines.append("| " + " | ".join(cells) + " |")
    if left:
        lines += ["", f"Not run, for want of time: {', '.join(left)}."]
    return "\n".join(lines)


def write_tables(result: dict[str, Any]) -> None:
    """Put the table between its marks in the documents, and draw the picture."""
    text = table(result)
    for page in PAGES:
        put(page, "sweep", text)
    draw(result, PICTURE)


def draw(result: dict[str, Any], path: Path) -> None:
    """Dots with their intervals; the baseline as a line, and as a band how far its runs with other seeds are apart."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    runs, without, asked = result["runs"], result["no model"], len(result["questions"])
    baseline, names = runs["baseline"], list(runs)
    again = [name for name in names if set(runs[name]["changes"]) <= {"training_seed"}]
    with rc_context({"svg.hashsalt": "ragqa", "svg.fonttype": "path", "font.size": 9}):
        figure = Figure(figsize=(9.5, 1.7 + 0.36 * len(names)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        # Of Okabe and Ito's colours, which the colour-blind tell apart; the marks differ too.
        for measure, shift, colour, mark, label in (
            ("alone", -0.15, "#D55E00", "s", "the model alone"),
            ("joint", 0.15, "#0072B2", "o", "with the retriever"),
        ):
            _dots(left, [intervals(result, runs[name], measure) for name in names], shift, colour, mark, label)
            means = [intervals(result, runs[name], measure)[0] for name in again]
            left.axvspan(min(means), max(means), color=colour, alpha=0.13, linewidth=0, zorder=0)
        _lines(left, *(intervals(result, run, "joint")[0] for run in (baseline, without)))
        left.set_xlabel(f"right source, share of {asked} validation questions")
        found = {name: intervals(result, runs[name], "log_loss", less=True) for name in names}
        means = [found[name][0] for name in again]
        right.axvspan(min(means), max(means), color="#0072B2", alpha=0.13, linewidth=0, label="other training seeds")
        shown = [name != "baseline" and "products" not in runs[name]["changes"] for name in names]
        _dots(right, [found[name] if s else None for name, s in zip(names, shown, strict=True)], 0.0, "#0072B2", "o")
        _lines(
            right, 0.0, intervals(result, without, "log_loss", less=True)[0], "baseline, with the retriever", "no model"
        )
        right.set_xlabel(
            "log-loss with the retriever, less the baseline's, in nats\n(left of the dashed line is better)"
        )
        left.set_yticks(range(len(names)), names)
        left.set_ylim(len(names) - 0.5, -0.5)
        for axes in (left, right):
            axes.grid(axis="x", color="0.9")
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper center", ncols=5, frameon=False)
        figure.savefig(path, metadata={"Date": None})


def _lines(axes: Any, baseline: float, without: float, *labels: str) -> None:
    named = labels or (None, None)
    axes.axvline(baseline, color="#0072B2", linewidth=1, linestyle="--", label=named[0])
    axes.axvline(without, color="black", linewidth=1, linestyle=":", label=named[1])


def _dots(axes: Any, found: Sequence[Any], shift: float, colour: str, mark: str, label: str | None = None) -> None:
    rows = [(row + shift, *f) for row, f in enumerate(found) if f]
    axes.errorbar(
        [mean for _, mean, _, _ in rows],
        [row for row, *_ in rows],
        xerr=[[mean - low for _, mean, low, _ in rows], [high - mean for _, mean, _, high in rows]],
        fmt=mark, color=colour, markersize=5, elinewidth=1.2, capsize=2, label=label,
    )  # fmt: skip
