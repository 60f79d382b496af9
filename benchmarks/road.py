"""Time and memory of every stage, from a catalogue to an answer: ``python -m benchmarks.road``.

Each stage runs in a process of its own, so that its peak memory is its own; nothing else should run beside
it. Data: the project's demonstration catalogue, and those in ``$RAGQA_DATA`` (default ``../shared/data``).
The result goes to ``benchmarks/results/road.json``, and the table in benchmarks/README.md is made from it.
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
from ragqa.versions import setting

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULT = HERE / "results" / "road.json"
README = HERE / "README.md"
DATA = Path(os.environ.get("RAGQA_DATA", ROOT.parent / "shared" / "data"))
DEMO = ROOT / "examples" / "catalogue" / "trn.json"
CATALOGUES = {
    "demo": DEMO,
    "lf_amazon_sample": DATA / "lf_amazon_sample" / "trn.json.gz",
    "bestbuy": DATA / "bestbuy" / "catalogue.jsonl.gz",
    "parts": DATA / "parts" / "catalogue.jsonl.gz",
}

# Runs in the stage's own process; prints one JSON line with what it measured.
CHILD = """
import json, resource, sys, time
sys.argv = sys.argv[2:]
started = time.perf_counter()
{body}
print(json.dumps(dict(found, seconds=round(time.perf_counter() - started, 3),
      peak_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3))))
"""
PREPARE = """
from ragqa import prepare
report = prepare(sys.argv[0], sys.argv[1])
found = dict(rows=report.read, kept=report.kept, rows_per_second=round(report.read / report.seconds))
"""
BUILD = """
from ragqa import build_index
index = build_index(sys.argv[0], sys.argv[1])
m = index.manifest
found = dict(products=m["count"], titles_per_second=round(m["count"] / m["seconds"]["embed"]), stages=m["seconds"],
             index_mb=round(sum(p["size"] for p in m["parts"].values()) / 1e6, 1))
"""
ASK = """
from ragqa import Answerer
answerer = Answerer.from_pretrained(sys.argv[0])
opened = time.perf_counter() - started
titles = [p.title for _, p in zip(range(40), answerer.index.store)]
first = answerer.ask(" ".join(titles[0].split()[:3]), min_confidence=0.0)
first_answer = time.perf_counter() - started
def times(questions):
    out = []
    for q in questions:
        t = time.perf_counter(); answerer.ask(q, min_confidence=0.0); out.append(round(time.perf_counter() - t, 4))
    return out
found = dict(open_seconds=round(opened, 3), first_answer_seconds=round(first_answer, 3), exact=times(titles[1:21]),
             partial=times(" ".join(t.split()[:-1]) or t for t in titles[21:]))
"""
IMPORT = """
import ragqa
found = dict(torch="torch" in sys.modules)
"""


def stage(body: str, *arguments: object) -> dict[str, Any]:
    """Run one stage in a new process; returns what it measured."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD.replace("{body}", body.strip()), "stage", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(names: list[str], builds: list[str]) -> dict[str, Any]:
    """All stages for the named catalogues."""
    result: dict[str, Any] = setting() | {
        "import": [stage(IMPORT) for _ in range(5)],
        "prepare": {},
        "build": {},
        "ask": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            print(f"prepare {name}", file=sys.stderr, flush=True)
            result["prepare"][name] = stage(PREPARE, CATALOGUES[name], Path(folder) / f"{name}.parquet")
        for name in builds:
            print(f"build {name}", file=sys.stderr, flush=True)
            result["build"][name] = stage(BUILD, CATALOGUES[name], Path(folder) / name)
            print(f"ask {name}", file=sys.stderr, flush=True)
            result["ask"][name] = stage(ASK, Path(folder) / name)
    return result


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        f"Measured on {result['date']} at commit `{result['commit']}`: {result['machine']}, Python {result['python']}, "
        "no GPU, all stages in processes of their own, nothing beside them.",
        "",
        "| stage | catalogue | measured | peak memory |",
        "|---|---|---|---|",
    ]
    imports = [run["seconds"] for run in result["import"]]
    lines.append(
        f"| `import ragqa` | | median {statistics.median(imports):.3f} s of {len(imports)} | {result['import'][0]['peak_mb']} MB |"
    )
    for name, run in result["prepare"].items():
        lines.append(
            f"| `prepare` | {name} | {run['rows']:,} rows -> {run['kept']:,} products in {run['seconds']:.1f} s | {run['peak_mb']} MB |"
        )
    for name, run in result["build"].items():
        s = run["stages"]
        lines.append(
            f"| `build_index` | {name} | {run['products']:,} products in {run['seconds']:.1f} s (embedding {s['embed']:.1f} s, "
            f"{run['titles_per_second']} titles/s), {run['index_mb']} MB on disk | {run['peak_mb']} MB |"
        )
    for name, run in result["ask"].items():
        exact, partial = statistics.median(run["exact"]), statistics.median(run["partial"])
        lines.append(
            f"| `ask` | {name} | first answer {run['first_answer_seconds']:.1f} s after start; then median "
            f"{1000 * exact:.0f} ms (exact title), {1000 * partial:.0f} ms (title in part, the generator chooses) "
            f"| {run['peak_mb']} MB |"
        )
    return "\n".join(lines)


def row(result: dict[str, Any]) -> str:
    """One line for the project's README."""
    build, ask = result["build"]["bestbuy"], result["ask"]["bestbuy"]
    return (
        f"Measured ({result['machine']}, no GPU): {build['products']:,} real products indexed in "
        f"{build['seconds']:.0f} s; a title in part answered in {1000 * statistics.median(ask['partial']):.0f} ms, an exact "
        f"title in {1000 * statistics.median(ask['exact']):.0f} ms ([how](benchmarks/README.md))."
    )


def write_tables(result: dict[str, Any]) -> None:
    """Put the figures between their marks in benchmarks/README.md and README.md."""
    for path, text in ((README, table(result)), (ROOT / "README.md", row(result))):
        put(path, "road", text)


def main() -> int:
    """Measure, write the result and the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", action="store_true", help="only write the tables from the committed result")
    chosen = parser.parse_args()
    if chosen.tables:
        write_tables(json.loads(RESULT.read_text("utf-8")))
        return 0
    missing = [name for name, path in CATALOGUES.items() if not path.exists()]
    if missing:
        print(f"no data for {', '.join(missing)} in {DATA}; set RAGQA_DATA (see benchmarks/README.md)", file=sys.stderr)
        return 2
    result = measure(list(CATALOGUES), ["demo", "lf_amazon_sample", "bestbuy"])
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    write_tables(result)
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
