"""Answers at the cost of reading them? ``python -m benchmarks.decoding --keep``.

The same questions, adapter and machine, one way after the other for each question: ragqa's drafted decoding, `generate` of
transformers, `generate` with prompt look-up, and the *reading limit*, one pass of the model over prompt and answer; alone
and in batches, in float32 and, where the processor computes in it, bfloat16. Beside it text that is copied from nowhere, where drafts cannot help, the peak
memory, and whether the tokens are those of `generate`. Every stage is a process of its own with nothing beside it; its
result is kept in the work folder, and the same command goes on after an interruption.

Catalogue: the sample of LF-Amazon-1.3M, of which products with long descriptions are asked about. The adapter is trained
here, on 320 examples, unless one is given. What is committed of a format that this processor has not is kept as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.decoding_stages import BUDGETS
from benchmarks.pages import put
from benchmarks.road import CATALOGUES, HERE, README, ROOT
from ragqa.evaluation.significance import percentile_interval
from ragqa.models.device import choose_dtype
from ragqa.versions import installed_versions, setting

RESULT: Final = HERE / "results" / "decoding.json"
PICTURE: Final = ROOT / "docs" / "decoding.svg"
DTYPES: Final = ("bfloat16", "float32")
_PACKAGES: Final = ("torch", "transformers", "peft")
# Stage: how many questions it asks in the format that this processor computes in, and in float32 where that is another.
STAGES: Final = {
    "single": (6, 3),
    "together": (32, 0),
    "open": (4, 0),
    "reuse": (12, 0),
    "memory": (32, 0),
    "memory-generate": (32, 0),
    "equal": (0, 300),
}
_TRAINING: Final = (
    "--mode", "retrieval", "--max-new-tokens", "128", "--examples", "320", "--number-questions", "1",
    "--validation", "60", "--judged", "24", "--watched", "8", "--evaluations", "2", "--test", "50",
)  # fmt: skip
_RESAMPLES: Final = 5000


def main() -> int:
    """Measure what is not there yet, and keep the result where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogue", type=Path, default=CATALOGUES["lf_amazon_sample"], help="(default: LF-Amazon)")
    parser.add_argument("--work", type=Path, default=Path("indexes/decoding"), help="(default: %(default)s)")
    parser.add_argument("--adapter", type=Path, help="LoRA adapter (default: one is trained)")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE", help=f"only these of {', '.join(STAGES)}")  # fmt: skip
    parser.add_argument("--again", action="store_true", help="measure also what is kept in the work folder")
    parser.add_argument("--keep", action="store_true", help="make what is kept in the work folder the committed result")
    parser.add_argument("--tables", action="store_true", help="only write table and picture from the committed result")
    chosen = parser.parse_args()
    if chosen.tables:
        write_tables(json.loads(RESULT.read_text("utf-8")))
        return 0
    if not chosen.catalogue.exists():
        print(f"no catalogue at {chosen.catalogue}; set RAGQA_DATA (see benchmarks/README.md)", file=sys.stderr)
        return 2
    work = chosen.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    index, adapter = work / "index", chosen.adapter or work / "adapter"
    if not index.exists():
        _run("-m", "ragqa.build_index", str(chosen.catalogue), "--out", str(index))
    if not adapter.exists():
        _run("-m", "ragqa.fine_tune", str(index), "--out", str(adapter), *_TRAINING)
    for stage in chosen.stages:
        for dtype, count in counted(stage).items():
            file = work / f"{stage}-{dtype}.json"
            if file.exists() and not chosen.again:
                continue
            print(f"{time.strftime('%H:%M:%S')} {stage} in {dtype}", file=sys.stderr, flush=True)
            told = _run("-m", "benchmarks.decoding_stages", stage, str(index), str(adapter), dtype, str(count))  # fmt: skip
            measured = setting() | {
                "versions": installed_versions(_PACKAGES),
                "found": json.loads(told.splitlines()[-1]),
            }
            file.write_text(json.dumps(measured) + "\n", "utf-8")
    result = merged(work)
    print(table(result))
    if chosen.keep:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        write_tables(result)
    return 0


