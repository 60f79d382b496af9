"""A catalogue of many files, cleaned file by file anywhere, and joined in one place as one process would have cleaned it.

What a row is by itself (its text, whether it is complete) is found where its file is read; whether an earlier row had its
text or its id, where all are told in the files' order, by hashes that come with them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from ragqa.catalogue.clean import EXAMPLES_PER_REASON, Changes, Cleaner, CleaningReport, keys, shown
from ragqa.catalogue.columns import ReadOptions, Row
from ragqa.catalogue.export import BLOCK, block_of
from ragqa.catalogue.read import MALFORMED, Catalogue
from ragqa.catalogue.seen import FirstSeen
from ragqa.records import Product
from ragqa.settings import CleaningSettings

# A complete row, or, last of a file, the report on it.
SCHEMA: Final = pa.schema(
    [
        ("id", pa.string()), ("title", pa.string()), ("description", pa.string()),
        ("text_hash", pa.uint64()), ("id_hash", pa.uint64()),
        ("line", pa.int64()), ("shown_id", pa.string()), ("shown_title", pa.string()),
        ("changed", pa.bool_()), ("title_cut", pa.bool_()), ("description_cut", pa.bool_()),
        ("report", pa.string()),
    ]
)  # fmt: skip


def clean_file(path: str, options: ReadOptions, settings: CleaningSettings, named: str = "") -> Iterator[pa.Table]:
    """The complete rows of one file, a block at a time, as tables of `SCHEMA`; then a row with the report.

    Args:
        path: the file.
        options, settings: how it is read and cleaned.
        named: what the user calls it, for the report.

    Raises:
        CatalogueError: the file cannot be read, or has a malformed row and these are not skipped.
    """
    catalogue, report = Catalogue(path, options), CleaningReport()
    cleaner = Cleaner(settings, report)
    rows = catalogue.rows()
    while block := block_of(rows, BLOCK):
        yield _table(cleaner, cleaner.complete(block))
    report.columns = catalogue.columns
    report.malformed = [message.replace(path, named or path) for message in catalogue.malformed]
    report.malformed_count = catalogue.malformed_count
    nothing: dict[str, list[Any]] = {name: [None] for name in SCHEMA.names}
    yield pa.table(nothing | {"report": [json.dumps(report.to_dict())]}, schema=SCHEMA)


def _table(cleaner: Cleaner, rows: list[tuple[Row, Product]]) -> pa.Table:
    texts, ids = keys(rows)
    shows = [shown(row) for row, _ in rows]
    changes = [cleaner.changes(row, product) for row, product in rows]
    products = [product for _, product in rows]
    columns: dict[str, Any] = {
        "id": [product.id for product in products],
        "title": [product.title for product in products],
        "description": [product.description for product in products],
        "text_hash": texts,
        "id_hash": ids,
        "line": [row.line for row, _ in rows],
        "shown_id": [id_ for id_, _ in shows],
        "shown_title": [title for _, title in shows],
        "changed": [one.text for one in changes],
        "title_cut": [one.title_cut for one in changes],
        "description_cut": [one.description_cut for one in changes],
        "report": [None] * len(rows),
    }
    return pa.table(columns, schema=SCHEMA)


class Joined:
    """Joins the cleaned rows of all files, told in the files' order.

    Attributes:
        report: what was read, kept and dropped so far; as `clean_catalogue` reports on the whole catalogue.
    """

    def __init__(self, source: str) -> None:
        self.report = CleaningReport(source=source)
        self._seen = FirstSeen()

    def add(self, rows: pa.Table, sink: Callable[[Sequence[Product]], None]) -> None:
        """Take more rows, and give those that no earlier row hides to `sink`."""
        for text in rows.column("report").drop_null().to_pylist():
            self._add_report(json.loads(text))
        rows = rows.filter(rows.column("report").is_null())
        if not len(rows):
            return
        reasons = self._seen.reasons(*(rows.column(name).to_numpy() for name in ("text_hash", "id_hash")))
        kept = []
        texts = (rows.column(name).to_pylist() for name in ("id", "title", "description"))
        changes = (rows.column(name).to_pylist() for name in ("changed", "title_cut", "description_cut"))
        for place, (product, change, reason) in enumerate(
            zip(map(Product, *texts), map(Changes, *changes), reasons, strict=True)
        ):
            if reason is None:
                self.report.keep(change)
                kept.append(product)
            else:
                self._drop(reason, rows, place)
        if kept:
            sink(kept)

    def _drop(self, reason: str, rows: pa.Table, place: int) -> None:
        self.report.dropped[reason] += 1
        examples = self.report.examples[reason]
        if len(examples) < EXAMPLES_PER_REASON:
            id_, title, line = (rows.column(name)[place].as_py() for name in ("shown_id", "shown_title", "line"))
            examples.append({"id": id_, "title": title, "line": line})

    def _add_report(self, file: dict[str, Any]) -> None:
        report = self.report
        report.read += file["read"]
        report.columns = file["columns"] or report.columns
        report.malformed_count += file["malformed_count"]
        report.malformed = (report.malformed + file["malformed"])[:MALFORMED]
        for reason, count in file["dropped"].items():
            report.dropped[reason] += count
            report.examples[reason] = (report.examples[reason] + file["examples"][reason])[:EXAMPLES_PER_REASON]
