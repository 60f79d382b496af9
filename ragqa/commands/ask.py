"""Answer a question from a product index, with its sources; without a question, one after the other.

Questions may be in English, Portuguese or Spanish and name the product exactly, in part, or mistyped.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import textwrap
import time
from typing import Any

from ragqa.commands.answering import add_answering, add_models, chosen_server, opened
from ragqa.commands.options import add_common, add_device, given
from ragqa.errors import InputError, RagqaError
from ragqa.generation.provenance import explained
from ragqa.progress import since_start
from ragqa.records import Answer
from ragqa.settings import AnswerSettings

EXAMPLE = (
    'example: python -m ragqa.ask indexes/demo "What is the description of Marisol flamenco skirt in red?" --top-k 3'
)
INTERMIXED = True
AFTER_INTERRUPT = "nothing was left behind"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ragqa ask`."""
    parser.add_argument(
        "index", metavar="INDEX", help="an index folder, a saved Answerer, a Hub id, or milvus://HOST:PORT/CATALOGUE"
    )
    parser.add_argument("question", metavar="QUESTION", nargs="*", help="one or more questions")
    parser.add_argument("--json", action="store_true", help="one JSON object a question")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="mark in the answer what was copied from which source, and how sure it is",
    )
    parser.add_argument("--timings", action="store_true", help="also print what the time since the start went into")
    parser.add_argument("--show-prompt", action="store_true", help="also print what the generator was given")
    add_answering(parser)
    add_models(parser)
    add_device(parser)
    add_common(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run `ragqa ask`."""
    settings = given(chosen, AnswerSettings.__slots__)
    AnswerSettings.from_dict(settings)  # told before anything is loaded
    if chosen.explain:
        settings["probabilities"] = True
    server = chosen_server(chosen)
    started = time.perf_counter()
    import ragqa.answerer  # noqa: F401  (what takes time)

    imported = time.perf_counter()
    answerer = opened(chosen, server)
    if chosen.timings:
        ready = time.perf_counter()
        before = "" if (age := since_start()) is None else f"begin {age - (ready - started):.2f} s, "
        print(
            f"{before}import {imported - started:.2f} s, open index and embedder {ready - imported:.2f} s",
            file=sys.stderr,
        )
    if chosen.question:
        for answer in answerer.ask_many(chosen.question, **settings):
            _print(answer, chosen)
        return 0
    return _converse(answerer, settings, chosen)


def _converse(answerer: Any, settings: dict[str, Any], chosen: argparse.Namespace) -> int:
    """Read questions from stdin, a line each, until its end; a bad one is told and passed over."""
    if sys.stdin is None:
        raise InputError("no question, and no input to read questions from; give one on the command line")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    asking = sys.stdin.isatty()
    if asking:
        print(f"{len(answerer.index):,} products. A question a line; Ctrl-D ends.", file=sys.stderr)
    status = 0
    while True:
        if asking:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return status
        if not line.strip():
            continue
        try:
            _print(answerer.ask(line.rstrip("\r\n"), **settings), chosen)
        except RagqaError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 0 if asking else 2


def _print(answer: Answer, chosen: argparse.Namespace) -> None:
    if chosen.json:
        shown = answer.to_dict()
        if not chosen.show_prompt:
            del shown["prompt"]
        unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        print(json.dumps(shown, ensure_ascii=not unicode), flush=True)
        return
    if chosen.show_prompt and answer.prompt:
        print(f"--- prompt\n{answer.prompt}\n--- answer")
    print(f"Q: {answer.question}")
    if chosen.explain and answer.spans:
        _explain(answer)
    else:
        print(textwrap.fill(f"A: {answer.text}", 100, subsequent_indent="   ", break_long_words=False))
    took = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in answer.timings.items())
    print(f"   confidence {answer.confidence:.2f}; {took}")
    if answer.shortened:
        print("   shortened: --max-seconds was over")
    print("   sources:" if not answer.abstained else "   these fit:" if answer.several else "   near products:")
    for number, source in enumerate(answer.sources, 1):
        mark = "*" if source.cited else " "
        exact = ", exact title" if source.exact else ""
        print(f"   {mark} [{number}] {source.title}  ({source.id}, score {source.score:.2f}{exact})")
    if chosen.timings and (age := since_start()) is not None:
        print(f"{age:.2f} s since the start", file=sys.stderr)
    print(flush=True)


def _explain(answer: Answer) -> None:
    """The answer with its sources marked, and where each part comes from."""
    ids = [source.id for source in answer.sources]
    print(f"A: {explained(answer.text, answer.spans, ids, sys.stdout.isatty())}")
    print(f"   {answer.grounded:.0%} of it is copied:")
    for span in answer.spans:
        sure = "" if span.probability is None else f", {span.probability:.0%} a token"
        if span.source is None:
            print(f"   {span.start}-{span.stop}: no source{sure}")
        else:
            number = ids.index(span.source) + 1 if span.source in ids else "-"
            print(f"   {span.start}-{span.stop}: [{number}] {span.source_start}-{span.source_stop}{sure}")