def counted(stage: str) -> dict[str, int]:
    """The formats that a stage is measured in on this processor, and how many questions it asks in each."""
    own = str(choose_dtype("auto", "cpu")).removeprefix("torch.")
    counts = {"float32": STAGES[stage][1]} | {own: STAGES[stage][0] or STAGES[stage][1] * (own == "float32")}
    return {dtype: count for dtype, count in counts.items() if count}


def merged(work: Path) -> dict[str, Any]:
    """The committed result with what the work folder has in the place of its own."""
    kept: dict[str, Any] = json.loads(RESULT.read_text("utf-8"))["stages"] if RESULT.exists() else {}
    names = [(f"{stage} {dtype}", work / f"{stage}-{dtype}.json") for stage in STAGES for dtype in DTYPES]
    kept |= {name: json.loads(file.read_text("utf-8")) for name, file in names if file.exists()}
    return {"stages": {name: kept[name] for name, _ in names if name in kept}}


def _run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def median(values: Sequence[float]) -> tuple[float, float, float]:
    """The median of some values, and its 95 % bootstrap interval over them."""
    drawn = np.random.default_rng(0).choice(np.asarray(values), (_RESAMPLES, len(values)))
    low, high = percentile_interval(np.median(drawn, axis=1)[:, None])
    return float(np.median(values)), float(low[0]), float(high[0])


