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

import csv
import gzip
import hashlib
import itertools
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal, NamedTuple

from ragqa.errors import CatalogueError
from ragqa.files import sha256_of

OnError = Literal["stop", "skip"]

# Names under which the columns are found when none is given, the first that is there.
ID_COLUMNS: Final = (
    "uid", "id", "product_id", "item_id", "sku", "asin", "parent_asin", "upc", "ean", "gtin", "code", "codigo", "código",
)  # fmt: skip
TITLE_COLUMNS: Final = ("title", "name", "product_name", "product_title", "titulo", "título", "nome", "nombre")
TEXT_COLUMNS: Final = (
    "content", "description", "product_description", "text", "body", "descricao", "descrição", "descripcion", "descripción",
)  # fmt: skip

_MAX_LINE: Final = 1 << 24
_PEEK: Final = 100
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
            self._open_path(self.name)
        else:
            self.name = type(source).__name__
            self._given = source
        self.total_bytes = sum(path.stat().st_size for path in self._files) if self._files else None

    def _check_encoding(self) -> None:
        try:
            "".encode(self.options.encoding)
        except LookupError:
            raise CatalogueError(
                f"unknown encoding {self.options.encoding!r}; try utf-8, utf-16, cp1252 or latin-1"
            ) from None

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
            digest.update(f"{path.name}\0{sha256_of(path)}\n".encode())
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

            stream: IO[bytes] = gzip.open(raw) if path.suffix == ".gz" else raw  # type: ignore[assignment]
            lines = self._lines(path, stream, progress)
            if kind == "json":
                yield from self._of_records(str(path), _json_records(path, lines), "line")
            else:
                yield from self._of_records(str(path), _csv_records(path, lines, kind, self._skip), "line")

    def _lines(
        self, path: Path, stream: IO[bytes], progress: Callable[[], None]
    ) -> Iterator[tuple[int, str | Malformed]]:
        number = 0
        while True:
            number += 1
            try:
                raw = stream.readline(_MAX_LINE)
            except EOFError:
                self._skip(
                    f"{path}: the gzip data end in the middle, after line {number - 1}; the file was cut short: "
                    "get it anew, or take what is there with --on-error skip"
                )
                return
            if not raw:
                return
            if number % 1024 == 1:
                progress()
            if len(raw) == _MAX_LINE:
                while raw and not raw.endswith(b"\n"):
                    raw = stream.readline(_MAX_LINE)
                yield number, Malformed(f"longer than {_MAX_LINE >> 20} MiB; one row a line is accepted")
                continue
            try:
                text = raw.decode(self.options.encoding)
            except UnicodeDecodeError as error:
                hint = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "cp1252 or latin-1"
                yield (
                    number,
                    Malformed(
                        f"not {self.options.encoding} (byte {error.object[error.start]:#04x} at {error.start}); "
                        f"name the encoding, for example --encoding {hint}"
                    ),
                )
                continue
            yield number, text.removeprefix("\ufeff") if number == 1 else text

    def _skip(self, message: str) -> None:
        """Count a malformed row, or stop at it, as the options say."""
        if self.options.on_error == "stop":
            raise CatalogueError(message)
        self.malformed_count += 1
        if len(self.malformed) < 100:
            self.malformed.append(message)

    def _of_records(
        self, name: str, records: Iterator[tuple[int, Mapping[str, Any] | Malformed]], unit: str
    ) -> Iterator[Row]:
        """Rows from numbered records; the columns are settled on the first hundred of them."""
        head = list(itertools.islice(records, _PEEK))
        found = list(dict.fromkeys(key for _, r in head if isinstance(r, Mapping) for key in r))
        if found:
            self.columns = _choose_columns(name, found, self.options)
        id_, title, text = (self.columns.get(part) for part in ("id", "title", "text"))
        for number, record in itertools.chain(head, records):
            try:
                if isinstance(record, Malformed):
                    raise record
                if not isinstance(record, Mapping):
                    raise Malformed(f"a {type(record).__name__}, not an object with named fields")
                yield Row(
                    _text(record, id_) if id_ else "", _text(record, title), _text(record, text), number
                )
            except Malformed as error:
                mend = "" if "--" in str(error) else "; mend it, or leave such rows out with --on-error skip"
                self._skip(f"{name}: {unit} {number}: {error}{mend}")


