"""Records of one file, numbered: JSON lines, separated values, Parquet."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import itertools
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from ragqa.catalogue.columns import Malformed
from ragqa.errors import CatalogueError, first_line

MAX_LINE: Final = 1 << 24
_PARQUET_ROWS: Final = 128
_CSV_PROBLEMS: Final = {
    "unexpected end": "a quotation mark opened in this row is not closed before the file ends",
    "new-line character": "a carriage return alone; lines that end in LF or CRLF are accepted",
}


class _TooLongError(Exception):
    """A row of separated values has no end."""


def format_of(path: Path) -> str:
    """One of "json", "csv", "tsv", "parquet", or "" for none of them."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
        if suffixes and suffixes[-1] == ".parquet":
            return ""
    kinds = {
        ".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
    }  # fmt: skip
    return kinds.get(suffixes[-1], "") if suffixes else ""


class Recoded:
    """Lines in UTF-8 of a file whose lines do not end in the byte 10, as in UTF-16 and UTF-32."""

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self._text = io.TextIOWrapper(stream, encoding, newline="\n")

    def readline(self, limit: int) -> bytes:
        """The next line, or the first `limit` characters of it, in UTF-8."""
        return self._text.readline(limit).encode("utf-8", "surrogatepass")

    def close(self) -> None:
        """Close the stream."""
        self._text.close()


def byte(error: UnicodeError) -> str:
    """Which byte could not be decoded, and where."""
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.object[error.start]:#04x} at {error.start}"
    return first_line(error)


def encoding_hint(raw: bytes) -> str:
    """What to do about a line that could not be decoded."""
    name = "utf-16" if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "cp1252 or latin-1"
    return f"name the encoding, for example --encoding {name}"


def json_records(
    path: Path, lines: Iterator[tuple[int, str | Malformed]]
) -> Iterator[tuple[int, Mapping[str, Any] | Malformed]]:
    """The objects of JSON lines, with their line numbers."""
    first = True
    for number, line in lines:
        if isinstance(line, Malformed):
            yield number, line
            continue
        if not line or line.isspace():
            continue
        if first and line.lstrip()[0] == "[":
            unpack = "gzip -dc" if path.suffix.lower() == ".gz" else "cat"
            lines_name = shlex.quote(path.name.split(".")[0] + ".lines.jsonl")
            raise CatalogueError(
                f"{path}: one JSON array; JSON lines are accepted, one object a line: convert it with "
                f"{unpack} {shlex.quote(path.name)} | jq -c '.[]' > {lines_name}"
            )
        first = False
        try:
            yield number, json.loads(line.rstrip())
        except json.JSONDecodeError as error:
            yield number, Malformed(f"not valid JSON ({error.msg} at column {error.pos + 1})")
        except (ValueError, RecursionError) as error:
            yield number, Malformed(f"not valid JSON ({str(error).split(';')[0]})")


def csv_records(
    path: Path,
    lines: Iterator[tuple[int, str | Malformed]],
    kind: str,
    skip: Callable[[str], None],
) -> Iterator[tuple[int, Mapping[str, Any] | Malformed]]:
    """The rows of separated values by their header, with the numbers of the lines they begin in.

    `skip` is told of lines that cannot be decoded.
    """
    number, length = 0, 0
    header: list[str] | None = None

    def decoded() -> Iterator[str]:
        nonlocal number, length
        for number, line in lines:
            if isinstance(line, Malformed):
                if header is None:
                    raise CatalogueError(f"{path}: line {number}: {line}")
                skip(f"{path}: line {number}: {line}")
            else:
                length += len(line)
                if length > MAX_LINE:
                    # Quotation marks join lines: a row of them without end would fill the memory.
                    length = 0
                    raise _TooLongError
                yield line

    texts = decoded()
    first = next((text for text in texts if not text.isspace()), None)
    if first is None:
        return
    csv.field_size_limit(MAX_LINE)
    named = re.fullmatch(r"sep=(.)\s*", first)  # Excel's own way of naming the delimiter
    if named:
        first = next((text for text in texts if not text.isspace()), "")
    delimiter = named[1] if named else "\t" if kind == "tsv" else max(",;\t", key=first.count)
    reader = csv.reader(itertools.chain([first], texts), delimiter=delimiter, strict=True)
    while True:
        start, length = number + (header is not None), 0  # a row may go over several lines
        try:
            row = next(reader)
        except StopIteration:
            return
        except _TooLongError:
            yield start, Malformed(f"a row longer than {MAX_LINE >> 20} MiB; is a quotation mark not closed?")
            texts = decoded()  # where the lines go on: that generator ended with its error
            reader = csv.reader(texts, delimiter=delimiter, strict=True)
            continue
        except csv.Error as error:
            problem = next((plain for known, plain in _CSV_PROBLEMS.items() if known in str(error)), error)
            yield start, Malformed(f"not valid {kind.upper()} ({problem})")
            continue
        if header is None:
            header = [column.strip() for column in row]
        elif row and len(row) != len(header):
            yield start, Malformed(f"{len(row)} fields where the header has {len(header)}")
        elif row:
            yield start, dict(zip(header, row, strict=True))


def text_records(
    lines: Iterator[tuple[int, str | Malformed]],
) -> Iterator[tuple[int, Mapping[str, Any] | Malformed]]:
    """The lines of a text that are not blank, each as the column "text"."""
    for number, line in lines:
        if isinstance(line, Malformed):
            yield number, line
        elif line.strip():
            yield number, {"text": line.strip()}


def parquet_records(
    path: Path, choose: Callable[[Sequence[str]], Mapping[str, str | None]]
) -> Iterator[Mapping[str, Any]]:
    """The rows of a Parquet file, only the columns that `choose` takes of those that are there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with contextlib.ExitStack() as stack:
            source = path if isinstance(path, Path) else stack.enter_context(path.open("rb"))
            file = stack.enter_context(pq.ParquetFile(source))
            names = list(file.schema_arrow.names)
            wanted = [column for column in choose(names).values() if column]
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=wanted):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path}: not a valid Parquet file ({first_line(error)}); get it anew") from error
