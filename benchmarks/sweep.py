"""One hyper-parameter at a time around the retrieval-conditioned recipe: ``python -m benchmarks.sweep indexes/bestbuy``.

The baseline is the default recipe with fewer examples; every other run changes one thing. All runs read the same index,
ask the same validation questions (never a test set) and watch their loss on the same contexts, those of the baseline,
so that losses may be compared. ``seed`` runs change the training's noise alone (the LoRA matrices' first values and the
order of the batches) and leave split, questions and contexts as they are: differences that are no larger than theirs
are noise. Each run is a process of its own; its result is kept as it ends, and a run that is kept is not run again.

*alone* is the number to which the model itself gives most; *joint* is what it gives together with the retriever, by the
logit of `ragqa.generation.choice`, fitted on four fifths of the questions and asked the rest; *no model* is the same
logit without the model. A choice is right when it names a candidate with the description that was asked for, or none
where the product is not in the index; one that is not among those shown cannot be chosen. Exact titles are not asked
about, here as in answering.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.road import HERE, README, ROOT, setting

RESULT = HERE / "results" / "sweep.json"
PAGES = (README, ROOT / "docs" / "process.md")
PICTURE = ROOT / "docs" / "sweep.svg"
FOLDS = 5
RESAMPLES = 10_000
BASELINE = {"validation": 100, "watched": 16, "evaluations": 1}
# In the order in which they run: what tells most comes first.
RUNS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "noise seed 1": {"noise": 1},
    "learning_rate 3e-4": {"learning_rate": 3e-4},
    "learning_rate 3e-3": {"learning_rate": 3e-3},
    "gold_fraction 0.5": {"gold_fraction": 0.5},
    "products 5": {"products": 5},
    "rank 4": {"rank": 4, "alpha": 8.0},
    "number_weight 1": {"number_weight": 1.0},
    "rank 64": {"rank": 64, "alpha": 128.0},
    "products 2": {"products": 2},
    "gold_fraction 1.0": {"gold_fraction": 1.0},
    "order shuffled": {"order": "shuffled"},
    "noise seed 2": {"noise": 2},
}
# In the order in which they are shown.
SHOWN = ("noise", "learning_rate", "gold_fraction", "products", "order", "rank", "number_weight")


def main() -> int:
    """Run what is not there yet, write the result, the tables and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, nargs="?")
    parser.add_argument("--examples", type=int, default=100, help="to train on (default: 100)")
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=RUNS, metavar="RUN", help="only these")
    parser.add_argument("--until", metavar="HH:MM", help="begin no run that would end after this time (UTC)")
    parser.add_argument("--out", type=Path, default=Path("sweep.jsonl"), help="where each run is kept as it ends")
    parser.add_argument("--keep", action="store_true", help="make what is kept the committed result")
    parser.add_argument("--tables", action="store_true", help="only write tables and picture from the committed result")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(chosen.index, chosen.one, chosen.examples)))
        return 0
    if chosen.tables:
        write_tables(json.loads(RESULT.read_text("utf-8")))
        return 0
    if chosen.index is None:
        parser.error("an index is needed")
    run_all(chosen.index, chosen.runs, chosen.examples, chosen.out, chosen.until)
    result = judge(list(kept_runs(chosen.out, chosen.examples).values()))
    print(table(result))
    if chosen.keep:
        RESULT.write_text(json.dumps(result) + "\n", "utf-8")
        write_tables(result)
    return 0


def kept_runs(file: Path, examples: int) -> dict[str, Any]:
    """The runs of this size that are kept already, by name."""
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    found = [json.loads(line) for line in lines]
    return {run["name"]: run for run in found if run["recipe"]["examples"] == examples}


def run_all(index: Path, names: list[str], examples: int, file: Path, until: str | None) -> None:
    """Run each in a process of its own, and keep it."""
    longest = 0.0
    for name in names:
        if name in kept_runs(file, examples):
            continue
        if until and time.strftime("%H:%M", time.gmtime(time.time() + longest)) >= until:
            print(f"{name}: no time left before {until}", file=sys.stderr)
            return
        started = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.sweep", str(index), "--one", name, "--examples", str(examples)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        longest = max(longest, time.perf_counter() - started)
        with file.open("a", encoding="utf-8") as out:
            out.write(done.stdout.splitlines()[-1] + "\n")


