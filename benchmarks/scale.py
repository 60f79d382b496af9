"""How time, memory and files grow with the catalogue, beside peers: ``python -m benchmarks.scale --keep``.

Catalogues of 10,000 to 1,300,000 products are made from real ones (`benchmarks.scale_catalogue`); at each size the index is
built, opened in new processes, and asked questions about titles whole, in part, mistyped, re-ordered, or with words of the
description, and peers that index the same titles are asked the same questions (`benchmarks.scale_peers`). Every stage is
a process of its own, one after another, with nothing beside it; its result is kept in the work folder as it ends, and a
stage that is kept is not measured again: interrupted, the same command goes on. Linux alone tells how much memory is the
process's own, so that it runs nowhere else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.pages import put
from benchmarks.road import DATA, README, ROOT
from benchmarks.scale_catalogue import SEED, SOURCES
from benchmarks.scale_peers import PEERS, installed
from benchmarks.scale_pictures import FILES, draw
from benchmarks.scale_report import RESULT, table
from benchmarks.scale_stages import ASKED, MANY, SINGLE
from ragqa.versions import installed_versions, setting

SIZES: Final = (10_000, 100_000, 582_280, 1_300_000)
STAGES: Final = ("make", "build", "search", "start", "update")
# Of the sizes the one whose titles are embedded to compare speeds.
_EMBEDDED_OF: Final = 100_000
_PACKAGES: Final = (
    "torch", "transformers", "sentence-transformers", "faiss-cpu", "numpy", "rank-bm25", "bm25s", "numba", "txtai",
)  # fmt: skip


def main() -> int:
    """Measure what is not there yet, and keep the result where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), metavar="N", help="(default: %(default)s)")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("indexes/scale"),
        help="what is made and measured lies there (default: %(default)s)",
    )
    parser.add_argument("--stages", nargs="+", choices=(*STAGES, "embedding", *PEERS), metavar="STAGE", help=f"only these of {', '.join((*STAGES, 'embedding', *PEERS))}")  # fmt: skip
    parser.add_argument("--again", action="store_true", help="measure also what is kept in the work folder")
    parser.add_argument("--peer-embedding-limit", type=int, default=10_000, metavar="N", help="up to this size a peer that embeds by itself is asked, too (default: %(default)s)")  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="make what is kept in the work folder the committed result")
    parser.add_argument("--tables", action="store_true", help="only write tables and pictures from the committed result")  # fmt: skip
    chosen = parser.parse_args()
    if chosen.tables:
        write_tables(json.loads(RESULT.read_text("utf-8")))
        return 0
    if min(chosen.sizes) < ASKED:
        parser.error(f"a size is at least {ASKED}, so that each question is about a product of its own")
    missing = [name for name, path in SOURCES.items() if not path.exists()]
    if missing:
        print(f"no data for {', '.join(missing)} in {DATA}; set RAGQA_DATA (see benchmarks/README.md)", file=sys.stderr)
        return 2
    work = chosen.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    sizes = sorted(set(chosen.sizes))
    failed = [
        (size, stage)
        for size, stage in planned(sizes, chosen.peer_embedding_limit)
        if (chosen.stages is None or stage in chosen.stages) and not measure(size, stage, work, chosen.again)
    ]
    result = gather(sizes, work, chosen.peer_embedding_limit)
    if result["sizes"]:
        print(table(result))
    for size, stage in failed:
        print(f"{stage} at {size:,}: not measured, see above", file=sys.stderr)
    if chosen.keep and not failed and result["sizes"]:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        write_tables(result)
    return 1 if failed else 0


def planned(sizes: Sequence[int], peer_embedding_limit: int) -> list[tuple[int, str]]:
    """All that there is to measure, in its order; peers that are not installed are left out."""
    found = []
    for size in sizes:
        found += [(size, stage) for stage in STAGES]
        if size == min(sizes, key=lambda one: abs(one - _EMBEDDED_OF)):
            found.append((size, "embedding"))
        for name, (kind, _) in PEERS.items():
            if installed(name) and (kind != "text" or size <= peer_embedding_limit):
                found.append((size, name))
    return found


def kept_file(size: int, stage: str, work: Path) -> Path:
    """Where a stage's result is kept."""
    return work / "results" / f"{size}-{stage.lower().replace(', ', '-').replace(' ', '-')}.json"


def kept(size: int, stage: str, work: Path) -> dict[str, Any] | None:
    """A stage's result, if it is kept; one that was measured with other questions does not count."""
    path = kept_file(size, stage, work)
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found if found["asked"] == _asked() else None


def _asked() -> dict[str, int]:
    return {"seed": SEED, "single": SINGLE, "many": MANY}


def measure(size: int, stage: str, work: Path, again: bool = False) -> bool:
    """Run a stage in a process of its own, and keep its result; False if it failed."""
    if not again and kept(size, stage, work):
        return True
    print(f"{time.strftime('%H:%M:%S')} {stage} at {size:,}", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale_stages", stage, str(size), str(work)],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        return False
    found = {"asked": _asked(), "machine": setting(), "found": json.loads(done.stdout.splitlines()[-1])}
    file = kept_file(size, stage, work)
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return True


def gather(sizes: Sequence[int], work: Path, peer_embedding_limit: int) -> dict[str, Any]:
    """What is kept, as one result; a size without its index and its searches is left out."""
    stages = {(size, stage): kept(size, stage, work) for size, stage in planned(sizes, peer_embedding_limit)}
    whole = [size for size in sizes if all(stages[size, stage] for stage in STAGES)]
    there = {key: one for key, one in stages.items() if one and key[0] in whole}
    machines = [one["machine"] for one in there.values()]
    result: dict[str, Any] = {
        "machine": setting() | {"threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))},
        "measured": {what: sorted({machine[what] for machine in machines}) for what in ("commit", "date")},
        "versions": installed_versions(_PACKAGES),
        "asked": _asked(),
        "peer_embedding_limit": peer_embedding_limit,
        "embedding": None,
        "sizes": {},
    }
    for (size, stage), one in there.items():
        here = result["sizes"].setdefault(str(size), {"peers": {}})
        if stage == "embedding":
            result["embedding"] = one["found"]
        else:
            (here["peers"] if stage in PEERS else here)[stage] = one["found"]
    return result


def write_tables(result: dict[str, Any]) -> None:
    """Put the tables between their marks in benchmarks/README.md, and draw the pictures."""
    put(README, "scale", table(result))
    draw(result, FILES)


if __name__ == "__main__":
    sys.exit(main())
