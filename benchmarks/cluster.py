"""Beyond one process: ``python -m benchmarks.cluster ray --sizes 10000 582280 --keep``.

Each part measures something that carries the load in the place of this process, and writes a result and a table of its
own. `ray`: the same catalogue built by one process and by Ray with two workers on the same machine, and by two Ray nodes of
which a worker is killed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Final

from benchmarks.pages import put
from benchmarks.road import DATA, HERE, README
from benchmarks.scale_catalogue import SOURCES

PARTS: Final = {"ray": "benchmarks.cluster_ray"}


def result_of(part: str) -> Path:
    """Where a part's committed result is."""
    return HERE / "results" / f"cluster-{part}.json"


def main() -> int:
    """Measure a part, and keep its result where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS, help="what to measure")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000], metavar="N", help="(default: 10000)")
    parser.add_argument("--killed", type=int, nargs="*", metavar="N", help="the sizes at which a worker is killed (default: all)")  # fmt: skip
    parser.add_argument("--work", type=Path, default=Path("indexes/cluster"), help="(default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="measure also what is kept in the work folder")
    parser.add_argument("--keep", action="store_true", help="make what was measured the committed result")
    parser.add_argument("--tables", action="store_true", help="only write the table from the committed result")
    chosen = parser.parse_args()
    module = importlib.import_module(PARTS[chosen.part])
    result, mark = result_of(chosen.part), f"cluster-{chosen.part}"
    if chosen.tables:
        put(README, mark, module.table(json.loads(result.read_text("utf-8"))))
        return 0
    if missing := [name for name, path in SOURCES.items() if not path.exists()]:
        print(f"no data for {', '.join(missing)} in {DATA}; set RAGQA_DATA (see benchmarks/README.md)", file=sys.stderr)
        return 2
    work = chosen.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    sizes = sorted(set(chosen.sizes))
    found = module.measure(sizes, work, chosen.again, sizes if chosen.killed is None else chosen.killed)
    print(module.table(found))
    if chosen.keep:
        result.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        put(README, mark, module.table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
