"""Build a product index: clean the catalogue, embed its titles, write a FAISS index with a manifest.

Interrupted, the same command goes on from the last finished block. An index that is already there stays in
use until the new one is whole.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ragqa.commands.options import add_catalogue, add_common, add_device, catalogue_arguments
from ragqa.errors import InputError
from ragqa.models import DEFAULT_EMBEDDER

EXAMPLE = "example: python -m ragqa.build_index examples/catalogue/trn.json --name demo"
AFTER_INTERRUPT = "the same command goes on from what was finished"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ragqa build-index`."""
    add_catalogue(parser)
    parser.add_argument("--name", help="name of the index (default: made from the catalogue's name)")
    parser.add_argument("--out", metavar="FOLDER", help="where it goes (default: indexes/NAME)")
    parser.add_argument("--embedder", default=DEFAULT_EMBEDDER, metavar="ID", help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the questions the confidence is fitted on")
    add_device(parser)
    add_common(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run `ragqa build-index`."""
    out = chosen.out or f"indexes/{_name(chosen)}"
    from ragqa.index.build import build_index

    index = build_index(
        chosen.catalogue,
        out,
        embedder=chosen.embedder,
        device=chosen.device,
        dtype=chosen.dtype,
        seed=chosen.seed,
        **catalogue_arguments(chosen),
    )
    manifest = index.manifest
    size = sum(part["size"] for part in manifest["parts"].values())
    seconds = manifest["seconds"]
    print(
        f"{out}: {manifest['count']:,} products, {manifest['dimension']} dimensions, {size / 1e6:,.1f} MB, "
        f"{seconds['total']:.1f} s (cleaning {seconds['clean']:.1f}, embedding {seconds['embed']:.1f}, "
        f"indexing {seconds['index']:.1f})"
    )
    print(f'now ask: python -m ragqa.ask {out} "What is the description of ...?"')
    return 0


def _name(chosen: argparse.Namespace) -> str:
    if chosen.name is None:
        return catalogue_name(chosen.catalogue)
    if not re.fullmatch(r"\w[\w.-]*", chosen.name):
        raise InputError(f"--name {chosen.name!r}: letters, digits, '.', '_' and '-' are accepted")
    return str(chosen.name)


def catalogue_name(catalogue: str) -> str:
    """A short name for a catalogue, from its path."""
    path = Path(catalogue)
    stem = path.name.split(".")[0]
    # trn.json says nothing; the folder it lies in does.
    name = path.absolute().parent.name if stem in ("trn", "tst", "catalogue", "train", "data") else stem
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "catalogue"