def ratios(rows: Sequence[dict[str, Any]], over: str, under: str) -> list[float]:
    """One way's seconds by another's, question by question."""
    return [row["seconds"][over] / row["seconds"][under] for row in rows]


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    stages = {name: one["found"] for name, one in result["stages"].items()}
    lines = [
        *_measured(result["stages"]),
        "",
        "SmolLM2-135M-Instruct with a LoRA adapter, three candidates in the prompt. Seconds are medians; times as fast is the median over the questions of their own "
        "ratio, with its 95 % bootstrap interval. *Merged*: the others with the adapter merged into the weights, as "
        "ragqa does of itself; else as peft loads it.",
        "",
        "**One answer at a time**",
        "",
        "| numbers | prompt, tokens | answer, tokens | ragqa, s | `generate`, s | times `generate` | merged | times look-up | merged | passes | kept a pass | over the reading limit | the same where the first candidate is taken | same tokens |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for dtype in DTYPES:
        for rows in (cell["rows"] for cell in _cells(stages, "single", dtype)):
            seconds = {way: np.median([row["seconds"][way] for row in rows]) for way in ("ragqa", "generate")}
            others = ("generate", "generate, merged", "look-up", "look-up, merged")
            first = [row for row in rows if row["first_right"]]
            passes = sum(row["passes"] for row in rows)
            lines.append(
                f"| {dtype} | {np.mean([row['prompt'] for row in rows]):.0f} | "
                f"{np.mean([row['tokens'] for row in rows]):.0f} | {seconds['ragqa']:.2f} | "
                f"{seconds['generate']:.2f} | {' | '.join(_times(ratios(rows, other, 'ragqa')) for other in others)} | "
                f"{passes / len(rows):.1f} | "
                f"{sum(row['kept'] for row in rows) / passes:.0f} | {_times(ratios(rows, 'ragqa', 'reading'))} | "
                f"{_times(ratios(first, 'ragqa', 'reading')) if first else ''} | "
                f"{sum(row['same'] for row in rows)} of {len(rows)} |"
            )
    if any(_cells(stages, "together", dtype) for dtype in DTYPES):
        lines += [
            "",
            "**In batches**, answers of up to 128 tokens, prompts of like length together",
            "",
            "| numbers | batch | prompt, tokens | answer, tokens | ragqa, answers/s | `generate`, answers/s | times `generate` | merged | same tokens |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for dtype in DTYPES:
            for one in _cells(stages, "together", dtype):
                lines.append(
                    f"| {dtype} | {one['batch']} | {one['prompt']:.0f} | {one['tokens'] / one['answers']:.0f} | "
                    f"{one['answers'] / one['ragqa']:.2f} | {one['answers'] / one['generate']:.2f} | "
                    f"{one['generate'] / one['ragqa']:.2f} | {one['generate, merged'] / one['ragqa']:.2f} | {one['same']} of {one['answers']} |"
                )
    if any(f"open {dtype}" in stages for dtype in DTYPES):
        lines += [
            "",
            "**Text that is copied from nowhere**, a story of up to 96 tokens by the model without the adapter",
            "",
            "| numbers | prompt | ragqa, s | without drafts, s | `generate`, s | drafts' gain | against `generate` | tokens a pass |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for dtype in DTYPES:
            for name in ("without entries", "with entries"):
                if rows := (stages.get(f"open {dtype}") or {}).get(name):
                    seconds = {way: np.median([row["seconds"][way] for row in rows]) for way in rows[0]["seconds"]}
                    lines.append(
                        f"| {dtype} | {name} | {seconds['ragqa']:.2f} | {seconds['without drafts']:.2f} | "
                        f"{seconds['generate']:.2f} | {_times(ratios(rows, 'without drafts', 'ragqa'))} | "
                        f"{_times(ratios(rows, 'generate', 'ragqa'))} | "
                        f"{sum(row['tokens'] for row in rows) / sum(row['passes'] for row in rows):.2f} |"
                    )
    return "\n".join([*lines, "", *_notes(stages)])


def row(result: dict[str, Any]) -> str:
    """A line for the project's README: answers of up to 128 tokens, one at a time, prompts as fine-tuning makes them."""
    parts = []
    for dtype in DTYPES:
        for cell in (result["stages"].get(f"single {dtype}") or {"found": {"cells": []}})["found"]["cells"]:
            if (cell["context"], cell["budget"]) == (min(BUDGETS), max(BUDGETS[min(BUDGETS)])):
                rows = cell["rows"]
                times = [median(ratios(rows, way, "ragqa"))[0] for way in ("generate", "look-up")]
                parts.append(
                    f"{np.mean([one['tokens'] for one in rows]):.0f} tokens in "
                    f"{np.median([one['seconds']['ragqa'] for one in rows]):.2f} s in {dtype}, {times[0]:.1f} times as fast as "
                    f"`generate` and {times[1]:.1f} times as prompt look-up"
                )
    if found := result["stages"].get("equal float32"):
        same = [found["found"][name] for name in ("adapter", "base model")]
        parts.append(
            f"in {sum(one['same'] for one in same)} of {sum(one['questions'] for one in same)} answers each token is that of "
            "`generate`"
        )
    return f"Written freely on 2 cores: {'; '.join(parts)} ([how](benchmarks/README.md))."


def _measured(stages: dict[str, Any]) -> list[str]:
    """When, where and at which commit each format was measured."""
    lines = []
    for dtype in DTYPES:
        of_it = {name.split()[0]: one for name, one in stages.items() if name.endswith(f" {dtype}")}
        for commit in dict.fromkeys(one["commit"] for one in of_it.values()):
            names, ones = zip(*((n, one) for n, one in of_it.items() if one["commit"] == commit), strict=True)
            one = ones[0]
            lines.append(
                f"- {dtype} ({', '.join(names)}): on {one['date']} at commit `{commit}`, {one['machine']}, no GPU, Python "
                f"{one['python']}, torch {one['versions']['torch']}, transformers {one['versions']['transformers']}."
            )
    return lines


def _cells(stages: dict[str, Any], stage: str, dtype: str) -> list[dict[str, Any]]:
    return list(stages.get(f"{stage} {dtype}", {"cells": []})["cells"])


def _notes(stages: dict[str, Any]) -> list[str]:
    lines = []
    if found := stages.get("equal float32"):
        parts = [
            f"{found[name]['same']} of {found[name]['questions']} with the {name} "
            f"({found[name]['passes'] / found[name]['questions']:.1f} passes for {found[name]['tokens'] / found[name]['questions']:.0f} tokens)"
            for name in ("adapter", "base model")
        ]
        lines += [
            f"**The same tokens as `generate`** in float32, prompts of up to {found['context']} and answers of up to {found['budget']} tokens: {', '.join(parts)}.",
            "",
        ]
    for dtype in DTYPES:
        if not (found := stages.get(f"reuse {dtype}")):
            continue
        known = [
            f"{name}: {one['p50']:.2f} s{'' if one['same'] else ' (not the same texts)'}"
            for name, one in found["seconds"].items()
        ]
        lines += [
            f"**What is known of a prompt** when a question is asked, answers of 64 tokens in {dtype}: {', '.join(known)}.",
            "",
        ]
    peaks = [
        f"{dtype} {stages[f'memory {dtype}']['peak_mb']:,} MB, `generate` {stages[f'memory-generate {dtype}']['peak_mb']:,} MB"
        for dtype in DTYPES
        if f"memory {dtype}" in stages and f"memory-generate {dtype}" in stages
    ]
    if peaks:
        lines += [f"**Peak memory** of the process, 32 answers at once: {'; '.join(peaks)}.", ""]
    return [*lines, "![seconds of an answer over its tokens, by each way](../docs/decoding.svg)"]


def _times(values: Sequence[float]) -> str:
    middle, low, high = median(values)
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def draw(result: dict[str, Any], path: Path) -> None:
    """Seconds of an answer over its tokens, by each way, a panel for each format."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    looks: dict[str, tuple[str, str]] = {
        "generate": ("#D55E00", "s"),
        "generate, merged": ("#CC79A7", "D"),
        "look-up, merged": ("#E69F00", "^"),
        "ragqa": ("#0072B2", "o"),
        "reading": ("#555555", "x"),
    }
    with rc_context({"svg.hashsalt": "ragqa", "svg.fonttype": "path", "font.size": 9}):
        stages = {name: one["found"] for name, one in result["stages"].items()}
        shown = [dtype for dtype in DTYPES if f"single {dtype}" in stages]
        figure = Figure(figsize=(4.4 * len(BUDGETS), 3.0 * len(shown)), layout="constrained")
        panels = figure.subplots(len(shown), len(BUDGETS), squeeze=False, sharey=True)
        for dtype, line in zip(shown, panels, strict=True):
            for axes, context in zip(line, BUDGETS, strict=True):
                cells = [c["rows"] for c in _cells(stages, "single", dtype) if c["context"] == context]
                for way, (colour, mark) in looks.items():
                    name = "reading limit" if way == "reading" else way
                    axes.plot(
                        [np.mean([row["tokens"] for row in rows]) for rows in cells],
                        [np.median([row["seconds"][way] for row in rows]) for rows in cells],
                        color=colour, marker=mark, label=name, linestyle="--" if way == "reading" else "-",
                    )  # fmt: skip
                axes.set(title=f"{dtype}, prompts of up to {context:,} tokens")
                axes.grid(color="0.9")
                axes.set_axisbelow(True)
                axes.spines[["top", "right"]].set_visible(False)
            line[0].set_ylabel("seconds")
        for axes in panels[-1]:
            axes.set_xlabel("tokens of the answer")
        panels[0][0].set_ylim(bottom=0)  # of all, when all is drawn
        figure.axes[0].legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})


def write_tables(result: dict[str, Any], drawn: Callable[[dict[str, Any], Path], None] = draw) -> None:
    """Put the figures between their marks in benchmarks/README.md, and draw the picture."""
    put(README, "decoding", table(result))
    put(ROOT / "README.md", "decoding", row(result))
    drawn(result, PICTURE)


if __name__ == "__main__":
    sys.exit(main())