def measure(index: Path, name: str, examples: int) -> dict[str, Any]:
    """Train one setting and ask it the validation questions."""
    import torch

    from ragqa import Recipe
    from ragqa.generation.choice import alternatives
    from ragqa.generation.decode import Generator
    from ragqa.training import fine_tune
    from ragqa.training.contexts import make_contexts
    from ragqa.training.examples import make_examples
    from ragqa.training.judge import _right

    changes = dict(RUNS[name])
    noise = changes.pop("noise", 0)
    baseline = Recipe(examples=examples, **BASELINE)  # type: ignore[arg-type]
    recipe = Recipe(examples=examples, **(BASELINE | changes))
    run = fine_tune._load(index, recipe, "retrieval", None, "auto", "auto")
    retriever = run.answerer.retriever
    made = make_examples(run.answerer.index, retriever, recipe)
    by_id = {product.id: (row, product) for row, product in enumerate(made.products)}
    validation, absent = made.split.questions["validation"], frozenset(made.split.rows["absent"])
    watched = tuple(make_contexts(validation[: recipe.watched], by_id, retriever, absent, baseline.contexts()))
    train, watching = fine_tune._encode(run, replace(made, watched=watched))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        # The seed of the recipe is that of the split too: here only the training gets another.
        model, fitted, plan = fine_tune._train(
            replace(run, recipe=replace(recipe, seed=noise)), train, watching, Path(folder), None
        )
    trained = time.perf_counter()
    generator = Generator(model, run.tokenizer)
    asked = []
    for context in made.asked:
        if not context.candidates or context.candidates[0].exact:
            continue
        prompt = run.builder.build(context.question, context.candidates)
        (log_probs,) = generator.number_log_probs([prompt])
        shown = [s.candidate for s in prompt.shown]
        known = alternatives(log_probs, shown, context.question.subject, context.confidence)
        wanted = by_id[context.asked.product_id][1].description if context.asked.product_id else None
        same = [number for number, c in enumerate(shown, 1) if c.product.description == wanted]
        asked.append(
            {
                "kind": context.asked.kind,
                "ambiguous": context.asked.ambiguous,
                "about": context.asked.product_id or context.asked.about or context.asked.text,
                "label": _right(context, prompt),
                "right": same if wanted is not None else [0],
                "known": [known.candidates, known.none],
            }
        )
    evaluations = [e for e in fitted.history if "eval_loss" in e]
    return {
        "name": name,
        "changes": RUNS[name],
        "recipe": {k: list(v) if isinstance(v, tuple) else v for k, v in recipe.to_dict().items()},
        "threads": torch.get_num_threads(),
        "plan": {k: plan[k] for k in ("examples", "number_questions", "computed", "answer_tokens", "steps", "trained")},
        "loss": [evaluations[0]["eval_token_loss"], evaluations[-1]["eval_token_loss"]],
        "weighted_loss": [fitted.first_loss, fitted.best_loss],
        "seconds": {"train": round(trained - started, 1), "fit": fitted.seconds},
        "asking_seconds": round(time.perf_counter() - trained, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        "asked": asked,
        "machine": setting(),
    }


def judge(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What each run's choices are worth, question by question."""
    asked = runs[0]["asked"]
    if any([q["about"] for q in run["asked"]] != [q["about"] for q in asked] for run in runs):
        raise SystemExit("the runs were not asked the same questions: another index, or another --examples")
    first = next(run for run in runs if run["name"] == "baseline")
    return {
        "machine": first["machine"] | {"threads": first["threads"]},
        "baseline": {k: first["recipe"][k] for k in ("examples", *BASELINE)},
        "questions": [{k: q[k] for k in ("kind", "ambiguous")} for q in asked],
        "no model": _choices(first["asked"], without_model=True),
        "runs": {
            run["name"]: {k: run[k] for k in ("changes", "plan", "loss", "weighted_loss", "seconds", "peak_mb")}
            | {"alone": [_best(q["known"][1][0], *(c[0] for c in q["known"][0])) in q["right"] for q in run["asked"]]}
            | _choices(run["asked"])
            for run in sorted(runs, key=_place)
        },
    }


def _place(run: dict[str, Any]) -> tuple[int, Any]:
    changed = next(iter(run["changes"].items()), None)
    return (SHOWN.index(changed[0]), changed[1]) if changed else (-1, 0)


def _best(*values: float) -> int:
    return max(range(len(values)), key=lambda i: (values[i], -i))


def _choices(asked: Sequence[dict[str, Any]], without_model: bool = False) -> dict[str, Any]:
    """The logit's choices on questions it was not fitted on: right or wrong, and the loss of the right number."""
    from ragqa.generation.choice import Alternatives, fit

    def known(question: dict[str, Any]) -> Alternatives:
        candidates, none = question["known"]
        if without_model:
            candidates, none = [[0.0, *row[1:]] for row in candidates], [0.0, *none[1:]]
        return Alternatives(tuple(map(tuple, candidates)), tuple(none))

    right, losses = [False] * len(asked), [0.0] * len(asked)
    for fold in range(FOLDS):
        others = [q for i, q in enumerate(asked) if i % FOLDS != fold]
        choice = fit([known(q) for q in others], [q["label"] for q in others])
        for i in range(fold, len(asked), FOLDS):
            shares = choice.probabilities(known(asked[i]))
            right[i] = _best(*shares) in asked[i]["right"]
            losses[i] = round(-math.log(max(shares[asked[i]["label"]], 1e-12)), 6)
    return {"joint": right, "log_loss": losses}


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean, and its 95 % interval by the bootstrap over questions."""
    means = np.sort(_resamples(len(values)) @ np.asarray(values, float)) / len(values)
    return sum(values) / len(values), float(means[round(0.025 * RESAMPLES)]), float(means[round(0.975 * RESAMPLES) - 1])


@cache
def _resamples(size: int) -> Any:
    """How often each question is in each resample, (RESAMPLES, size)."""
    random_ = random.Random(0)  # noqa: S311  (its numbers are the same in every version, unlike NumPy's)
    drawn = (random_.choices(range(size), k=size) for _ in range(RESAMPLES))
    return np.stack([np.bincount(one, minlength=size) for one in drawn])


def against(run: dict[str, Any], baseline: dict[str, Any], measure: str) -> tuple[float, float, float]:
    """How far a run is from the baseline on the same questions, with its interval."""
    return interval([float(a) - float(b) for a, b in zip(run[measure], baseline[measure], strict=True)])


def _three(found: tuple[float, float, float], sign: str = "") -> str:
    return f"{found[0]:{sign}.3f} [{found[1]:{sign}.3f}, {found[2]:{sign}.3f}]"


def table(result: dict[str, Any]) -> str:
    """The runs, as Markdown."""
    machine, few, runs = result["machine"], result["baseline"], result["runs"]
    baseline, asked = runs["baseline"], result["questions"]
    left = [name for name in RUNS if name not in runs]
    lines = [
        f"Measured on {machine['date']} at commit `{machine['commit']}`: {machine['threads']} thread of "
        f"{machine['machine']}, no GPU. Baseline: the default recipe with {few['examples']} examples, "
        f"{baseline['plan']['steps']} steps. Asked: the {len(asked)} of {few['validation']} validation questions that "
        f"are not exact titles. The validation loss, in nats a token of the answer on {few['watched']} examples, was "
        f"{baseline['loss'][0]:.3f} before training. In brackets 95 % intervals; differences are to the baseline on the "
        "same questions.",
        "",
        "| changed | loss | alone | joint | joint, difference | log-loss | log-loss, difference | training | memory |",
        "|---" * 9 + "|",
    ]
    for name, run in {**runs, "*no model*": result["no model"]}.items():
        joint, loss = interval(run["joint"]), sum(run["log_loss"]) / len(asked)
        cells = [name, "", "", _three(joint), "", f"{loss:.3f}", "", "", ""]
        if "loss" in run:
            cells[1:3] = f"{run['loss'][1]:.3f}", _three(interval(run["alone"]))
            cells[7:] = f"{run['seconds']['train']:.0f} s", f"{run['peak_mb']:,} MB"
        if run is not baseline:
            cells[4], cells[6] = _three(against(run, baseline, "joint"), "+"), "not comparable"
            if "products" not in run.get("changes", {}):
                cells[6] = _three(against(run, baseline, "log_loss"), "+")
        lines.append("| " + " | ".join(cells) + " |")
    if left:
        lines += ["", f"Not run, for want of time: {', '.join(left)}."]
    return "\n".join(lines)


def write_tables(result: dict[str, Any]) -> None:
    """Put the table between its marks in the documents, and draw the picture."""
    marks = re.compile(r"(<!-- sweep -->\n).*?(\n<!-- /sweep -->)", re.DOTALL)
    text = table(result)
    for page in PAGES:
        page.write_text(marks.sub(lambda m: m[1] + text + m[2], page.read_text("utf-8")), "utf-8")
    draw(result, PICTURE)


def draw(result: dict[str, Any], path: Path) -> None:
    """Dots with their intervals, the baseline as a line."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    runs, asked = result["runs"], len(result["questions"])
    baseline = runs["baseline"]
    names = list(runs)
    with rc_context({"svg.hashsalt": "ragqa", "svg.fonttype": "path", "font.size": 9}):
        figure = Figure(figsize=(9.5, 1.4 + 0.34 * len(names)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        # Of Okabe and Ito's colours, which the colour-blind tell apart; the marks differ too.
        for measure, shift, colour, mark in (("alone", -0.14, "#D55E00", "s"), ("joint", 0.14, "#0072B2", "o")):
            found = [interval(runs[name][measure]) for name in names]
            _dots(left, found, shift, colour, mark, "the model alone" if measure == "alone" else "with the retriever")
        left.axvline(interval(baseline["joint"])[0], color="#0072B2", linewidth=1, linestyle="--", zorder=0)
        left.axvline(
            interval(result["no model"]["joint"])[0], color="black", linewidth=1, linestyle=":", label="no model"
        )
        left.set_xlabel(f"right source, share of {asked} validation questions")
        found = [against(runs[name], baseline, "log_loss") for name in names]
        shown = ["products" not in runs[name]["changes"] and name != "baseline" for name in names]
        _dots(right, [f if s else None for f, s in zip(found, shown, strict=True)], 0.0, "#0072B2", "o", "")
        right.axvline(0, color="#0072B2", linewidth=1, linestyle="--", zorder=0)
        right.axvline(
            against(result["no model"], baseline, "log_loss")[0], color="black", linewidth=1, linestyle=":", zorder=0
        )
        right.set_xlabel("log-loss with the retriever, minus the baseline's, nats\n(left of the dashed line: better)")
        left.set_yticks(range(len(names)), names)
        left.invert_yaxis()
        for axes in (left, right):
            axes.grid(axis="x", color="0.9", zorder=-1)
            axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper left", ncols=3, frameon=False)
        figure.savefig(path, metadata={"Date": None})


def _dots(
    axes: Any,
    found: Sequence[tuple[float, float, float] | None],
    shift: float,
    colour: str,
    mark: str,
    label: str,
) -> None:
    rows = [(row + shift, *f) for row, f in enumerate(found) if f]
    axes.errorbar(
        [mean for _, mean, _, _ in rows],
        [row for row, *_ in rows],
        xerr=[[mean - low for _, mean, low, _ in rows], [high - mean for _, mean, _, high in rows]],
        fmt=mark, color=colour, markersize=5, elinewidth=1.2, capsize=2, label=label or None,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
