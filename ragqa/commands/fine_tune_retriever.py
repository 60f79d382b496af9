"""Train an index's own sentence encoder to find its titles by questions that have them in part or mistyped.

The trained encoder is used by `ragqa build-index CATALOGUE --embedder FOLDER`. Its README.md says what changed.
Interrupted, the same command with --resume goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse

from ragqa.commands.options import add_common
from ragqa.training.pairs import RetrieverTrainingSettings
from ragqa.training.questions import WITH_PRODUCT

EXAMPLE = (
    "example: python -m ragqa.fine_tune_retriever indexes/demo --out embedders/demo --steps 4 --validation 50 --test 50"
)
AFTER_INTERRUPT = "the same command with --resume goes on from the last checkpoint, if one was written"

_HELP = {
    "steps": "optimiser steps",
    "batch_size": "pairs a step",
    "learning_rate": "the highest, after a tenth of the steps",
    "scale": "of cosine similarities before the softmax",
    "evaluations": "how often it is measured and a checkpoint is written",
    "patience": "evaluations without gain after which it stops",
    "validation": "validation questions",
    "test": "questions for the final figures",
    "max_titles": "take the figures over a sample of so many titles, where there are more",
    "seed": "of split, questions, batches and dropout",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ragqa fine-tune-retriever`."""
    defaults = RetrieverTrainingSettings()
    parser.add_argument("index", metavar="INDEX", help="an index folder, such as indexes/demo")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the trained encoder goes")
    group = parser.add_argument_group("training")
    for name, text in _HELP.items():
        default = getattr(defaults, name)
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(default),
            default=default,
            metavar="N",
            help=f"{text} (default: {default})",
        )
    group.add_argument(
        "--kinds",
        default=",".join(defaults.kinds),
        help=f"kinds of questions to train on, of {','.join(WITH_PRODUCT)} (default: %(default)s)",
    )
    parser.add_argument(
        "--embedder", metavar="FOLDER", help="where the encoder that built the index lies now, if it moved"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--dtype", default="auto", help="auto, float32 or bfloat16 (default: auto, the fastest here)")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted training")
    parser.add_argument("--overwrite", action="store_true", help="replace a trained encoder, or begin anew")
    add_common(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run `ragqa fine-tune-retriever`."""
    kinds = tuple(kind.strip() for kind in chosen.kinds.split(","))
    settings = RetrieverTrainingSettings(**{name: getattr(chosen, name) for name in _HELP}, kinds=kinds)
    from ragqa.training.embedder import fine_tune_retriever
    from ragqa.training.embedder_card import verdict

    manifest = fine_tune_retriever(
        chosen.index,
        chosen.out,
        settings=settings,
        embedder=chosen.embedder,
        device=chosen.device,
        dtype=chosen.dtype,
        resume=chosen.resume,
        overwrite=chosen.overwrite,
    )
    print(f"{chosen.out}: {manifest['steps']:,} steps, the best of step {manifest['best_step']:,} kept")
    print(verdict(manifest))
    print(f"now build an index with it: python -m ragqa.build_index CATALOGUE --embedder {chosen.out}")
    return 0
