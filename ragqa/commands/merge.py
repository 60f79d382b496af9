"""Merge an adapter into its base model, for servers that know no adapters.

The merged model is checked: it must answer the adapter's own test prompts with the same tokens.
"""

from __future__ import annotations

import argparse

from ragqa.commands.options import add_common

EXAMPLE = "example: python -m ragqa.merge adapters/demo --out models/demo"
AFTER_INTERRUPT = "nothing was written"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ragqa merge`."""
    parser.add_argument("adapter", metavar="ADAPTER", help="a folder that fine-tune wrote")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the merged model goes")
    parser.add_argument("--generator", metavar="ID", help="where the base model lies now, if it moved")
    parser.add_argument("--overwrite", action="store_true", help="replace a merged model in --out")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    parser.add_argument(
        "--dtype", default="float32", help="of the merged weights: float32, bfloat16 or float16 (default: float32)"
    )
    add_common(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run `ragqa merge`."""
    from ragqa.training.merge import merge

    manifest = merge(
        chosen.adapter,
        chosen.out,
        generator=chosen.generator,
        device=chosen.device,
        dtype=chosen.dtype,
        overwrite=chosen.overwrite,
    )
    merged = manifest["merged"]
    print(
        f"{chosen.out}: {merged['same_answers']} of {merged['prompts']} test prompts answered as by the adapter "
        f"({merged['dtype']}, log-probabilities differ by {merged['largest_log_prob_difference']:.2g} at most)"
    )
    print(f'now ask: python -m ragqa.ask INDEX --generator {chosen.out} "What is the description of ...?"')
    return 0
