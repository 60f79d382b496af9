"""Fine-tune a generator with LoRA on questions about an index's products.

--mode plain trains question -> description; --mode retrieval trains (question, retrieved candidates) -> the number of
the right one and its description. The adapter's folder documents the run. Interrupted, the same command with
--resume goes on from the last checkpoint. Several processes share the work, on one machine or more:
`torchrun --nproc-per-node 2 -m ragqa.fine_tune ...`, or `accelerate launch`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ragqa.commands.options import add_common, add_device, given
from ragqa.errors import InputError
from ragqa.generation.adapter import MODES
from ragqa.training.processes import is_helper
from ragqa.training.recipe import read_recipe, recipe_help

EXAMPLE = (
    "example: python -m ragqa.fine_tune indexes/demo --mode retrieval --out adapters/demo --examples 8 --steps 1 "
    "--validation 24 --watched 4"
)
AFTER_INTERRUPT = "the same command with --resume goes on from the last checkpoint"
PROCESSES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ragqa fine-tune`."""
    parser.add_argument("index", metavar="INDEX", help="an index folder")
    parser.add_argument("--mode", choices=MODES, required=True, help="with or without retrieved candidates")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the adapter goes")
    parser.add_argument("--recipe", metavar="FILE", help="hyper-parameters in TOML (see recipes/); options override it")
    parser.add_argument("--questions", metavar="FILE", help="your own questions, JSON lines with question, product_id")
    parser.add_argument("--templates", metavar="FILE", help="your own question templates, a line each with {subject}")
    parser.add_argument("--embedder", metavar="ID", help="where the index's embedder lies now, if it moved")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--overwrite", action="store_true", help="replace an adapter in --out, or an unfinished run")
    group = parser.add_argument_group("recipe")
    for name, (default, text) in recipe_help().items():
        flag = f"--{name.replace('_', '-')}"
        shown = "none" if default == () else " ".join(map(str, default)) if isinstance(default, tuple) else default
        text = f"{text} (default: {shown})".replace("%", "%%")
        if isinstance(default, bool):
            group.add_argument(flag, action=argparse.BooleanOptionalAction, help=text, default=None)
        elif isinstance(default, tuple):
            kind: Any = type(default[0]) if default else str
            group.add_argument(flag, nargs="+", type=kind, help=text)
        else:
            group.add_argument(flag, type=type(default), help=text)
    add_device(parser)
    add_common(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run `ragqa fine-tune`."""
    # Of several processes the first reads the files, and says how it went.
    helper = is_helper()
    overrides = given(chosen, recipe_help())
    more = {} if chosen.templates is None or helper else {"templates": _templates(Path(chosen.templates))}
    if chosen.recipe is not None and not helper:
        read_recipe(chosen.recipe, overrides)  # told before anything is loaded
    from ragqa.training.fine_tune import fine_tune

    manifest = fine_tune(
        chosen.index,
        chosen.out,
        mode=chosen.mode,
        recipe=chosen.recipe,
        questions=chosen.questions,
        embedder=chosen.embedder,
        device=chosen.device,
        dtype=chosen.dtype,
        resume=chosen.resume,
        overwrite=chosen.overwrite,
        **more,
        **overrides,
    )
    if helper:
        return 0
    trained = manifest["trained"]
    print(
        f"{chosen.out}: {manifest['examples']:,} examples, {trained['steps']:,} steps, validation loss "
        f"{trained['first_loss']:.3f} -> {trained['best_loss']:.3f}, {manifest['seconds']['total'] / 60:.1f} minutes"
    )
    print(f'now ask: python -m ragqa.ask {chosen.index} --adapter {chosen.out} "What is the description of ...?"')
    return 0


def _templates(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    return [line for line in lines if line]
