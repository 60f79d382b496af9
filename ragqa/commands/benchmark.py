"""Find out whether fine-tuning pays on a catalogue, whether retrieval does, or both.

Builds an index, asks questions about products that were trained on and others that were not, fine-tunes the generator
both ways, lets all arms answer, and writes a report with intervals: report.html, report.md and result.json. Interrupted,
the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ragqa.commands.build_index import catalogue_name
from ragqa.commands.options import add_catalogue, add_common, add_device, catalogue_arguments, given
from ragqa.comparison.profile import PROFILES, make_profile
from ragqa.models import DEFAULT_EMBEDDER
from ragqa.training.recipe import read_recipe

EXAMPLE = "example: python -m ragqa.benchmark --catalogue examples/catalogue/trn.json --profile smoke"
AFTER_INTERRUPT = "the same command goes on from what was finished"
_SIZES = ("examples", "seen", "unseen", "timed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ragqa benchmark`."""
    add_catalogue(parser, "--catalogue")
    parser.add_argument(
        "--profile",
        choices=list(PROFILES),
        default="quick",
        help="smoke: toy sizes, minutes; quick: a laptop, an hour; full: a GPU (default: %(default)s)",
    )
    parser.add_argument("--out", metavar="FOLDER", help="for stages and report (default: reports/NAME-PROFILE)")
    parser.add_argument("--without-texts", action="store_true", help="leave questions and answers out of the report")
    parser.add_argument("--embedder", default=DEFAULT_EMBEDDER, metavar="ID", help="(default: %(default)s)")
    group = parser.add_argument_group("other sizes than the profile's")
    for name in _SIZES:
        group.add_argument(f"--{name}", type=int, metavar="N")
    group.add_argument("--training-seeds", type=int, nargs="+", metavar="N", help="each trains adapters of its own")
    group.add_argument("--curve", type=int, nargs="*", metavar="N", help="examples of further adapters, for the curve")
    group.add_argument("--recipe", metavar="FILE", help="hyper-parameters, see recipes/")
    add_device(parser)
    add_common(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run `ragqa benchmark`."""
    tell(measure(chosen))
    return 0


def tell(found: dict[str, Any]) -> None:
    """Print what was found in a paragraph, and where the report is."""
    print(found["answer"])
    print(f"report: {found['files']['html']}")


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """What `ragqa.comparison.run.compare` gives for the options."""
    overrides = given(chosen, (*_SIZES, "training_seeds", "curve", "limit"))
    overrides |= {name: tuple(overrides[name]) for name in ("training_seeds", "curve") if name in overrides}
    if chosen.recipe is not None:
        overrides["recipe"] = read_recipe(chosen.recipe).to_dict()
    profile = make_profile(chosen.profile, **overrides)
    name = catalogue_name(chosen.catalogue)
    out = Path(chosen.out or f"reports/{name}-{profile.name}")
    from ragqa.comparison.run import compare

    read = catalogue_arguments(chosen)
    return compare(
        chosen.catalogue,
        out,
        profile=profile,
        name=name,
        embedder=chosen.embedder,
        device=chosen.device,
        dtype=chosen.dtype,
        options=read["options"],
        cleaning=read["cleaning"],
        texts=not chosen.without_texts,
    )
