"""A file of questions -> a Parquet file of answers, a block at a time; interrupted, it goes on from the blocks written.

What is unfinished stands beside the answers, in ``.NAME.partial``: the questions laid out in blocks, and a Parquet file of
each block that was answered. When all are there they become one file, in the questions' order.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

import ragqa
from ragqa.answerer import Answerer
from ragqa.batch.answers import SCHEMA, answer
from ragqa.batch.questions import QuestionFile, QuestionStore, write_questions
from ragqa.errors import InputError
from ragqa.files import replacing, storage_errors, write_json
from ragqa.index.lock import writing_lock
from ragqa.json_files import read_json
from ragqa.progress import progress_bar, say
from ragqa.seals import digest, file_part

_KEY: Final = "key.json"
_QUESTIONS: Final = "questions.arrow"

# Answers blocks by their numbers: gives each with the number of its block, in any order.
Ask = Callable[[QuestionStore, Sequence[int]], Iterator[tuple[int, pa.Table]]]


@dataclass(frozen=True, slots=True)
class Answered:
    """What was done.

    Attributes:
        questions: in the file of answers.
        asked: of them by this call; the others were answered before it was interrupted.
        abstained: of them without an answer.
        failed: of them with an error, see `ragqa.batch.answers`.
        malformed: rows that were skipped.
        first_malformed: what was wrong with the first of them.
        seconds: time taken.
    """

    questions: int
    asked: int
    abstained: int
    failed: int
    malformed: int
    first_malformed: str
    seconds: float


def here(answerer: Answerer, settings: Mapping[str, Any]) -> Ask:
    """Answers in this process."""

    def ask(store: QuestionStore, numbers: Sequence[int]) -> Iterator[tuple[int, pa.Table]]:
        for number in numbers:
            yield number, answer(answerer, store[number], settings)

    return ask


def answer_file(questions: QuestionFile, out: Path, ask: Ask, by: Mapping[str, Any]) -> Answered:
    """Answer a file of questions.

    Args:
        questions: where they are read.
        out: the Parquet file, columns as in `ragqa.batch.answers`; it appears whole or not at all.
        ask: what answers blocks of them.
        by: what the answers depend on besides the questions: index, models, settings. Interrupted work is gone on with
            if it is the same.

    Raises:
        InputError: a question is malformed and not skipped, there is none, or `out` is not named as a Parquet file.
        StorageError, BusyError: `out` cannot be written, or another process is writing it.
    """
    if out.suffix != ".parquet":
        raise InputError(f"--out {out}: answers are written as Parquet; give a name that ends in .parquet")
    started = time.perf_counter()
    with storage_errors(out):
        if out.is_dir():
            raise InputError(f"--out {out}: a folder stands there; choose another name")
    work = out.with_name(f".{out.name}.partial")
    key = {
        "questions": questions.fingerprint(),
        "options": {name: getattr(questions.options, name) for name in questions.options.__slots__},
        "ragqa": ragqa.__version__,
        "by": dict(by),
    }
    with writing_lock(work):
        said = _laid_out(questions, work, key)
        store = QuestionStore(work / _QUESTIONS)
        waiting = [number for number in range(len(store)) if not _finished(work, number, digest(key))]
        before = said["questions"] - sum(len(store[number].numbers) for number in waiting)
        with progress_bar("answering", said["questions"], "questions") as bar:
            bar.update(before)
            bar.unpause()
            for number, table in ask(store, waiting) if waiting else ():
                _write(work, number, table, digest(key))
                bar.update(len(table))
        abstained, failed = _join(work, len(store), out)
        shutil.rmtree(work, ignore_errors=True)
    return Answered(
        said["questions"], said["questions"] - before, abstained, failed, said["malformed"], said["first"],
        round(time.perf_counter() - started, 3),
    )  # fmt: skip


def _laid_out(questions: QuestionFile, work: Path, key: dict[str, Any]) -> dict[str, Any]:
    """Write the questions in blocks, unless an interrupted call with the same key has; what was found in the file."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        kept = read_json(work / _KEY)
        if kept["key"] == digest(key) and kept["questions"] == file_part(work / _QUESTIONS):
            say("going on with the interrupted work")
            return dict(kept["said"])
    with storage_errors(work):
        for path in work.glob("*"):
            if not path.name.startswith("."):  # the lock
                path.unlink()
    try:
        count = write_questions(questions, work / _QUESTIONS)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    first = next(iter(questions.malformed), "")
    said = {"questions": count, "malformed": questions.malformed_count, "first": first}
    write_json(work / _KEY, {"key": digest(key), "questions": file_part(work / _QUESTIONS), "said": said})
    return said


def _part(work: Path, number: int) -> Path:
    return work / f"answers-{number:08d}.parquet"


def _schema(of: str) -> pa.Schema:
    return SCHEMA.with_metadata({"ragqa answers": of})


def _write(work: Path, number: int, table: pa.Table, of: str) -> None:
    with replacing(_part(work, number)) as file:
        pq.write_table(table.cast(_schema(of)), file, compression="zstd", write_page_checksum=True)


def _finished(work: Path, number: int, of: str) -> bool:
    with contextlib.suppress(OSError, ValueError, pa.ArrowException):
        found = pq.read_table(_part(work, number), page_checksum_verification=True, partitioning=None)
        return bool(found.schema.equals(SCHEMA) and found.schema.metadata == _schema(of).metadata)
    return False


def _join(work: Path, count: int, out: Path) -> tuple[int, int]:
    """Make one file of all blocks; how many of the answers say that there is none, and how many are errors."""
    abstained = failed = 0
    with replacing(out) as file, pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        for number in range(count):
            table = pq.read_table(_part(work, number), partitioning=None).cast(SCHEMA)
            abstained += table.column("abstained").to_pylist().count(True)
            failed += len(table) - table.column("error").null_count
            writer.write_table(table)
    return abstained, failed
