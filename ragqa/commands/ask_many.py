"""Answer a file of questions, into a Parquet file: a row a question, with its answer and its sources.

Questions are a column of JSON lines, CSV or Parquet, or the lines of a text. Interrupted, the same command goes on from
the blocks of questions that are answered; the file appears when all are.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragqa.catalogue.columns import ReadOptions
from ragqa.commands.answering import add_answering, add_models, chosen_server, opened, opening
from ragqa.commands.options import add_common, add_device, add_engine, check_engine, given
from ragqa.settings import AnswerSettings

if TYPE_CHECKING:
    from ragqa.answerer import Answerer
    from ragqa.batch.run import Ask
    from ragqa.generation.server import Server

EXAMPLE = "example: python -m ragqa.ask_many indexes/demo examples/questions.csv --out answers.parquet"
AFTER_INTERRUPT = "the same command goes on from what was answered"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ragqa ask-many`."""
    parser.add_argument("index", metavar="INDEX", help="an index folder, a saved Answerer, or a Hub id")
    parser.add_argument(
        "questions",
        metavar="QUESTIONS",
        help="JSON lines, .csv, .tsv, .txt (each also .gz), .parquet, a folder or a URL",
    )
    parser.add_argument("--out", metavar="FILE", required=True, help="the Parquet file of the answers")
    group = parser.add_argument_group("reading the questions")
    group.add_argument("--question-column", metavar="NAME", help="(default: the usual names are tried)")
    group.add_argument("--id-column", metavar="NAME", help="carried over to the answers (default: the same)")
    group.add_argument("--encoding", default="utf-8", help="of text files (default: utf-8)")
    group.add_argument(
        "--on-error", choices=("stop", "skip"), default="stop",
        help="at a malformed row, or a question that cannot be asked: stop, or skip and count it (default: stop)",
    )  # fmt: skip
    add_answering(parser)
    add_models(parser)
    add_device(parser)
    add_engine(parser, "answers")
    add_common(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run `ragqa ask-many`."""
    changed = given(chosen, AnswerSettings.__slots__)
    AnswerSettings.from_dict(changed)  # told before anything is loaded
    server, many = chosen_server(chosen), check_engine(chosen)
    from ragqa.batch.questions import QuestionFile
    from ragqa.batch.run import answer_file

    options = ReadOptions(chosen.id_column, chosen.question_column, None, chosen.encoding, chosen.on_error)
    longest = changed.get("max_question_chars", AnswerSettings().max_question_chars)
    questions = QuestionFile(chosen.questions, options, longest)
    with ExitStack() as stack:
        answerer = opened(chosen, server)
        settings = (answerer.settings.to_dict() | changed) if changed else answerer.settings.to_dict()
        ask, by = _ask(answerer, chosen, server, settings, stack if many else None)
        done = answer_file(questions, Path(chosen.out), ask, by)
    skipped = f", {done.malformed:,} malformed rows skipped (first: {done.first_malformed})" if done.malformed else ""
    failed = f", {done.failed:,} not within --max-seconds" if done.failed else ""
    print(
        f"{chosen.out}: {done.questions:,} answers, {done.abstained:,} of them that there is none{failed}{skipped}; "
        f"{done.asked:,} asked in {done.seconds:.1f} s"
    )
    return 0


def _ask(
    answerer: Answerer,
    chosen: argparse.Namespace,
    server: Server | None,
    settings: dict[str, Any],
    stack: ExitStack | None,
) -> tuple[Ask, dict[str, Any]]:
    """What answers, and what answers depend on; by Ray where there is a stack to leave it at the end."""
    from ragqa.batch.run import here
    from ragqa.seals import digest

    index = digest(answerer.index.manifest)
    by = {
        "index": index,
        "models": [answerer.generator_name, answerer.adapter_name, answerer.reranker_name],
        "server": [chosen.server, chosen.server_model],
        "settings": settings,
    }
    if stack is None:
        return here(answerer, settings), by
    from ragqa.cluster.answering import by_ray
    from ragqa.cluster.session import Session

    session = stack.enter_context(Session(chosen.address, chosen.workers))
    return by_ray(session, opening(chosen, server), settings, index), by
