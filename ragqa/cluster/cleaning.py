"""Cleaning a catalogue of many files: each where Ray has room, told in their order."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ragqa.catalogue.clean import CleaningReport
from ragqa.catalogue.columns import ReadOptions
from ragqa.catalogue.export import check
from ragqa.catalogue.parts import SCHEMA, Joined, clean_file
from ragqa.catalogue.places import place
from ragqa.catalogue.read import Catalogue
from ragqa.cluster.faults import from_text, to_text
from ragqa.cluster.session import Session, absolute
from ragqa.errors import CatalogueError, RagqaError
from ragqa.files import sha256_of
from ragqa.index.engine import Sink
from ragqa.progress import progress_bar
from ragqa.settings import CleaningSettings


@dataclass(frozen=True, slots=True)
class CleanFile:
    """Cleans the file that a table names; what Ray calls."""

    options: ReadOptions
    settings: CleaningSettings
    home: str

    def __call__(self, files: pa.Table) -> Iterator[pa.Table]:
        """The file's complete rows and the report on it, or why there are none."""
        (file,) = files.to_pylist()
        try:
            for table in clean_file(file["path"], self.options, self.settings, file["named"]):
                yield table.append_column("error", pa.nulls(len(table), pa.string()))
        except RagqaError as error:
            text = to_text(error, self.home).replace(file["path"], file["named"])
            nothing = pa.table({name: [None] for name in SCHEMA.names}, schema=SCHEMA)
            yield nothing.append_column("error", pa.array([text], pa.string()))


@dataclass(frozen=True, slots=True)
class HashFile:
    """Reads the file that a table names."""

    home: str

    def __call__(self, files: pa.Table) -> pa.Table:
        """Its SHA-256, or why it cannot be read."""
        (file,) = files.to_pylist()
        sha256 = error = None
        try:
            sha256 = sha256_of(place(file["path"]))
        except RagqaError as problem:
            error = to_text(problem, self.home)
        except OSError as problem:
            seen = "all machines of the cluster have to see the catalogue: in a folder that they share, or by a URL"
            unread = CatalogueError(f"{file['named']}: cannot be read ({problem.strerror or problem}); {seen}")
            error = to_text(unread, self.home)
        columns = {"sha256": pa.array([sha256], pa.string()), "error": pa.array([error], pa.string())}
        return pa.table(columns)


def hash_files(session: Session, files: Sequence[Path]) -> list[str]:
    """SHA-256 of each file, in hexadecimal.

    Raises:
        CatalogueError: one cannot be read where Ray would read it.
        ClusterError: Ray failed.
    """
    work = HashFile(platform.node())
    found: list[str] = []

    def make() -> Any:
        return session.items(_rows(files)).map_batches(work, batch_size=1, batch_format="pyarrow")

    for table in session.tables(make, in_order=True):
        _raise(table)
        found += table.column("sha256").to_pylist()
    return found


def clean_files(session: Session, catalogue: Catalogue, settings: CleaningSettings, sink: Sink) -> CleaningReport:
    """Clean a catalogue's files into `sink`; products and report are those of `clean_catalogue`.

    Raises:
        CatalogueError: a file cannot be read, or no product remains.
        ClusterError: Ray failed.
    """
    started = time.perf_counter()
    joined = Joined(catalogue.name)
    work = CleanFile(catalogue.options, settings, platform.node())

    def make() -> Any:
        return session.items(_rows(catalogue.files)).map_batches(work, batch_size=1, batch_format="pyarrow")

    with progress_bar("cleaning", None, "rows", scale=True) as bar:
        for table in session.tables(make, in_order=True):
            _raise(table)
            joined.add(table.select(SCHEMA.names), sink)
            bar.update(len(table))
    report = joined.report
    report.seconds = time.perf_counter() - started
    check(report)
    return report


def _rows(files: Sequence[Path]) -> list[dict[str, Any]]:
    return [{"path": absolute(str(path)), "named": str(path)} for path in files]


def _raise(table: pa.Table) -> None:
    for text in table.column("error").drop_null().to_pylist():
        raise from_text(text)
