"""Clean a product catalogue and save it for use elsewhere, with a report of what was dropped and why."""

from __future__ import annotations

import argparse

from ragqa.catalogue.export import PAIR_TEMPLATE, prepare
from ragqa.commands.options import add_catalogue, add_common, catalogue_arguments

EXAMPLE = "example: python -m ragqa.prepare examples/catalogue/trn.json --out prepared.parquet --pairs"
AFTER_INTERRUPT = "nothing was written"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ragqa prepare`."""
    add_catalogue(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="a .parquet, .csv or .jsonl file")
    parser.add_argument("--pairs", action="store_true", help="add the columns prompt and response")
    parser.add_argument("--template", default=PAIR_TEMPLATE, help="the prompt of a pair (default: %(default)s)")
    add_common(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run `ragqa prepare`."""
    report = prepare(
        chosen.catalogue,
        chosen.out,
        pairs=chosen.pairs,
        template=chosen.template,
        **catalogue_arguments(chosen),
    )
    print(report.table())
    print(f"written: {chosen.out} and {chosen.out}.report.json")
    return 0
