"""Rows of a catalogue in any of the formats people have, streamed.

======================  =====================================================================
``.json .jsonl``         JSON lines; LF-Amazon-1.3M's ``trn.json`` and ``tst.json`` among them
``.csv .tsv``            separated by commas, semicolons or tabs, with a header
``.parquet``             Parquet
folder                   a `datasets` data set saved to disk, or files of the kinds above
``owner/name[:split]``   a data set on the Hugging Face Hub
======================  =====================================================================

The text formats may also end in ``.gz``. A file or folder may lie on an object store, named by a URL that fsspec knows,
such as ``s3://bucket/catalogue``. In Python, a `datasets` data set or any iterable of mappings is
taken as well.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import hashlib
import itertools
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from ragqa.catalogue.columns import Malformed, ReadOptions, Row, choose_columns, field_text
from ragqa.catalogue.formats import (
    MAX_LINE,
    Recoded,
    byte,
    csv_records,
    encoding_hint,
    format_of,
    json_records,
    parquet_records,
    text_records,
)
from ragqa.catalogue.places import opened, place
from ragqa.errors import CatalogueError, RagqaError, first_line
from ragqa.files import sha256_of

_PEEK: Final = 100
MALFORMED: Final = 100  # messages that are kept
_HUB_NAME: Final = re.compile(r"[\w.-]+/[\w.-]+(?::[\w.\[\]%-]+)?")
FORMATS: Final = (
    "JSON lines (.json, .jsonl), .csv, .tsv (each also .gz), .parquet, a folder, a URL of one, or a Hub data set"
)


class Catalogue:
    """A catalogue that can be streamed once or more.

    Attributes:
        name: what the user called it.
        columns: the column each part was taken from, known once `rows` has begun.
        malformed: messages of skipped rows, the first hundred.
        malformed_count: number of skipped rows.
        total_bytes: size of the files, None where rows do not come from files.
    """

    formats = FORMATS
    what = "catalogue"  # what a source holds, in errors

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
            except RagqaError:
                raise
            except Exception as error:  # each object store has errors of its own
                raise CatalogueError(f"{self.name}: cannot be read ({first_line(error)})") from error
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
        path = place(name)
        if path.is_dir():
            if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
                self._given = _load_saved(path)
                return
            files = (p for p in path.iterdir() if self.kind(p) and not p.name.startswith((".", "_")))
            self._files = sorted(files, key=lambda file: file.name)
            if not self._files:
                raise CatalogueError(f"{name}: the folder holds no {self.what}; accepted are {self.formats}")
        elif path.exists():
            if not self.kind(path):
                raise CatalogueError(f"{name}: format not known by its name; accepted are {self.formats}")
            self._files = [path]
        elif _HUB_NAME.fullmatch(name) and not self.kind(path):
            self._given = _load_from_hub(name)
        else:
            raise CatalogueError(f"{name}: no such file or folder; accepted are {self.formats}")

    @property
    def files(self) -> Sequence[Path]:
        """The files that rows come from, in their order; none where they come from elsewhere."""
        return self._files

    def fingerprint(self, hashes: Callable[[Sequence[Path]], Iterable[str]] | None = None) -> str | None:
        """SHA-256 over the files' names and contents; None where rows do not come from files.

        Args:
            hashes: what gives the files' SHA-256; None reads one after the other.
        """
        if not self._files:
            return None
        digest = hashlib.sha256()
        found = map(sha256_of, self._files) if hashes is None else hashes(self._files)
        for path, sha256 in zip(self._files, found, strict=True):
            digest.update(os.fsencode(path.name) + f"\0{sha256}\n".encode())
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
        kind = self.kind(path)
        if kind == "parquet":
            records = parquet_records(path, lambda found: self.choose(str(path), found))
            yield from self._of_records(str(path), enumerate(records, 1), "row")
            return
        with opened(path) as raw:
            before = self._read_bytes

            def progress() -> None:
                self._read_bytes = before + raw.tell()

            stream: IO[bytes] = gzip.open(raw) if path.suffix.lower() == ".gz" else raw  # type: ignore[assignment]  # noqa: SIM115
            with contextlib.closing(Recoded(stream, self.options.encoding) if self._recode else stream) as source:
                lines = self._lines(path, source, progress)
                if kind == "json":
                    yield from self._of_records(str(path), json_records(path, lines), "line")
                elif kind == "text":
                    yield from self._of_records(str(path), text_records(lines), "line")
                else:
                    yield from self._of_records(str(path), csv_records(path, lines, kind, self._skip), "line")

    def _lines(
        self, path: Path, source: IO[bytes] | Recoded, progress: Callable[[], None]
    ) -> Iterator[tuple[int, str | Malformed]]:
        number = 0
        encoding = "utf-8" if self._recode else self.options.encoding
        while True:
            number += 1
            try:
                raw = source.readline(MAX_LINE)
                too_long = len(raw) >= MAX_LINE
                while too_long and raw and not raw.endswith(b"\n"):
                    raw = source.readline(MAX_LINE)
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
                yield number, Malformed(f"longer than {MAX_LINE >> 20} MiB; one row a line is accepted")
                continue
            try:
                text = raw.decode(encoding)
            except UnicodeError as error:
                yield number, Malformed(f"not {encoding} ({byte(error)}); {encoding_hint(raw)}")
                continue
            yield number, text.removeprefix("\ufeff") if number == 1 else text

    def kind(self, path: Path) -> str:
        """The format of a file by its name, "" for none."""
        return format_of(path)

    def choose(self, name: str, found: Sequence[str]) -> dict[str, str | None]:
        """Which of the columns of a file are taken for what."""
        return choose_columns(name, found, self.options)

    def row(self, record: Mapping[str, Any], number: int) -> Row:
        """A row from a record, by the columns that were chosen.

        Raises:
            Malformed: it is none.
        """
        id_, title, text = (self.columns[part] for part in ("id", "title", "text"))
        return Row(field_text(record, id_) if id_ else "", field_text(record, title), field_text(record, text), number)

    def _skip(self, message: str) -> None:
        """Count a malformed row, or stop at it, as the options say."""
        if self.options.on_error == "stop":
            raise CatalogueError(message)
        self.malformed_count += 1
        if len(self.malformed) < MALFORMED:
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
        head: list[tuple[int, Mapping[str, Any]]] = []
        held = 0
        for one in itertools.islice(readable, _PEEK):
            head.append(one)
            held += sum(len(value) for value in one[1].values() if isinstance(value, str))
            if held > MAX_LINE:
                break  # long rows are not held by the hundred
        if not head:
            return
        found = list(dict.fromkeys(key for _, record in head for key in record))
        self.columns = self.choose(name, found)
        for number, record in itertools.chain(head, readable):
            try:
                yield self.row(record, number)
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


def _load_saved(path: Path) -> Iterable[Mapping[str, Any]]:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:
        raise CatalogueError(
            f"{path}: not a whole data set as `datasets` saves it ({type(error).__name__}: {first_line(error)})"
        ) from error
    if isinstance(loaded, datasets.DatasetDict):
        raise CatalogueError(
            f"{path}: holds the splits {', '.join(loaded)}; name one, for example {path}/{next(iter(loaded))}"
        )
    return loaded  # type: ignore[no-any-return]


def _load_from_hub(name: str) -> Iterator[Mapping[str, Any]]:
    import datasets

    repository, _, split = name.partition(":")
    try:
        yield from datasets.load_dataset(repository, split=split or "train", streaming=True)
    except Exception as error:
        raise CatalogueError(
            f"{name}: no such file, and no data set of that name could be read from the Hub "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error
