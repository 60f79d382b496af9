"""A file of questions, read as catalogues are and laid out in blocks that can be taken in any order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from ragqa.catalogue.columns import ID_COLUMNS, Malformed, ReadOptions, Row, field_text
from ragqa.catalogue.formats import format_of
from ragqa.catalogue.read import Catalogue
from ragqa.errors import CatalogueError, IndexDamagedError, InputError, QuestionError, first_line
from ragqa.files import HashingFile
from ragqa.retrieval.question import parse_question

QUESTION_COLUMNS: Final = ("question", "query", "pergunta", "pregunta", "text", "texto")
FORMATS: Final = "JSON lines (.json, .jsonl), .csv, .tsv, .txt (each also .gz), .parquet, a folder or a URL of one"
# Questions that are answered together: what is lost when a work is, and what a part of the answers holds.
SIZE: Final = 256

SCHEMA: Final = pa.schema([("number", pa.int64()), ("id", pa.string()), ("question", pa.string())])


@dataclass(frozen=True, slots=True)
class Block:
    """Questions that are answered together.

    Attributes:
        numbers: of their rows or lines, from 1.
        ids: their own names, None where they have none.
        questions: as the file has them.
    """

    numbers: list[int]
    ids: list[str | None]
    questions: list[str]


class QuestionFile(Catalogue):
    """Questions in the place of products: `rows` gives them as `Row.title`, with their id if the file has any.

    Args:
        source: a path, a folder of files, or a URL.
        options: encoding, what to do with malformed rows; `title_column` and `id_column` name the columns.
        max_chars: longer questions are malformed.

    Raises:
        CatalogueError: it cannot be read.
    """

    formats = FORMATS
    what = "file of questions"

    def __init__(self, source: str, options: ReadOptions, max_chars: int) -> None:
        self._max_chars = max_chars
        super().__init__(source, options)
        if not self.files:
            raise CatalogueError(f"{source}: no file of questions; accepted are {FORMATS}")

    def kind(self, path: Path) -> str:
        """The format of a file by its name; a text has a question a line."""
        plain = path.name.lower().removesuffix(".gz")
        return "text" if plain.endswith(".txt") else format_of(path)

    def choose(self, name: str, found: Sequence[str]) -> dict[str, str | None]:
        """The columns of the question and of its id."""
        by_lower = {column.strip().lower(): column for column in reversed(found)}

        def column(asked: str | None, usual: Sequence[str]) -> str | None:
            if asked is not None:
                return asked if asked in found else None
            return next((by_lower[one] for one in usual if one in by_lower), None)

        question = column(self.options.title_column, QUESTION_COLUMNS)
        id_ = column(self.options.id_column, ID_COLUMNS)
        asked = {
            "--question-column": (self.options.title_column, question),
            "--id-column": (self.options.id_column, id_),
        }
        missing = [
            f"no column {name!r} (asked for with {flag})" for flag, (name, got) in asked.items() if name and not got
        ]
        if not question and not missing:
            missing = [
                f"no column for the question (looked for {', '.join(QUESTION_COLUMNS)}; name it with --question-column)"
            ]
        if missing:
            there = ", ".join(map(repr, found)) or "none"
            raise CatalogueError(f"{name}: {'; '.join(missing)}; the columns found are: {there}")
        return {"id": id_, "title": question}

    def row(self, record: Mapping[str, Any], number: int) -> Row:
        """A question that can be asked.

        Raises:
            Malformed: it is empty or too long.
        """
        text = field_text(record, self.columns["title"])
        try:
            parse_question(text, self._max_chars)
        except QuestionError as problem:
            raise Malformed(str(problem)) from None
        return Row(field_text(record, self.columns["id"]), text, "", number)


def write_questions(questions: QuestionFile, path: Path) -> int:
    """Lay the questions out as an Arrow file of batches of `SIZE`; returns their number.

    Raises:
        InputError: a question is malformed and not skipped, or there is none.
        StorageError: the file cannot be written.
    """
    count, waiting = 0, list[Row]()
    with HashingFile(path) as file, pa.ipc.new_file(file, SCHEMA) as writer:

        def write() -> None:
            numbers, ids, texts = ([getattr(row, name) for row in waiting] for name in ("line", "id", "title"))
            columns = [
                pa.array(numbers),
                pa.array([one or None for one in ids], pa.string()),
                pa.array(texts, pa.string()),
            ]
            writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
            waiting.clear()

        for row in questions.rows():
            count += 1
            waiting.append(row)
            if len(waiting) == SIZE:
                write()
        if waiting:
            write()
    if not count:
        skipped = (
            f" but {questions.malformed_count} malformed (first: {questions.malformed[0]})"
            if questions.malformed
            else ""
        )
        raise InputError(f"{questions.name}: no questions in it{skipped}")
    return count


class QuestionStore:
    """The questions that `write_questions` laid out, by the block.

    Raises:
        IndexDamagedError: the file is not whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        except (pa.ArrowException, OSError) as error:
            raise IndexDamagedError(f"{path}: not whole ({first_line(error)}); remove it, and ask anew") from error

    def __len__(self) -> int:
        """Number of blocks."""
        return int(self._reader.num_record_batches)

    def __getitem__(self, number: int) -> Block:
        return Block(*(column.to_pylist() for column in self._reader.get_batch(number).columns))

    def __iter__(self) -> Iterator[Block]:
        return (self[number] for number in range(len(self)))
