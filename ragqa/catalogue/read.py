"""Rows of a catalogue in any of the formats people have, streamed.

======================  =====================================================================
``.json .jsonl``         JSON lines; LF-Amazon-1.3M's ``trn.json`` and ``tst.json`` among them
``.csv .tsv``            separated by commas, semicolons or tabs, with a header
``.parquet``             Parquet
folder                   a `datasets` data set saved to disk, or files of the kinds above
``owner/name[:split]``   a data set on the Hugging Face Hub
======================  =====================================================================

The text formats may also end in ``.gz``. In Python, a `datasets` data set or any iterable of mappings is
taken as well.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import hashlib
import io
import itertools
import json
import os
import re
import shlex
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal, NamedTuple

from ragqa.errors import CatalogueError
from ragqa.files import sha256_of

OnError = Literal["stop", "skip"]

# Names under which the columns are found when none is given, the first that is there.
ID_COLUMNS: Final = tuple("uid id product_id item_id sku asin parent_asin upc ean gtin code codigo código".split())
TITLE_COLUMNS: Final = tuple("title name product_name product_title titulo título nome nombre".split())
TEXT_COLUMNS: Final = tuple(
    "content description product_description text body descricao descrição descripcion descripción".split()
)

_MAX_LINE: Final = 1 << 24
_PEEK: Final = 100
_CSV_PROBLEMS: Final = {
    "unexpected end": "a quotation mark opened in this row is not closed before the file ends",
    "new-line character": "a carriage return alone; lines that end in LF or CRLF are accepted",
}
_HUB_NAME: Final = re.compile(r"[\w.-]+/[\w.-]+(?::[\w.\[\]%-]+)?")
FORMATS: Final = "JSON lines (.json, .jsonl), .csv, .tsv (each also .gz), .parquet, a folder, or a Hub data set"


class Row(NamedTuple):
    """One raw row: texts as they stand in the file; `line` counts from 1."""

    id: str
    title: str
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a catalogue is read.

    Attributes:
        id_column, title_column, text_column: names of the columns; None looks for the usual names.
        encoding: of the text formats.
        on_error: "stop" at the first malformed row, or "skip" such rows and count them.
    """

    id_column: str | None = None
    title_column: str | None = None
    text_column: str | None = None
    encoding: str = "utf-8"
    on_error: OnError = "stop"


class Malformed(Exception):  # noqa: N818  (a signal between functions of this module and the reader's loop)
    """One row cannot be read; reading can go on after it."""


class _Recoded:
    """Lines in UTF-8 of a file whose lines do not end in the byte 10, as in UTF-16 and UTF-32."""

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self._text = io.TextIOWrapper(stream, encoding, newline="\n")

    def readline(self, limit: int) -> bytes:
        return self._text.readline(limit).encode("utf-8", "surrogatepass")

    def close(self) -> None:
        self._text.close()


