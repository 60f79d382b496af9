"""A catalogue, read, cleaned and written: to a store for an index, or to a file for use elsewhere."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from ragqa.catalogue.clean import Cleaner, CleaningReport
from ragqa.catalogue.columns import ReadOptions, Row
from ragqa.catalogue.read import Catalogue
from ragqa.catalogue.store import to_batch
from ragqa.errors import CatalogueError, InputError
from ragqa.files import HashingFile, replacing, storage_errors, write_json
from ragqa.progress import progress_bar
from ragqa.records import Product
from ragqa.settings import CleaningSettings

BLOCK: Final = 4096
_BLOCK_CHARACTERS: Final = 1 << 25

# The question the original study asked; `prepare --pairs` uses it unless another is given.
PAIR_TEMPLATE: Final = "Qual é a descrição deste produto: {title}?"


def clean_catalogue(
    catalogue: Catalogue,
    settings: CleaningSettings,
    sink: Callable[[Sequence[Product]], None],
    limit: int | None = None,
) -> CleaningReport:
    """Stream a catalogue through the cleaner into `sink`.

    Args:
        catalogue: where the rows come from.
        settings: how they are cleaned.
        sink: takes the products, a block at a time, in order.
        limit: stop after this many products.

    Returns:
        What was read, kept and dropped.

    Raises:
        CatalogueError: the catalogue cannot be read, or no product remains.
    """
    if limit is not None and limit < 1:
        raise InputError(f"the limit must be a whole number of at least 1, not {limit}")
    started = time.perf_counter()
    report = CleaningReport(source=catalogue.name)
    cleaner = Cleaner(settings, report)
    rows = catalogue.rows()
    with progress_bar("cleaning", catalogue.total_bytes, "B", scale=True) as bar:
        # No block is longer than what the limit leaves, so that the report counts nothing beyond it.
        while block := block_of(rows, min(BLOCK, (limit or sys.maxsize) - report.kept)):
            if products := cleaner.clean(block):
                sink(products)
            bar.update(catalogue.read_bytes - bar.n if catalogue.total_bytes else len(block))
        if catalogue.total_bytes and (limit is None or report.kept < limit):
            bar.update(catalogue.total_bytes - bar.n)
    report.columns = catalogue.columns
    report.malformed, report.malformed_count = catalogue.malformed, catalogue.malformed_count
    report.seconds = time.perf_counter() - started
    check(report)
    return report


def check(report: CleaningReport) -> None:
    """Refuse a catalogue of which nothing remains.

    Raises:
        CatalogueError: no row, or no product, is in it.
    """
    if not report.read:
        but = f" but {report.malformed_count} malformed (first: {report.malformed[0]})" if report.malformed else ""
        raise CatalogueError(
            f"{report.source}: no rows in it{but}; a catalogue has rows with a title and a description each"
        )
    if not report.kept:
        raise CatalogueError(
            f"{report.source}: none of its {report.read} rows has both a title and a description "
            f"(columns taken: {report.columns}); name others with --title-column and --text-column"
        )


def block_of(rows: Iterator[Row], most: int) -> list[Row]:
    """The next rows, at most so many; fewer where they are long, so that no catalogue fills the memory."""
    block: list[Row] = []
    held = 0
    for row in itertools.islice(rows, most):
        block.append(row)
        held += len(row.title) + len(row.text)
        if held > _BLOCK_CHARACTERS:
            break
    return block


class _Sink(Protocol):
    def __call__(self, products: Sequence[Product]) -> None: ...


def _records(products: Sequence[Product], template: str | None) -> Iterator[dict[str, str]]:
    for product in products:
        record = {"id": product.id, "title": product.title, "description": product.description}
        if template is not None:
            record["prompt"] = template.replace("{title}", product.title)
            record["response"] = product.description
        yield record


@contextmanager
def _jsonl_sink(file: HashingFile, template: str | None) -> Iterator[_Sink]:
    def sink(products: Sequence[Product]) -> None:
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in _records(products, template))
        file.write("".join(lines).encode())

    yield sink


@contextmanager
def _csv_sink(file: HashingFile, template: str | None) -> Iterator[_Sink]:
    names = ["id", "title", "description"] + (["prompt", "response"] if template is not None else [])
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()

    def sink(products: Sequence[Product]) -> None:
        writer.writerows(_records(products, template))
        file.write(buffer.getvalue().encode())
        buffer.seek(0)
        buffer.truncate()

    yield sink
    sink([])


@contextmanager
def _parquet_sink(file: HashingFile, template: str | None) -> Iterator[_Sink]:
    writer: Any = None

    def sink(products: Sequence[Product]) -> None:
        nonlocal writer
        batch = to_batch(products)
        if template is not None:
            prompts = [record["prompt"] for record in _records(products, template)]
            batch = pa.record_batch(
                [*batch.columns, pa.array(prompts, pa.string()), batch.column("description")],
                names=[*batch.schema.names, "prompt", "response"],
            )
        if writer is None:
            writer = pq.ParquetWriter(file, batch.schema, compression="zstd")
        writer.write_batch(batch, row_group_size=BLOCK)

    try:
        yield sink
    except BaseException:
        if writer is not None:
            writer.is_open = False  # or it would end the file when it is collected, and complain that it is closed
        raise
    if writer is not None:
        writer.close()


_SINKS: Final[dict[str, Callable[[HashingFile, str | None], AbstractContextManager[_Sink]]]] = {
    ".jsonl": _jsonl_sink,
    ".csv": _csv_sink,
    ".parquet": _parquet_sink,
}


def _same_file(path: Path, source: str | os.PathLike[str]) -> bool:
    try:
        return path.samefile(source)
    except OSError:  # one of them is not there
        return False


def prepare(
    source: Any,
    out: str | Path,
    *,
    options: ReadOptions | None = None,
    cleaning: CleaningSettings | None = None,
    pairs: bool = False,
    template: str = PAIR_TEMPLATE,
    limit: int | None = None,
) -> CleaningReport:
    """Clean a catalogue and save it for use elsewhere, with a report beside it.

    Args:
        source: a path, a Hub data set's name, a `datasets` data set, or an iterable of mappings.
        out: the file to write, ``.parquet``, ``.csv`` or ``.jsonl``; columns id, title, description. It
            appears whole or not at all. The report is written to ``<out>.report.json``, after it; it names size and SHA-256 of
            the file that it is of.
        options: columns, encoding, what to do with malformed rows.
        cleaning: how texts are cleaned.
        pairs: add the columns prompt and response, a question made from the title and its answer.
        template: the question, with ``{title}`` in it.
        limit: stop after this many products.

    Raises:
        CatalogueError: the catalogue cannot be read or holds nothing usable.
        InputError: `out` has another ending, or `template` lacks ``{title}``.
        StorageError: `out` cannot be written.
    """
    path = Path(out)
    if path.suffix not in _SINKS:
        raise InputError(f"{path}: the ending {path.suffix!r} is not known; accepted are {', '.join(_SINKS)}")
    if pairs and "{title}" not in template:
        raise InputError(f"the template {template!r} has no {{title}} in it")
    if pairs and any("\ud800" <= letter <= "\udfff" for letter in template):
        raise InputError(f"the template {template!r} has bytes in it that are no text")
    if isinstance(source, str | os.PathLike) and _same_file(path, source):
        raise InputError(f"{path}: this is the catalogue itself; choose another place with --out")
    report_path = path.with_name(path.name + ".report.json")
    with storage_errors(path):
        if report_path.is_dir():
            raise InputError(f"{report_path}: a folder stands where the report goes; choose another place with --out")
    catalogue = Catalogue(source, options)
    with (
        replacing(path) as file,
        _SINKS[path.suffix](file, template if pairs else None) as sink,
    ):
        report = clean_catalogue(catalogue, cleaning or CleaningSettings(), sink, limit)
    # A process that ends here leaves the new file beside the report of another one: the hash tells.
    write_json(report_path, report.to_dict() | {"file": {"name": path.name, "size": file.size, "sha256": file.sha256}})
    return report
