"""Answer one question in every way that the benchmark compares, side by side.

The first product found and returned, the base model alone, the base model given what was found, and, with their adapters,
the model fine-tuned plainly and the one fine-tuned with retrieval. Parts of answers that stand in a product that was found
are marked with its number; where the question quotes a title, answers are held against that product's description.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from ragqa.commands.options import add_common, add_device
from ragqa.models import DEFAULT_GENERATOR

EXAMPLE = 'example: python -m ragqa.compare indexes/demo "What is the description of Lumen Trail Headlamp LT-350?"'
AFTER_INTERRUPT = "nothing was left behind"
_WIDEST = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ragqa compare`."""
    parser.add_argument("index", metavar="INDEX", help="an index folder, a saved Answerer, or a Hub id")
    parser.add_argument("question", metavar="QUESTION", help="one question")
    parser.add_argument("--plain", metavar="ADAPTER", help="an adapter that fine-tune --mode plain wrote")
    parser.add_argument("--retrieval", metavar="ADAPTER", help="an adapter that fine-tune --mode retrieval wrote")
    parser.add_argument(
        "--generator", metavar="ID", help=f"the base model (default: the adapters', or {DEFAULT_GENERATOR})"
    )
    parser.add_argument("--embedder", metavar="ID", help="where the index's embedder lies now, if it moved")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    add_device(parser)
    add_common(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run `ragqa compare`."""
    from ragqa.answerer import Answerer
    from ragqa.comparison.side_by_side import how_to_get, side_by_side

    answerer = Answerer.from_pretrained(
        chosen.index, embedder=chosen.embedder, device=chosen.device, dtype=chosen.dtype
    )
    arms = side_by_side(
        answerer,
        plain=chosen.plain,
        retrieval=chosen.retrieval,
        generator=chosen.generator,
        device=chosen.device,
        dtype=chosen.dtype,
    )
    command = f'ragqa compare {chosen.index} "QUESTION"'
    missing = [how_to_get(mode, chosen.index, f"{command} --{mode}") for mode in arms.missing]
    answers = []
    for answer in arms.ask(chosen.question):
        answers.append(answer)
        if not chosen.json:
            if len(answers) == 1:
                _print_found(chosen.question, answer)
            _print(answer)
    if chosen.json:
        told = {"question": chosen.question, "arms": [answer.to_dict() for answer in answers]}
        unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        print(json.dumps(told, ensure_ascii=not unicode))
        return 0
    _print_table(answers)
    for arm in missing:
        print(f"\nnot shown, for want of an adapter: {arm.label}: {arm.about}", file=sys.stderr)
        for line in arm.how:
            print(f"   {line}", file=sys.stderr)
    return 0


def _print_found(question: str, first: Any) -> None:
    print(f"Q: {question}")
    print("   found:")
    for number, product in enumerate(first.candidates, 1):
        print(f"     [{number}] {product.title}  ({product.id})")


def _print(answer: Any) -> None:
    from ragqa.generation.provenance import explained

    ids = [product.id for product in answer.candidates]
    print(f"\n{answer.label}: {answer.about}")
    text = explained(answer.answer, answer.spans, ids, sys.stdout.isatty())
    width = min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)
    for line in text.splitlines() or ["(nothing)"]:
        print(textwrap.fill(line, width, initial_indent="   ", subsequent_indent="   ", break_long_words=False))
    sys.stdout.flush()


def _print_table(answers: Sequence[Any]) -> None:
    """What is measured of each answer; F1 where the question quotes a title."""
    measured = answers[0].f1 is not None
    head = ["", "source", "confidence", "copied", *(["F1", "exact match"] if measured else []), "seconds"]
    rows = [head]
    for one in answers:
        ids = [product.id for product in one.candidates]
        rows.append(
            [
                one.label,
                f"[{ids.index(one.source.id) + 1}]" if one.source else "-",
                "-" if one.confidence is None else f"{one.confidence:.2f}",
                f"{one.grounded:.0%}",
                *([f"{one.f1:.2f}", "yes" if one.exact_match else "no"] if measured else []),
                f"{one.seconds:.2f}",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for label, *cells in rows:
        print(
            "   " + "  ".join([label.ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells, widths[1:], strict=True))])
        )
