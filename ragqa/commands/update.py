"""Update a product index to a new state of its catalogue: add, change and delete what differs, embed only what is new.

The catalogue is the whole new one: products that are not in it are deleted. It is cleaned as the index was, and the
index stays in use, as it was, until the new state is whole.
"""

from __future__ import annotations

import argparse

from ragqa.commands.options import add_catalogue, add_common, add_device, reading_options

EXAMPLE = "example: python -m ragqa.update indexes/demo examples/catalogue/trn.json"
AFTER_INTERRUPT = "the index is as it was; the same command begins anew"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ragqa update`."""
    parser.add_argument("index", metavar="INDEX", help="a folder that build-index wrote")
    add_catalogue(parser, cleaning=False)
    parser.add_argument(
        "--allow-deletions", action="store_true", help="also delete more than half of the index's products"
    )
    parser.add_argument(
        "--embedder", metavar="ID", help="where the embedder that built the index lies now, if it moved"
    )
    add_device(parser)
    add_common(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run `ragqa update`."""
    from ragqa.index.update import update_index

    done = update_index(
        chosen.index,
        chosen.catalogue,
        embedder=chosen.embedder,
        device=chosen.device,
        dtype=chosen.dtype,
        options=reading_options(chosen),
        limit=chosen.limit,
        allow_deletions=chosen.allow_deletions,
    )
    seconds = done.seconds
    if not (done.added or done.changed or done.deleted):
        print(f"{chosen.index}: nothing changed, {done.count:,} products, {seconds['total']:.1f} s")
        return 0
    print(
        f"{chosen.index}: {done.added:,} added, {done.changed:,} changed, {done.deleted:,} deleted, {done.unchanged:,} "
        f"unchanged; {done.count:,} products, {done.embedded:,} titles embedded, {seconds['total']:.1f} s (checking "
        f"{seconds['check']:.1f}, cleaning {seconds['clean']:.1f}, embedding {seconds['embed']:.1f}, writing "
        f"{seconds['write'] + seconds['words']:.1f})"
    )
    return 0
