"""What no test reaches: ``python -m benchmarks.coverage_report coverage.json``, after ``make coverage`` and ``coverage json``.

Puts the share of lines and branches of ragqa/ that tests reach, and the modules that they reach least, into
docs/reliability.md. What was not run is named after the file: ``coverage.json tests/security``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.pages import put
from benchmarks.reliability import PAGE
from ragqa.versions import setting

_NAMED: Final = 95.0  # modules below this share are named


def table(found: dict[str, Any], measured: dict[str, Any], without: Sequence[str] = ()) -> str:
    """What stands between the marks, of the JSON that coverage.py writes and the tests that were not run."""
    totals, files = found["totals"], found["files"]
    shares = {name: float(one["summary"]["percent_covered"]) for name, one in files.items()}
    branches = totals["covered_branches"] / totals["num_branches"]
    low = sorted((share, name) for name, share in shares.items() if share < _NAMED)
    return "\n".join(
        [
            f"Lines and branches of `ragqa/` that tests reach: **{totals['percent_covered']:.1f} %** of {totals['num_statements']:,} lines and "
            f"{totals['num_branches']:,} branches; of the branches alone {branches:.1%}; all of them in "
            f"{sum(share == 100 for share in shares.values())} of {len(shares)} modules. Below {_NAMED:.0f} %:",
            "",
            ", ".join(f"`{name.removeprefix('ragqa/')}` {share:.0f}" for share, name in low) + ".",
            "",
            f"Measured on {measured['date']} at commit `{measured['commit']}`, Python {measured['python']}, without the tests that "
            f"`make torture` adds{''.join(f', `{name}`' for name in without)}; processes that tests start are counted, Ray's own "
            "workers and those killed are not.",
        ]
    )


def main(path: str, *without: str) -> None:
    """Write it."""
    put(PAGE, "coverage", table(json.loads(Path(path).read_text("utf-8")), setting(), without))


if __name__ == "__main__":
    main(*sys.argv[1:])