class Catalogue:
    """A catalogue that can be streamed once or more.

    Attributes:
        name: what the user called it.
        columns: the column each part was taken from, known once `rows` has begun.
        malformed: messages of skipped rows, the first hundred.
        malformed_count: number of skipped rows.
        total_bytes: size of the files, None where rows do not come from files.
    """

    def __init__(self, source: Any, options: ReadOptions | None = None) -> None:
        self.options = options or ReadOptions()
        self.columns: dict[str, str | None] = {}
        self.malformed: list[str] = []
        self.malformed_count = 0
        self._given: Iterable[Mapping[str, Any]] | None = None
        self._files: list[Path] = []
        self._read_bytes = 0
        self._check_encoding()
        if isinstance(source, str | os.PathLike):
            self.name = os.fspath(source)
            try:
                self._open_path(self.name)
                sizes = [path.stat().st_size for path in self._files]
            except OSError as error:
                raise CatalogueError(
                    f"{error.filename or self.name}: cannot be read ({error.strerror or error})"
                ) from error
            self.total_bytes = sum(sizes) if self._files else None
        else:
            self.name = type(source).__name__
            self._given = _rows_of(source)
            self.total_bytes = None

    def _check_encoding(self) -> None:
        try:
            newline = "\n".encode(self.options.encoding)
        except (LookupError, ValueError):  # ValueError: a codec that is not made for files
            raise CatalogueError(
                f"unknown encoding {self.options.encoding!r}; try utf-8, utf-16, cp1252 or latin-1"
            ) from None
        self._recode = newline.removeprefix(codecs.BOM_UTF8) != b"\n"

    def _open_path(self, name: str) -> None:
        path = Path(name)
        if path.is_dir():
            if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
                self._given = _load_saved(path)
                return
            self._files = sorted(p for p in path.iterdir() if _format_of(p) and not p.name.startswith((".", "_")))
            if not self._files:
                raise CatalogueError(f"{name}: the folder holds no catalogue; accepted are {FORMATS}")
        elif path.exists():
            if not _format_of(path):
                raise CatalogueError(f"{name}: format not known by its name; accepted are {FORMATS}")
            self._files = [path]
        elif _HUB_NAME.fullmatch(name) and not _format_of(path):
            self._given = _load_from_hub(name)
        else:
            raise CatalogueError(f"{name}: no such file or folder; accepted are {FORMATS}")

    def fingerprint(self) -> str | None:
        """SHA-256 over the files' names and contents; None where rows do not come from files."""
        if not self._files:
            return None
        digest = hashlib.sha256()
        for path in self._files:
            digest.update(os.fsencode(path.name) + f"\0{sha256_of(path)}\n".encode())
        return digest.hexdigest()

    @property
    def read_bytes(self) -> int:
        """How far reading has come, in bytes of the files as they lie on disk."""
        return self._read_bytes

    def rows(self) -> Iterator[Row]:
        """All rows in order.

        Raises:
            CatalogueError: a file cannot be read, columns are missing, or (unless `on_error` is "skip") a
                row is malformed. The message names file and line.
        """
        self.malformed, self.malformed_count, self._read_bytes = [], 0, 0
        if self._given is not None:
            yield from self._of_records(self.name, enumerate(self._given, 1), "row")
            return
        for path in self._files:
            before = self._read_bytes
            try:
                yield from self._of_file(path)
            except (gzip.BadGzipFile, zlib.error) as error:
                raise CatalogueError(
                    f"{path}: not valid gzip data ({error}); get the file anew, or drop .gz from its name"
                ) from error
            except OSError as error:
                raise CatalogueError(f"{path}: cannot be read ({error.strerror or error})") from error
            self._read_bytes = before + path.stat().st_size

    def _of_file(self, path: Path) -> Iterator[Row]:
        kind = _format_of(path)
        if kind == "parquet":
            yield from self._of_records(str(path), enumerate(_parquet_records(path, self.options), 1), "row")
            return
        with path.open("rb") as raw:
            before = self._read_bytes

            def progress() -> None:
                self._read_bytes = before + raw.tell()

            stream: IO[bytes] = gzip.open(raw) if path.suffix.lower() == ".gz" else raw  # type: ignore[assignment]  # noqa: SIM115
            with contextlib.closing(_Recoded(stream, self.options.encoding) if self._recode else stream) as source:
                lines = self._lines(path, source, progress)
                if kind == "json":
                    yield from self._of_records(str(path), _json_records(path, lines), "line")
                else:
                    yield from self._of_records(str(path), _csv_records(path, lines, kind, self._skip), "line")

    def _lines(
        self, path: Path, source: IO[bytes] | _Recoded, progress: Callable[[], None]
    ) -> Iterator[tuple[int, str | Malformed]]:
        number = 0
        encoding = "utf-8" if self._recode else self.options.encoding
        while True:
            number += 1
            try:
                raw = source.readline(_MAX_LINE)
                too_long = len(raw) >= _MAX_LINE
                while too_long and raw and not raw.endswith(b"\n"):
                    raw = source.readline(_MAX_LINE)
            except EOFError:
                self._skip(
                    f"{path}: the gzip data end in the middle, after line {number - 1}; the file was cut short: "
                    "get it anew, or take what is there with --on-error skip"
                )
                return
            except UnicodeError as error:
                self._skip(
                    f"{path}: not {self.options.encoding} after line {number - 1} ({error}); "
                    "name the encoding, for example --encoding utf-8"
                )
                return
            if not (raw or too_long):
                return
            if number == 1 and raw[:2] == b"\x1f\x8b":
                raise CatalogueError(f"{path}: these are gzip data; add .gz to the file's name")
            if number % 1024 == 1:
                progress()
            if too_long:
                yield number, Malformed(f"longer than {_MAX_LINE >> 20} MiB; one row a line is accepted")
                continue
            try:
                text = raw.decode(encoding)
            except UnicodeError as error:
                yield number, Malformed(f"not {encoding} ({_byte(error)}); {_encoding_hint(raw)}")
                continue
            yield number, text.removeprefix("\ufeff") if number == 1 else text

    def _skip(self, message: str) -> None:
        """Count a malformed row, or stop at it, as the options say."""
        if self.options.on_error == "stop":
            raise CatalogueError(message)
        self.malformed_count += 1
        if len(self.malformed) < 100:
            self.malformed.append(message)

    def _of_records(self, name: str, records: Iterator[tuple[int, Any]], unit: str) -> Iterator[Row]:
        """Rows from numbered records; the columns are settled on the first hundred of them."""

        def skip(number: int, problem: Malformed) -> None:
            told = self.options.on_error == "skip" or "--" in str(problem)
            mend = "" if told else "; mend it, or leave such rows out with --on-error skip"
            self._skip(f"{name}: {unit} {number}: {problem}{mend}")

        def objects() -> Iterator[tuple[int, Mapping[str, Any]]]:
            for number, record in records:
                if isinstance(record, Mapping):
                    yield number, record
                elif isinstance(record, Malformed):
                    skip(number, record)
                else:
                    kind = type(record).__name__
                    skip(number, Malformed(f"an object with named fields is accepted, not a value of type {kind}"))

        readable = objects()
        head = list(itertools.islice(readable, _PEEK))
        if not head:
            return
        found = list(dict.fromkeys(key for _, record in head for key in record))
        self.columns = _choose_columns(name, found, self.options)
        id_, title, text = (self.columns[part] for part in ("id", "title", "text"))
        for number, record in itertools.chain(head, readable):
            try:
                yield Row(_text(record, id_) if id_ else "", _text(record, title), _text(record, text), number)
            except Malformed as problem:
                skip(number, problem)


