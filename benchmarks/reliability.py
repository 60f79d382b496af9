"""Nothing lost, nobody let in: ``python -m benchmarks.reliability --keep``, or ``make torture``.

Everything that docs/reliability.md promises is tried, far longer than the tests of CI do; each stage is a process of its
own, and its result is kept in the work folder as it ends, so that stages may be run at different times. ``--keep`` merges
what is there into the committed result and writes the tables of docs/reliability.md from it.

A stage is a function ``stage(size)`` of a module named in `STAGES`; `size` is "short" (fixed small counts, for CI, which calls
the same functions from ``tests/reliability``) or "long". It makes its own temporary folders, removes them, and gives a
JSON-ready dictionary:

- ``failures``: a list of what was not as promised, each one line of text; empty is what is hoped for.
- ``table``: a list of Markdown lines for docs/reliability.md, put between the marks ``<!-- NAME -->`` and ``<!-- /NAME -->``;
  they are made of the figures alone, without times or names of a machine.
- anything else that was counted.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, Literal

from benchmarks.pages import put
from benchmarks.road import HERE, ROOT
from ragqa.versions import installed_versions, setting

Size = Literal["short", "long"]

RESULT: Final = HERE / "results" / "reliability.json"
PAGE: Final = ROOT / "docs" / "reliability.md"
_STORAGE: Final = "benchmarks.reliability_storage"
_HOSTILE: Final = "benchmarks.reliability_hostile"
# Stage: module and function.
STAGES: Final = {
    "crash": (_STORAGE, "crash"),
    "errors": (_STORAGE, "errors"),
    "damage": (_STORAGE, "damage"),
    "readers": (_STORAGE, "readers"),
    "determinism": (_STORAGE, "determinism"),
    "fuzz": (_HOSTILE, "fuzz"),
    "attacks": (_HOSTILE, "attacks"),
    "planted": (_HOSTILE, "planted"),
    "soak": (_HOSTILE, "soak"),
}
# Stages that fork need a process without threads of its own (OMP_NUM_THREADS).
_ENVIRONMENT: Final = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
_PACKAGES: Final = ("faiss-cpu", "filelock", "numpy", "peft", "pyarrow", "safetensors", "torch", "transformers")


def main() -> int:
    """Try what was asked for; 1 if anything was not as promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="the small counts of CI")
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=list(STAGES), metavar="STAGE", help=f"only these (none, to merge alone) of {', '.join(STAGES)}")  # fmt: skip
    parser.add_argument("--work", type=Path, default=Path("indexes/reliability"), help="(default: %(default)s)")
    parser.add_argument(
        "--keep", action="store_true", help="merge what is in the work folder into the committed result"
    )
    parser.add_argument("--tables", action="store_true", help="only write the tables from the committed result")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)  # in this process: where the results go
    chosen = parser.parse_args()
    if chosen.tables:
        write_tables(json.loads(RESULT.read_text("utf-8")))
        return 0
    size: Size = "short" if chosen.short else "long"
    if chosen.one:
        chosen.one.write_text(json.dumps({stage: measured(stage, size) for stage in chosen.stages}) + "\n", "utf-8")
        return 0
    if chosen.keep and chosen.short:
        parser.error("--keep is for the long mode")
    work = chosen.work.resolve() / size
    work.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for stage in chosen.stages:
        print(f"{time.strftime('%H:%M:%S')} {stage} ({size})", file=sys.stderr, flush=True)
        file = work / f"{stage}.json"
        file.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.reliability", "--stages", stage, "--one", str(file), *["--short"] * chosen.short],
            cwd=ROOT,
            env=os.environ | _ENVIRONMENT | ({"OMP_NUM_THREADS": "1"} if STAGES[stage][0] == _STORAGE else {}),
            check=False,
        )  # fmt: skip
        if done.returncode or not file.exists():
            print(f"{stage}: ended with {done.returncode}", file=sys.stderr)
            wrong += 1
            continue
        one = json.loads(file.read_text("utf-8"))[stage]
        file.write_text(json.dumps(one) + "\n", "utf-8")
        found = one["found"]
        print("\n".join([*found["table"], "", *(f"FAILED {one}" for one in found["failures"])]), flush=True)
        wrong += len(found["failures"])
    if chosen.keep:
        result = merged(work)
        RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        write_tables(result)
    return min(wrong, 1)


def measured(stage: str, size: Size) -> dict[str, Any]:
    """A stage's result, with where, when and with what it was measured."""
    module, function = STAGES[stage]
    started = time.perf_counter()
    found = getattr(importlib.import_module(module), function)(size)
    return setting() | {
        "versions": installed_versions(_PACKAGES),
        "size": size,
        "seconds": round(time.perf_counter() - started, 1),
        "found": found,
    }


def merged(work: Path) -> dict[str, Any]:
    """The committed result with the stages that the work folder has in the place of its own."""
    kept: dict[str, Any] = json.loads(RESULT.read_text("utf-8"))["stages"] if RESULT.exists() else {}
    new = {stage: work / f"{stage}.json" for stage in STAGES}
    kept |= {stage: json.loads(file.read_text("utf-8")) for stage, file in new.items() if file.exists()}
    return {"stages": {stage: kept[stage] for stage in STAGES if stage in kept}}


def table(stage: str, one: dict[str, Any]) -> str:
    """What stands between a stage's marks."""
    about = (
        f"Measured on {one['date']} at commit `{one['commit']}`: {one['machine']}, Python {one['python']}, "
        f"{one['seconds'] / 60:.1f} minutes; `python -m benchmarks.reliability --stages {stage}`."
    )
    failures = [f"- {line}" for line in one["found"]["failures"]]
    wrong = ["", "**Not as promised:**", "", *failures] if failures else []
    return "\n".join([*one["found"]["table"], *wrong, "", about])


def write_tables(result: dict[str, Any]) -> None:
    """Put each stage's table between its marks in docs/reliability.md."""
    for stage, one in result["stages"].items():
        put(PAGE, stage, table(stage, one))


if __name__ == "__main__":
    sys.exit(main())
