"""Plan machines for so many titles and questions a second: engine, machines, memory, disk, time of the build.

Reckoned from what was measured with 10,000 to 1,300,000 titles, with the errors of that reckoning and what it assumes.
docs/scale.md says how.
"""

from __future__ import annotations

import argparse
import json
import re

from ragqa.commands.options import add_common, given, size_in_bytes

EXAMPLE = "example: python -m ragqa.plan --titles 300e6 --qps 2000"
AFTER_INTERRUPT = "nothing was written"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ragqa plan`."""
    parser.add_argument("--titles", type=_number, required=True, metavar="N", help="such as 300e6 or 1,300,000")
    parser.add_argument("--qps", type=_number, default=0.0, metavar="N", help="questions a second at the busiest")
    group = parser.add_argument_group("a machine")
    group.add_argument("--memory", type=size_in_bytes, metavar="SIZE", help="(default: 64GB)")
    group.add_argument("--cores", type=int, metavar="N", help="(default: 16)")
    group.add_argument(
        "--titles-per-second", type=_number, metavar="N",
        help="that it embeds, for example with a GPU: your figure (default: what was measured on a CPU, by cores)",
    )  # fmt: skip
    group = parser.add_argument_group("what is asked of it")
    group.add_argument("--max-build-hours", type=_number, metavar="N", help="(default: 24)")
    group.add_argument(
        "--max-latency-ms", type=_number, metavar="MS", help="of finding a question's products, p50 (default: 100)"
    )
    group.add_argument(
        "--decoding", choices=("copy", "extractive", "free"),
        help="how answers are made; all but copy need the generator (default: copy)",
    )  # fmt: skip
    group.add_argument("--min-replicas", type=int, metavar="N", help="of everything that answers (default: 2)")
    group.add_argument(
        "--product-bytes", type=_number, metavar="N", help="of a product as JSON, title and description (default: 217)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    add_common(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run `ragqa plan`."""
    from ragqa.planning.plan import plan
    from ragqa.planning.records import PlanSettings
    from ragqa.planning.text import lines

    planned = plan(chosen.titles, chosen.qps, PlanSettings.from_dict(given(chosen, PlanSettings.__slots__)))
    if chosen.json:
        print(json.dumps(planned.to_dict()))
    else:
        print("\n".join(lines(planned)))
    return 0


def _number(text: str) -> float:
    """A number, as people write it."""
    written = text.strip()
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", written):
        written = written.replace(",", "")
    if not re.fullmatch(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)(e[+-]?\d+)?", written.lower()):
        raise argparse.ArgumentTypeError(f"{text!r} is no number; such as 300e6 or 1,300,000 are accepted")
    return float(written)
