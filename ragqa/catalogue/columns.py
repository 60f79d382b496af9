"""One row of a catalogue: its columns, and the text of a field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from ragqa.errors import CatalogueError, InputError

OnError = Literal["stop", "skip"]

# Characters of a field.
LONGEST: Final = 1 << 24
# Names under which the columns are found when none is given, the first that is there.
ID_COLUMNS: Final = tuple("uid id product_id item_id sku asin parent_asin upc ean gtin code codigo código".split())
TITLE_COLUMNS: Final = tuple("title name product_name product_title titulo título nome nombre".split())
TEXT_COLUMNS: Final = tuple(
    "content description product_description text body descricao descrição descripcion descripción".split()
)


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

    def __post_init__(self) -> None:
        if self.on_error not in ("stop", "skip"):
            raise InputError(f"on_error must be stop or skip, not {self.on_error!r}")


class Malformed(Exception):  # noqa: N818  (a signal between what reads a row and the loop over rows)
    """One row cannot be read; reading can go on after it."""


def choose_columns(name: str, found: Sequence[str], options: ReadOptions) -> dict[str, str | None]:
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


def field_text(record: Mapping[str, Any], column: str | None) -> str:
    """The text of a field: None and NaN are empty, numbers as written, a list of texts joined by blanks."""
    value = record.get(column) if column is not None else None
    if isinstance(value, str):
        if len(value) > LONGEST:
            raise Malformed(f"field {column!r} has {len(value):,} characters; at most {LONGEST:,} are accepted")
        return value
    if value is None or (isinstance(value, float) and value != value):  # NaN: what pandas and NumPy have for nothing
        return ""
    if isinstance(value, bool | int | float):
        try:
            return str(value)
        except ValueError as error:  # an integer of thousands of digits
            raise Malformed(f"field {column!r}: {str(error).split(';')[0]}") from None
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return " ".join(value)
    raise Malformed(f"field {column!r} holds a {type(value).__name__}; text, a number or a list of texts is accepted")
