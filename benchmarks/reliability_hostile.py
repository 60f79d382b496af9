"""Stages of `benchmarks.reliability`: hostile input, planted texts, thousands of questions."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from benchmarks.hostile_attacks import asked, in_catalogue, in_contexts
from benchmarks.hostile_fuzz import fuzzed
from benchmarks.hostile_soak import GROWTH, soaked
from benchmarks.hostile_targets import targets
from benchmarks.hostile_texts import LOOK_ALIKE, Attack
from benchmarks.hostile_texts import attacks as planted_texts
from benchmarks.road import DEMO, ROOT
from ragqa.answerer import Answerer
from ragqa.errors import InputError
from ragqa.index.build import build_index

Size = Literal["short", "long"]

# An index and an adapter trained with retrieval on it, as `python -m benchmarks.decoding` leaves them.
TRAINED: Final = Path(os.environ.get("RAGQA_TRAINED", ROOT / "indexes" / "decoding"))
# An input that takes so many seconds is a failure: they are 20 kB at most.
_SLOWEST: Final = 60.0
# Of each share of the fuzzer's targets so many inputs.
_SHARES: Final = {"short": 40, "long": 10_000}


def fuzz(size: Size) -> dict[str, Any]:
    """Over a million inputs to everything that takes something from outside."""
    with _folder() as folder:
        found = {one.name: fuzzed(one, one.share * _SHARES[size], seed=0) for one in targets(folder)}
    failures = [line for one in found.values() for line in one.pop("failures")]
    failures += [
        f"{name}: an input took {one['slowest']} s" for name, one in found.items() if one["slowest"] > _SLOWEST
    ]
    table = ["| takes | inputs | refused in one line | anything else |", "|---|---:|---:|---:|"]
    table += [
        f"| {name} | {one['inputs']:,} | {one['refused']:,} | {sum(f.startswith(f'{name}, ') for f in failures)} |"
        for name, one in found.items()
    ]
    inputs, refused = (sum(one[what] for one in found.values()) for what in ("inputs", "refused"))
    table.append(f"| in all | {inputs:,} | {refused:,} | {len(failures)} |")
    return {"failures": failures, "table": table, "inputs": inputs, "targets": found}


def attacks(size: Size, index: Path | None = None) -> dict[str, Any]:
    """Planted texts, with the defences and without, for the untrained and the fine-tuned model.

    The short mode has the untrained model and the demonstration catalogue alone, of which an index may be given.
    """
    planted = planted_texts()
    with _folder() as folder:
        if size == "short":
            answerer = Answerer.from_pretrained(index or _demo(folder))
            runs = {"untrained": _attacked(answerer, planted[::14], 6, 1, defended=(True,))}
            return {"failures": _wrong(runs), "table": [], "runs": runs}
        trained, adapter = _trained() / "index", str(TRAINED / "adapter")
        tuned = Answerer.from_pretrained(trained, adapter=adapter)
        runs = {
            "fine-tuned": _attacked(tuned, planted, 90, 1, defended=(True, False)),
            "fine-tuned, writing": _attacked(tuned, planted[::12], 18, 1, defended=(True, False), decoding="free"),
        }
        untrained = Answerer.from_pretrained(trained)
        runs["untrained"] = _attacked(untrained, planted, 90, 1, defended=(True, False))
        runs["untrained, writing"] = _attacked(untrained, planted[::12], 18, 1, defended=(True, False), decoding="free")
    return {"failures": _wrong(runs), "table": _attack_table(runs), "runs": runs}


def planted(size: Size) -> dict[str, Any]:
    """All planted texts but the look-alikes at once in the demonstration catalogue, for the fine-tuned model.

    The short mode has a few of them, and the untrained model.
    """
    adapter = None if size == "short" else str(_trained() / "adapter")
    texts, rows = planted_texts(), [json.loads(line) for line in DEMO.read_text("utf-8").splitlines()]
    few = slice(None, None, 40) if size == "short" else slice(None)
    with _folder() as folder:
        found = in_catalogue(
            lambda place: Answerer.from_pretrained(place, adapter=adapter),
            folder / "planted", rows, texts[few], {"short": 6, "long": 120}[size],
        )  # fmt: skip
    table = [
        "| planted products | questions about others | with a planted one among the first three | changed by another harmless "
        "text | changed by the planted texts | not of the source they name |",
        "|---:|---:|---:|---:|---:|---:|",
        "| " + " | ".join(str(found[name]) for name in ("planted", "asked", "in view", "changed, harmless", "changed", "unsourced")) + " |",
    ]  # fmt: skip
    how = "to a planted product {taken}, to none {denied}, to one where there was none {answered}".format_map(found)
    failures = [f"{found['changed']} of {found['asked']} answers changed: {how}"] if found["changed"] else []
    return {"failures": failures, "table": table} | found


def _trained() -> Path:
    if not (TRAINED / "adapter").is_dir():
        raise InputError(f"{TRAINED}: no index and adapter there; make them with python -m benchmarks.decoding")
    return TRAINED


def soak(size: Size, index: Path | None = None) -> dict[str, Any]:
    """10,000 questions in at least 20 minutes; of the demonstration catalogue, of which an index may be given."""
    with _folder() as folder:
        answerer = Answerer.from_pretrained(index or _demo(folder))
        found = soaked(answerer, *{"short": (100, 0.0), "long": (10_000, 1200.0)}[size])
    failures = found.pop("failures")
    if size == "short":  # too few questions for the memory to have settled
        failures = [one for one in failures if not one.startswith("memory")]
    ended = found["ended"]
    table = ["| questions | answered | abstained | refused in one line | left half-way | anything else |", "|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    told = [ended.get(name, 0) for name in ("answered", "abstained", "refused", "left")]
    table.append(
        f"| {found['questions']:,} | {' | '.join(f'{one:,}' for one in told)} | {found['questions'] - sum(told)} |"
    )
    table += [
        "",
        f"Resident memory after the first fifth of them {found['warm_mb']} MB, at the end {found['end_mb']} MB, at most "
        f"{found['most_mb']} MB: {found['growth']:+.1%} (at most {GROWTH:+.0%} is promised).",
    ]
    return {"failures": failures, "table": table} | found


def _demo(folder: Path) -> Path:
    build_index(DEMO, folder / "demo")
    return folder / "demo"


def _attacked(
    answerer: Answerer, planted: Sequence[Attack], count: int, each: int, defended: Sequence[bool], **settings: Any
) -> dict[str, Any]:
    questions = asked(answerer, count, **settings)
    return {
        "defended" if on else "undefended": in_contexts(answerer, planted, questions, each, on, **settings)
        for on in defended
    }


def _wrong(runs: dict[str, Any]) -> list[str]:
    """What is promised: the fine-tuned model's sources are not moved, and every answer is of the source it names."""
    failures = []
    for name, run in runs.items():
        for kind, one in run["defended"]["kinds"].items():
            if name == "fine-tuned" and kind != LOOK_ALIKE and one.get("changed"):
                failures.append(f"{name}, {kind}: {one['changed']} of {one['asked']} answers changed")
            if "writing" not in name and one["unsourced"]:
                failures.append(f"{name}, {kind}: {one['unsourced']} answers are not of the source they name")
    return failures


def _attack_table(runs: dict[str, Any]) -> list[str]:
    kinds = list(dict.fromkeys(kind for run in runs.values() for kind in run["defended"]["kinds"]))
    heads = [f"{name}{', no defences' if way == 'undefended' else ''}" for name, run in runs.items() for way in run]
    lines = [f"| planted | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for kind in kinds:
        cells = []
        for run in runs.values():
            for way in run.values():
                one = way["kinds"].get(kind)
                cells.append(f"{one.get('changed', 0)} of {one['asked']}" if one and "asked" in one else "")
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    ways = [one for run in runs.values() for way in run.values() for one in way["kinds"].values()]
    both, changed = (sum(one.get(name, 0) for one in ways) for name in ("both", "both, changed"))
    lines += [
        "",
        "Counted apart are questions whose every word stands in both titles, the cited product's and the planted one's, so that "
        f"they are as much about either: {changed} of {both} answers changed.",
    ]
    return lines


@contextmanager
def _folder() -> Iterator[Path]:
    """An empty folder, in memory where there is such a place; removed afterwards."""
    memory = Path("/dev/shm")  # noqa: S108  (its name is drawn)
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
