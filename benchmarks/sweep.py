"""One hyper-parameter at a time around the retrieval-conditioned recipe: ``python -m benchmarks.sweep indexes/bestbuy``.

The baseline is the default recipe with fewer examples; every other run changes one thing. All runs read the same index,
ask the same validation questions (never a test set) and watch their loss on the same contexts, those of the baseline,
so that losses may be compared. Other *training seeds* change the training's noise alone (the LoRA matrices' first
values and the order of the batches) and leave split, questions and contexts as they are: differences that are no larger
than theirs are noise. Each run is a process of its own; its result is kept as it ends, and a run that is kept is not run
again.

*alone* is the number to which the model itself gives most; *joint* is what it gives together with the retriever, by the
logit of `ragqa.generation.choice`, fitted without a fifth of the questions that the model read and asked that fifth; *no
model* is the same logit without the model. A choice is right when it names a candidate with the description that was
asked for, or none where the product is not in the index; one that is not among those shown cannot be chosen. Exact
titles are not asked about, here as in answering.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.road import setting
from benchmarks.sweep_report import RESULT, judge, table, write_tables
from ragqa import Recipe

BASELINE = {"validation": 400, "judged": 100, "watched": 16, "evaluations": 1}
# In the order in which they run: what tells most comes first.
RUNS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "training_seed 1": {"training_seed": 1},
    "learning_rate 3e-4": {"learning_rate": 3e-4},
    "learning_rate 3e-3": {"learning_rate": 3e-3},
    "gold_fraction 0.5": {"gold_fraction": 0.5},
    "products 5": {"products": 5},
    "rank 4": {"rank": 4, "alpha": 8.0},
    "training_seed 2": {"training_seed": 2},
    "number_weight 1": {"number_weight": 1.0},
    "rank 64": {"rank": 64, "alpha": 128.0},
    "products 2": {"products": 2},
    "gold_fraction 1.0": {"gold_fraction": 1.0},
    "order shuffled": {"order": "shuffled"},
}


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
    kept = kept_runs(chosen.out, chosen.examples)
    if "baseline" not in kept:
        print("no baseline is kept yet: run it first", file=sys.stderr)
        return 1
    result = judge(list(kept.values()), list(BASELINE), list(RUNS))
    print(table(result))
    if chosen.keep:
        RESULT.write_text(json.dumps(result) + "\n", "utf-8")
        write_tables(result)
    return 0


def recipe_of(name: str, examples: int) -> Recipe:
    """The recipe of a run."""
    return Recipe.from_dict({"examples": examples} | BASELINE | RUNS[name])


def kept_runs(file: Path, examples: int) -> dict[str, Any]:
    """The runs that are kept already, by name; one of another recipe than today's does not count."""
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    found = {run["name"]: run for run in map(json.loads, lines)}
    return {name: run for name, run in found.items() if Recipe.from_dict(run["recipe"]) == recipe_of(name, examples)}


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

    from ragqa.generation.generator import Generator
    from ragqa.training import fine_tune
    from ragqa.training.contexts import make_contexts
    from ragqa.training.examples import make_examples
    from ragqa.training.judge import weigh

    recipe, baseline = recipe_of(name, examples), recipe_of("baseline", examples)
    run = fine_tune.load_run(index, recipe, "retrieval", None, "auto", "auto")
    retriever = run.answerer.retriever
    made = make_examples(run.answerer.index, retriever, recipe)
    by_id = {product.id: (row, product) for row, product in enumerate(made.products)}
    validation, absent = made.split.questions["validation"], frozenset(made.split.rows["absent"])
    watched = tuple(make_contexts(validation[: recipe.watched], by_id, retriever, absent, baseline.contexts()))
    train, watching = fine_tune.encode_examples(run, replace(made, watched=watched))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        model, fitted, plan = fine_tune.train_adapter(run, train, watching, Path(folder), None)
    trained = time.perf_counter()
    asked = []
    for one in weigh(Generator(model, run.tokenizer), run.builder, made.asked, recipe.judged):
        label = one.context.asked
        wanted = by_id[label.product_id][1].description if label.product_id else None
        same = [number for number, c in enumerate(one.shown, 1) if c.product.description == wanted]
        asked.append(
            {
                "kind": label.kind,
                "ambiguous": label.ambiguous,
                "about": label.product_id or label.about or label.text,
                "label": one.right,
                "right": same if wanted is not None else [0],
                "known": [one.known.candidates, one.known.none, one.known.log_probs],
            }
        )
    evaluations = [e for e in fitted.history if "eval_loss" in e]
    return {
        "name": name,
        "changes": RUNS[name],
        "recipe": {k: list(v) if isinstance(v, tuple) else v for k, v in recipe.to_dict().items()},
        "threads": torch.get_num_threads(),
        "plan": {k: plan[k] for k in ("examples", "number_questions", "computed", "answer_tokens", "steps", "packed")},
        "loss": [evaluations[0]["eval_token_loss"], evaluations[-1]["eval_token_loss"]],
        "weighted_loss": [fitted.first_loss, fitted.best_loss],
        "seconds": {"train": round(trained - started, 1), "fit": fitted.seconds},
        "asking_seconds": round(time.perf_counter() - trained, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        "asked": asked,
        "machine": setting(),
    }


if __name__ == "__main__":
    sys.exit(main())