def _format_of(path: Path) -> str:
    """"json", "csv", "tsv", "parquet", or "" for none of them."""
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
    by_lower = {column.strip().lower(): column for column in reversed(found)}
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
        raise CatalogueError(f"{name}: {'; '.join(missing)}; the columns found are: {', '.join(map(repr, found))}")
    return chosen


def _text(record: Mapping[str, Any], column: str | None) -> str:
    """The text of a field: None is empty, numbers as written, a list of texts joined by blanks."""
    value = record.get(column) if column is not None else None
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return " ".join(value)
    raise Malformed(f"field {column!r} holds a {type(value).__name__}; text, a number or a list of texts is accepted")


def _json_records(
    path: Path, lines: Iterator[tuple[int, str | Malformed]]
) -> Iterator[tuple[int, Mapping[str, Any] | Malformed]]:
    for number, line in lines:
        if isinstance(line, Malformed):
            yield number, line
            continue
        if not line or line.isspace():
            continue
        if number == 1 and line.lstrip()[0] == "[":
            raise CatalogueError(
                f"{path}: one JSON array; JSON lines are accepted, one object a line: convert it with "
                f"jq -c '.[]' {path.name} > {path.name.split('.')[0]}.jsonl"
            )
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError as error:
            yield number, Malformed(f"not valid JSON ({error.msg} at column {error.colno})")
        except (ValueError, RecursionError) as error:
            yield number, Malformed(f"not valid JSON ({str(error).split(';')[0]})")


def _csv_records(
    path: Path,
    lines: Iterator[tuple[int, str | Malformed]],
    kind: str,
    skip: Callable[[str], None],
) -> Iterator[tuple[int, Mapping[str, Any] | Malformed]]:
    number = 0

    def decoded() -> Iterator[str]:
        nonlocal number
        for number, line in lines:  # noqa: B007  (read by the messages below)
            if isinstance(line, Malformed):
                skip(f"{path}: line {number}: {line}")
            else:
                yield line

    texts = decoded()
    first = next(texts, None)
    if first is None:
        return
    csv.field_size_limit(_MAX_LINE)
    delimiter = "\t" if kind == "tsv" else max(",;\t", key=first.count)
    reader = csv.reader(itertools.chain([first], texts), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, Malformed(f"not valid {kind.upper()} ({error})")
            continue
        if header is None:
            header = [column.strip() for column in row]
        elif row and len(row) != len(header):
            yield number, Malformed(f"{len(row)} fields where the header has {len(header)}")
        elif row:
            yield number, dict(zip(header, row, strict=True))


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
    except pa.ArrowInvalid as error:
        raise CatalogueError(f"{path}: not a valid Parquet file ({str(error).splitlines()[0]})") from error


def _load_saved(path: Path) -> Iterable[Mapping[str, Any]]:
    import datasets

    loaded = datasets.load_from_disk(str(path))
    if isinstance(loaded, datasets.DatasetDict):
        raise CatalogueError(f"{path}: holds the splits {', '.join(loaded)}; name one, for example {path}/{next(iter(loaded))}")
    return loaded  # type: ignore[no-any-return]


def _load_from_hub(name: str) -> Iterable[Mapping[str, Any]]:
    import datasets

    repository, _, split = name.partition(":")
    try:
        return datasets.load_dataset(repository, split=split or "train", streaming=True)  # type: ignore[no-any-return]
    except Exception as error:
        raise CatalogueError(
            f"{name}: no such file, and no data set of that name could be loaded from the Hub "
            f"({type(error).__name__}: {str(error).splitlines()[0][:200]})"
        ) from error