def _rows_of(source: Any) -> Iterable[Mapping[str, Any]]:
    """`source`, if it is something that holds rows."""
    kind = type(source).__name__
    if isinstance(source, Mapping):
        raise CatalogueError(
            f"{kind}: its parts are {', '.join(map(repr, source))}; give one of them, not all together"
        )
    if not isinstance(source, Iterable):
        raise CatalogueError(f"{kind}: not a catalogue; accepted are a path, a data set, or an iterable of mappings")
    return source


def _byte(error: UnicodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.object[error.start]:#04x} at {error.start}"
    return _first_line(error)


def _encoding_hint(raw: bytes) -> str:
    name = "utf-16" if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "cp1252 or latin-1"
    return f"name the encoding, for example --encoding {name}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _format_of(path: Path) -> str:
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


def _choose_columns(name: str, found: Sequence[str], options: ReadOptions) -> dict[str, str | None]:
    """Which column holds the id, the title and the text."""
    by_lower = {str(column).strip().lower(): column for column in reversed(found)}
    chosen: dict[str, str | None] = {}
    missing = []
    for part, asked, usual in (
        ("id", options.id_column, ID_COLUMNS),
        ("title", options.title_column, TITLE_COLUMNS),
        ("text", options.text_column, TEXT_COLUMNS),
    ):
        if asked is not None:
            chosen[part] = asked if asked in found else None
            if asked not in found:
                missing.append(f"no column {asked!r} (asked for with --{part}-column)")
            continue
        chosen[part] = next((by_lower[column] for column in usual if column in by_lower), None)
        if chosen[part] is None and part != "id":
            missing.append(f"no column for the {part} (looked for {', '.join(usual)}; name it with --{part}-column)")
    if missing:
        raise CatalogueError(
            f"{name}: {'; '.join(missing)}; the columns found are: {', '.join(map(repr, found)) or 'none'}"
        )
    return chosen


def _text(record: Mapping[str, Any], column: str | None) -> str:
    """The text of a field: None and NaN are empty, numbers as written, a list of texts joined by blanks."""
    value = record.get(column) if column is not None else None
    if isinstance(value, str):
        return value
    if value is None or value != value:  # NaN: what pandas and NumPy have for nothing
        return ""
    if isinstance(value, bool | int | float):
        try:
            return str(value)
        except ValueError as error:  # an integer of thousands of digits
            raise Malformed(f"field {column!r}: {str(error).split(';')[0]}") from None
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return " ".join(value)
    raise Malformed(f"field {column!r} holds a {type(value).__name__}; text, a number or a list of texts is accepted")


def _json_records(
    path: Path, lines: Iterator[tuple[int, str | Malformed]]
) -> Iterator[tuple[int, Mapping[str, Any] | Malformed]]:
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


def _csv_records(
    path: Path,
    lines: Iterator[tuple[int, str | Malformed]],
    kind: str,
    skip: Callable[[str], None],
) -> Iterator[tuple[int, Mapping[str, Any] | Malformed]]:
    number = 0
    header: list[str] | None = None

    def decoded() -> Iterator[str]:
        nonlocal number
        for number, line in lines:
            if isinstance(line, Malformed):
                if header is None:
                    raise CatalogueError(f"{path}: line {number}: {line}")
                skip(f"{path}: line {number}: {line}")
            else:
                yield line

    texts = decoded()
    first = next((text for text in texts if not text.isspace()), None)
    if first is None:
        return
    csv.field_size_limit(_MAX_LINE)
    delimiter = "\t" if kind == "tsv" else max(",;\t", key=first.count)
    reader = csv.reader(itertools.chain([first], texts), delimiter=delimiter, strict=True)
    while True:
        start = number + (header is not None)  # a row may go over several lines
        try:
            row = next(reader)
        except StopIteration:
            return
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


def _parquet_records(path: Path, options: ReadOptions) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            chosen = _choose_columns(str(path), names, options)
            wanted = [column for column in chosen.values() if column]
            for batch in file.iter_batches(batch_size=4096, columns=wanted):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path}: not a valid Parquet file ({_first_line(error)}); get it anew") from error


def _load_saved(path: Path) -> Iterable[Mapping[str, Any]]:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:
        raise CatalogueError(
            f"{path}: not a whole data set as `datasets` saves it ({type(error).__name__}: {_first_line(error)})"
        ) from error
    if isinstance(loaded, datasets.DatasetDict):
        raise CatalogueError(
            f"{path}: holds the splits {', '.join(loaded)}; name one, for example {path}/{next(iter(loaded))}"
        )
    return loaded  # type: ignore[no-any-return]


def _load_from_hub(name: str) -> Iterable[Mapping[str, Any]]:
    import datasets

    repository, _, split = name.partition(":")
    try:
        return datasets.load_dataset(repository, split=split or "train", streaming=True)  # type: ignore[no-any-return]
    except Exception as error:
        raise CatalogueError(
            f"{name}: no such file, and no data set of that name could be loaded from the Hub "
            f"({type(error).__name__}: {_first_line(error)[:200]})"
        ) from error
