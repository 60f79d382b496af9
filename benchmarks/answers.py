"""Does fine-tuning pay, does retrieval, do both? ``python -m benchmarks.answers --catalogue FILE --profile quick``.

The same as ``ragqa benchmark``: index, questions, both fine-tunings, all arms, report. ``--keep`` adds the result, without
the catalogue's texts, to ``benchmarks/results``, and writes the tables of benchmarks/README.md and README.md from it;
``--tables``, alone, only writes those from the committed results.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.pages import put
from benchmarks.road import HERE, README, ROOT
from ragqa.cli import run_module
from ragqa.commands import benchmark
from ragqa.report import tables
from ragqa.report.document import write_report
from ragqa.report.reading import Reading, interval
from ragqa.report.summary import answer

EXAMPLE = "example: python -m benchmarks.answers --catalogue examples/catalogue/trn.json --profile smoke"
AFTER_INTERRUPT = benchmark.AFTER_INTERRUPT
RESULTS = HERE / "results"
_NAMED = ("copy", "copy_bm25", "base", "base_context", "plain", "plain_context", "retrieval_context")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `ragqa benchmark`, and `--keep`."""
    benchmark.add_arguments(parser)
    parser.add_argument("--keep", action="store_true", help="add to the committed results, without texts")


def run(chosen: argparse.Namespace) -> int:
    """Compare, report, and keep the result where that is asked for."""
    found = benchmark.measure(chosen)
    if chosen.keep:
        keep(found["raw"], found["analysis"])
        write_tables()
    benchmark.tell(found)
    return 0


def keep(raw: dict[str, Any], analysis: dict[str, Any]) -> Path:
    """Write a result, named for its catalogue and the hash of that, and its report; returns the result's path."""
    name = f"answers-{raw['catalogue']['name']}-{raw['catalogue']['sha256'][:12]}"
    with tempfile.TemporaryDirectory(dir=RESULTS) as folder:
        files = write_report(Path(folder) / name, _rounded(raw), _rounded(analysis), texts=False)
        result = json.loads(files["json"].read_text("utf-8"))
        files["json"].write_text(json.dumps(result, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")
        shutil.rmtree(RESULTS / name, ignore_errors=True)
        files["json"].replace(RESULTS / f"{name}.json")
        files["html"].parent.rename(RESULTS / name)
    return RESULTS / f"{name}.json"


def _rounded(value: Any) -> Any:
    """The same with floats to five decimals, which no interval here is as sharp as."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 5) if isinstance(value, float) else value


def kept() -> dict[str, Reading]:
    """The committed results by their names."""
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("answers-*.json"))}
    return {name: Reading(result["raw"], result["analysis"]) for name, result in found.items()}


def section(name: str, reading: Reading) -> str:
    """One result as Markdown."""
    profile, setup = reading.raw["profile"]["name"], reading.raw["setup"]
    parts = [
        f"### {reading.raw['catalogue']['name']}",
        f"Profile `{profile}`, measured on {setup['date']} at commit `{setup['commit']}`: {setup['machine']}, {setup['device']}, "
        f"{setup['dtype']}. The whole report: [Markdown](results/{name}/report.md), [HTML](results/{name}/report.html).",
        answer(reading),
        f"![F1 of all arms](results/{name}/pictures/forest.svg)",
        tables.original(reading).markdown(),
        *(tables.all_arms(reading, asked).markdown() for asked in reading.sets),
        tables.cost(reading).markdown(),
    ]
    return "\n\n".join(parts)


def row(name: str, reading: Reading) -> str:
    """One result in a line, for the project's README."""
    asked = reading.main_set
    scores = ", ".join(
        f"{reading.label(arm)} {interval(cell)}" for arm in _NAMED if (cell := reading.cell(arm, asked)) is not None
    )
    return (
        f"F1 with 95 % intervals, questions about {asked} products of {reading.raw['catalogue']['name']} "
        f"({reading.raw['catalogue']['products']:,} products): {scores} ([report](benchmarks/results/{name}/report.md))."
    )


def write_tables() -> None:
    """Put the sections and lines between their marks in benchmarks/README.md and README.md."""
    found = kept()
    put(README, "answers", "\n\n".join(section(name, reading) for name, reading in found.items()))
    put(ROOT / "README.md", "answers", "\n\n".join(row(name, reading) for name, reading in found.items()))


if __name__ == "__main__":
    if sys.argv[1:] == ["--tables"]:
        sys.exit(write_tables())
    sys.exit(run_module(sys.modules[__name__], sys.argv[1:], "python -m benchmarks.answers"))
