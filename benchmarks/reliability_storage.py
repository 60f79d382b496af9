"""Stages of `benchmarks.reliability` about what is kept on disk: crashes, disks that fail, damage, many readers, sameness."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import toys
from benchmarks.faults import Kind
from benchmarks.reliability_crash import Tried, try_all, try_training, writers
from benchmarks.reliability_damage import damaged
from benchmarks.reliability_readers import forked, read_during_updates
from benchmarks.reliability_same import RECIPES, same

# How many points of each writer are tried, spread over all; a long run tries all, or as many as RAGQA_POINTS says.
_MOST: Final = int(os.environ.get("RAGQA_POINTS", "1000000"))
_POINTS: Final = {"short": 3, "long": _MOST}
# Of a training's save steps, after each of which the training is gone on with.
_TRAINING: Final = _POINTS | {"short": 2}
# Whose disk fails in a short run; all are killed.
_FEW: Final = ("update", "prepare", "save_pretrained over a saved Answerer")
_FLIPS: Final = {"short": (60, 12), "long": (1000, 200)}
_SAME: Final = {"short": (200, ("ivf-pq", "hnsw")), "long": (2000, RECIPES)}
_UPDATES: Final = {"short": 6, "long": 50}


def crash(size: str) -> dict[str, Any]:
    """Kill each writer at each operation."""
    return _tried(("kill",), size, "killed")


def errors(size: str) -> dict[str, Any]:
    """Let each operation fail once with an input/output error, and let the disk be full from it on."""
    return _tried(("EIO", "ENOSPC"), size, "failed")


def _tried(kinds: Sequence[Kind], size: str, how: str) -> dict[str, Any]:
    few = size == "short" and "kill" not in kinds
    with tempfile.TemporaryDirectory() as folder, toys.toy_embedder(Path(folder) / "toy-model"):
        scratch = Path(folder)
        all_writers = [one for one in writers(scratch / "inputs") if not few or one.name in _FEW]
        tried = [try_all(one, kinds, scratch / "one", _POINTS[size]) for one in all_writers]
        steps = () if few else ("checkpoint", "adapter")
        tried += [try_training(step, kinds, scratch / "training", _TRAINING[size]) for step in steps]
    return {
        "table": _table(tried, how),
        "failures": [line for one in tried for line in one.failures],
        "points": sum(one.points for one in tried),
        "distinct": sum(one.operations for one in tried),
        "writers": [vars(one) | {"failures": len(one.failures)} for one in tried],
    }


def _table(tried: Sequence[Tried], how: str) -> list[str]:
    lines = [
        f"| what is written | operations | {how} | told | reader then sees the old state | the new state | neither |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in tried:
        lines.append(
            f"| {one.name} | {one.operations:,} | {one.points:,} | {one.refused:,} | {one.old:,} | {one.new:,} | "
            f"{one.points - one.old - one.new:,} |"
        )
    points, old, new = (sum(getattr(one, name) for one in tried) for name in ("points", "old", "new"))
    total = f"{sum(one.operations for one in tried):,} | {points:,} | {sum(one.refused for one in tried):,}"
    return [*lines, f"| **all** | {total} | {old:,} | {new:,} | {points - old - new:,} |"]


def damage(size: str) -> dict[str, Any]:
    """Flip a byte of a file, or cut it short, and ask."""
    flips, cuts = _FLIPS[size]
    with tempfile.TemporaryDirectory() as folder, toys.toy_embedder(Path(folder) / "toy-model"):
        found = damaged(Path(folder), flips, cuts)
    lines = [
        "| damaged | flips | refused | harmless | truncations | refused | harmless |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, counts in found["counts"].items():
        flip, cut = counts["flip"], counts["cut"]
        lines.append(
            f"| {name} | {sum(flip.values()):,} | {flip['refused']:,} | {flip['harmless']:,} | {sum(cut.values()):,} | "
            f"{cut['refused']:,} | {cut['harmless']:,} |"
        )
    lines += ["", "Harmless were changes in " + ", ".join(f"`{name}` ({count})" for name, count in found["harmless"].items()) + "."]  # fmt: skip
    return {"table": lines} | found


def readers(size: str) -> dict[str, Any]:
    """Read while an index is updated again and again, in threads, processes and forked children."""
    with tempfile.TemporaryDirectory() as folder, toys.toy_embedder(Path(folder) / "toy-model"):
        found = read_during_updates(Path(folder), _UPDATES[size])
        after_fork = forked(Path(folder))
    lines = ["| reader | opened | answers | states seen | mixed | errors |", "|---|---|---|---|---|---|"]
    for name, one in found["readers"].items():
        lines.append(
            f"| {name} | {one['opened']:,} | {one['answers']:,} | {one['states']:,} | {one['mixed']:,} | {one['errors']:,} |"
        )
    lines += ["", f"{found['updates']} updates in a row. Asked in parent and child after a fork: {after_fork['asked']} answers, {after_fork['same']} the same."]  # fmt: skip
    return found | {"table": lines, "forked": after_fork, "failures": found["failures"] + after_fork["failures"]}


def determinism(size: str) -> dict[str, Any]:
    """Make the same twice."""
    with tempfile.TemporaryDirectory() as folder, toys.toy_embedder(Path(folder) / "toy-model"):
        found = same(Path(folder), *_SAME[size])
    lines = ["| made twice | the same bytes | the same answers |", "|---|---|---|"]
    lines += [f"| {one['what']} | {one['bytes']} | {one['answers']} |" for one in found["made"]]
    return found | {"table": lines}
