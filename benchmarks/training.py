"""Speed and memory of fine-tuning, side by side: ``python -m benchmarks.training``.

The same examples, made once from the Best Buy catalogue as `ragqa.fine_tune` makes them, go through

* **ragqa**: its Trainer, packed examples, loss and logits for the answers alone, fused LoRA layers;
* **stock**: `transformers.Trainer` and `peft`, padded to the longest, loss over all tokens;
* **trl**: TRL's `SFTTrainer` with completion-only loss (`pip install -r requirements-benchmarks.txt`),

each in float32 and bfloat16, in a process of its own with nothing beside it: one epoch, LoRA of rank 16 on all linear
layers, AdamW at 1e-3, about four examples a step. Afterwards the adapters' losses on the answers of the same
validation examples are measured in one way, in float32. Result: ``benchmarks/results/training.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.pages import put
from benchmarks.road import CATALOGUES, HERE, README, ROOT
from ragqa.versions import setting

RESULT = HERE / "results" / "training.json"
ARMS = ("ragqa", "stock", "trl")
DTYPES = ("bfloat16", "float32")


def main() -> int:
    """Run all arms, write the result and the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=48, help="to train on (default: 48)")
    parser.add_argument("--catalogue", type=Path, default=CATALOGUES["bestbuy"], help="(default: Best Buy)")
    parser.add_argument("--index", type=Path, help="an index of it, if there is one")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES)
    parser.add_argument(
        "--questions", nargs="+", default=["1", "3"], help="questions asked of one context (default: 1 and 3)"
    )
    parser.add_argument("--tables", action="store_true", help="only write the tables from the committed result")
    chosen = parser.parse_args()
    if chosen.tables:
        write_tables(json.loads(RESULT.read_text("utf-8")))
        return 0
    if chosen.index is None and not chosen.catalogue.exists():
        print(f"no catalogue at {chosen.catalogue}; set RAGQA_DATA (see benchmarks/README.md)", file=sys.stderr)
        return 2
    result: dict[str, Any] = setting() | {
        "data": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        index = chosen.index
        if index is None:
            index = Path(folder) / "index"
            child("index", str(chosen.catalogue), str(index))
        for questions in chosen.questions:
            data = str(Path(folder) / f"examples-{questions}.json")
            found = child("examples", str(index), data, str(chosen.examples), questions)
            result["data"][questions] = found | {"arms": {}}
            # The wider comparison on contexts of their own for each question would say the same at five times the price.
            for dtype in chosen.dtypes if questions != "1" else chosen.dtypes[:1]:
                for arm in chosen.arms:
                    print(f"{arm} {dtype}, {questions} questions a context", file=sys.stderr, flush=True)
                    measured = child(arm, data, str(Path(folder) / f"{arm}-{dtype}-{questions}"), dtype)
                    result["data"][questions]["arms"][f"{arm} {dtype}"] = measured
                    print(json.dumps(measured), file=sys.stderr, flush=True)
        result["profile"] = child("profile", data, chosen.dtypes[0])
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    write_tables(result)
    print(table(result))
    return 0


def child(what: str, *arguments: str) -> dict[str, Any]:
    """Run one step in a process of its own; returns the JSON line it ends with."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training_arms", what, *arguments],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        f"Measured on {result['date']} at commit `{result['commit']}`: {result['machine']}, Python {result['python']}, "
        "no GPU. Tokens are those of the examples, each by itself, without padding: what the model was shown, however "
        "it was computed. In brackets the quartiles over optimiser steps.",
    ]
    for questions, data in result["data"].items():
        each = "each question with a context of its own" if questions == "1" else f"{questions} questions of a context"
        lines += [
            "",
            f"**{data['examples']} examples, {each}**, {data['tokens'] / data['examples']:.0f} tokens each, "
            f"{data['answer_tokens'] / data['examples']:.0f} of them the answer; validation loss before training "
            f"{data['first_loss']:.3f} nats a token:",
            "",
            "| road | tokens/s | answer tokens/s | against stock, same format | validation loss | peak memory |",
            "|---|---|---|---|---|---|",
        ]
        for name, run in data["arms"].items():
            base = data["arms"].get(f"stock {name.split()[1]}")
            low, _, high = statistics.quantiles(run["step_rates"], n=4)
            share = data["answer_tokens"] / data["tokens"]
            against = "" if base is None else f"{run['tokens_per_second'] / base['tokens_per_second']:.2f} x"
            lines.append(
                f"| {name} | {run['tokens_per_second']:.0f} [{low:.0f}, {high:.0f}] | "
                f"{run['tokens_per_second'] * share:.0f} | {against} | {run['loss']:.3f} | {run['peak_mb']:,} MB |"
            )
    shares = ", ".join(f"{name} {100 * part:.0f} %" for name, part in result["profile"]["shares"].items())
    lines += ["", f"Where ragqa's time goes in a step ({result['profile']['dtype']}, torch.profiler): {shares}."]
    return "\n".join(lines)


def write_tables(result: dict[str, Any]) -> None:
    """Put the figures between their marks in benchmarks/README.md."""
    put(README, "training", table(result))


if __name__ == "__main__":
    sys.exit(main())
