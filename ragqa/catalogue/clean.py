"""Cleaning of catalogue text: entities, tags, invisible characters, white space, duplicates.

The order matters: entities are unescaped before anything else, since a step that removes punctuation
first turns ``&#8217;`` into the digits 8217.
"""

from __future__ import annotations

import html
import html.entities
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import xxhash

from ragqa.catalogue.columns import Row
from ragqa.catalogue.seen import FirstSeen, Hashes, hashes_of
from ragqa.records import Product
from ragqa.settings import CleaningSettings

# Only whole entities: `html.unescape` alone would also turn "AT&notes" and "AT&notes;" into "AT¬es". However
# often an ampersand was escaped, one pass undoes it.
_ENTITY: Final = re.compile(
    r"&(?:amp;|#38;|#[xX]26;)*(?:(#[0-9]{1,7};|#[xX][0-9a-fA-F]{1,6};)|([A-Za-z][A-Za-z0-9]{1,31};))"
)
_INLINE: Final = (
    "a abbr acronym b big bdi bdo cite code del dfn em font i ins kbd mark q s samp small span strike strong sub sup "
    "tt u var wbr"
)
_BLOCK: Final = (
    "address article aside blockquote body br button caption center col colgroup dd details dialog dir div dl dt "
    "embed fieldset figcaption figure footer form frame frameset h1 h2 h3 h4 h5 h6 head header hr html iframe img "
    "input label legend li link main map menu meta nav noscript object ol optgroup option p param picture pre "
    "progress section select source summary svg table tbody td template textarea tfoot th thead title tr track "
    "ul video audio canvas area base basefont applet"
)
# Only the names HTML knows, so that "List<String>", "<3" and "x <y> z" stay as they are. What stands between
# the ends of a comment or script holds no other beginning: without that, many beginnings take quadratic time.
_TAG: Final = re.compile(
    rf"</?(?:(?P<inline>{_INLINE.replace(' ', '|')})|(?:{_BLOCK.replace(' ', '|')}))(?:\s[^<>]*)?/?>"
    r"|<!--(?:(?!<!--).)*?-->"
    r"|<(?P<raw>script|style)\b[^<>]*>(?:(?!<(?P=raw)\b).)*?</(?P=raw)\s*>",
    re.IGNORECASE | re.DOTALL,
)
# For a class of a regular expression: controls that are not white space, lone surrogates, and marks that cannot be seen:
# soft hyphen, zero-width space and joiner of words, byte-order mark, directional controls, fillers, tag characters and
# selectors of variants.
UNSEEN: Final = (
    "\x00-\x08\x0e-\x1b\x7f\x80-\x84\x86-\x9f\xad\ud800-\udfff\ufeff\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f"
    "\u2060-\u2064\u202a-\u202e\u2066-\u206f\u3164\uffa0\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e0fff"
)
# They go, but for the tags and selectors of flags and emoji. The joiners of emoji and of Persian and Indic scripts (U+200C,
# U+200D) stay, not beside ASCII and white space.
_INVISIBLE: Final = re.compile(
    "(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f)"
    f"|[{UNSEEN}]"
    "|(?<=[\ufe00-\ufe0f])[\ufe00-\ufe0f]+|[\ufe00-\ufe0d]|(?<=[\x01-\x7f\\s])[\u200c\u200d]+|[\u200c\u200d]+(?=[\x01-\x7f\\s])"
)
_MAX_PASSES: Final = 8


def _replace_entity(match: re.Match[str]) -> str:
    number, name = match.groups()
    return html.unescape(f"&{number}") if number else html.entities.html5.get(name, f"&{name}")


def _replace_tag(match: re.Match[str]) -> str:
    return "" if match["inline"] else " "


def clean_text(text: str) -> str:
    """Readable text from raw catalogue text; cleaning it again changes nothing.

    Entities are unescaped (also those escaped twice), HTML tags removed, invisible and control characters
    dropped, the text normalised to Unicode NFC, and white space folded to single blanks.

    >>> clean_text("Judith Kerr&#8217;s best&#8211;selling")
    'Judith Kerr’s best–selling'
    >>> clean_text("Fish &amp;amp; chips<br/>for  <b>two</b>")
    'Fish & chips for two'
    """
    for _ in range(_MAX_PASSES):
        before = text
        if "&" in text:
            text = _ENTITY.sub(_replace_entity, text)
        if "<" in text:
            text = _TAG.sub(_replace_tag, text)
        if not text.isascii():
            text = unicodedata.normalize("NFC", _INVISIBLE.sub(r"\1", text))
        elif not text.isprintable():
            text = _INVISIBLE.sub(r"\1", text)
        if text == before:
            break
    else:
        # Nobody writes like this but to wear the cleaner out; what is left cannot become a tag or an entity.
        text = text.replace("<", " ").replace("&", " ")
    return " ".join(text.split())


def cut_at_word(text: str, limit: int) -> str:
    """`text`, or its beginning of at most `limit` characters, cut at a blank where there is one."""
    if len(text) <= limit:
        return text
    head = text[: limit + 1]
    blank = head.rfind(" ")
    return (head[:blank] if blank > limit // 2 else head[:limit]).rstrip()


# Reasons for which a row is dropped, in the order in which they are looked at.
REASONS: Final = {
    "no_title": "without a title",
    "no_description": "without a description",
    "duplicate": "same title and description as an earlier row",
    "repeated_id": "same id as an earlier, different row",
}
EXAMPLES_PER_REASON: Final = 5
_SHOWN: Final = 80  # characters of an example


class Changes(NamedTuple):
    """What cleaning did to a product: changed its title or description, cut the one, cut the other to its limit."""

    text: bool
    title_cut: bool
    description_cut: bool


def shown(row: Row) -> tuple[str, str]:
    """Id and title of a row as the report shows them."""
    return cut_at_word(clean_text(row.id), _SHOWN), cut_at_word(clean_text(row.title), _SHOWN)


@dataclass(slots=True)
class CleaningReport:
    """What cleaning did to a catalogue.

    Attributes:
        source: the catalogue's name.
        columns: which column gave id, title and text.
        read: rows read.
        kept: products that remain.
        dropped: number of dropped rows by reason, see `REASONS`.
        examples: for each reason the first few (id, title, line).
        malformed: rows that could not be read and were skipped (`--on-error skip`), first 100 messages.
        malformed_count: number of such rows.
        titles_cut: kept products whose title was cut to the limit.
        descriptions_cut: kept products whose description was cut to the limit.
        changed: kept products whose title or description cleaning changed.
        seconds: time taken.
    """

    source: str = ""
    columns: dict[str, str | None] = field(default_factory=dict)
    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {r: [] for r in REASONS})
    malformed: list[str] = field(default_factory=list)
    malformed_count: int = 0
    titles_cut: int = 0
    descriptions_cut: int = 0
    changed: int = 0
    seconds: float = 0.0

    def drop(self, reason: str, row: Row) -> None:
        """Count a dropped row, keep the first few as examples."""
        self.dropped[reason] += 1
        if len(self.examples[reason]) < EXAMPLES_PER_REASON:
            id_, title = shown(row)
            self.examples[reason].append({"id": id_, "title": title, "line": row.line})

    def keep(self, changes: Changes) -> None:
        """Count a product."""
        self.kept += 1
        self.changed += changes.text
        self.titles_cut += changes.title_cut
        self.descriptions_cut += changes.description_cut

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary of all fields."""
        return {name: getattr(self, name) for name in self.__slots__}

    def table(self) -> str:
        """The report as lines of text for a screen."""
        rate = f"{self.read / self.seconds:,.0f} rows/s" if self.seconds else ""
        lines = [
            f"cleaned {self.source}",
            f"  {self.read:>11,}  rows read  {rate}".rstrip(),
            f"  {self.kept:>11,}  products kept ({self.changed:,} of them had text to clean)",
        ]
        for reason, what in REASONS.items():
            if self.dropped[reason]:
                example = self.examples[reason][0]
                shown = example["title"] or example["id"] or "?"
                lines.append(f"  {self.dropped[reason]:>11,}  dropped: {what} (first: {shown!r})")
        if self.malformed_count:
            lines.append(f"  {self.malformed_count:>11,}  skipped: malformed ({self.malformed[0]})")
        if self.titles_cut or self.descriptions_cut:
            lines.append(
                f"  {self.titles_cut + self.descriptions_cut:>11,}  texts cut to the limit "
                f"({self.titles_cut:,} titles, {self.descriptions_cut:,} descriptions)"
            )
        return "\n".join(lines)


class Cleaner:
    """Cleans rows block by block, remembers what was seen, and fills the report."""

    def __init__(self, settings: CleaningSettings, report: CleaningReport) -> None:
        self.settings = settings
        self.report = report
        self._seen = FirstSeen()

    def clean(self, rows: list[Row]) -> list[Product]:
        """The products of a block of rows, in their order; what is dropped goes to the report."""
        complete = self.complete(rows)
        kept = []
        for (row, product), reason in zip(complete, self._seen.reasons(*keys(complete)), strict=True):
            if reason:
                self.report.drop(reason, row)
            else:
                self.report.keep(self.changes(row, product))
                kept.append(product)
        return kept

    def complete(self, rows: list[Row]) -> list[tuple[Row, Product]]:
        """The rows that have a title and a description, cleaned, whether they were seen before or not."""
        self.report.read += len(rows)
        complete: list[tuple[Row, Product]] = []
        for row in rows:
            product = self._product(row)
            if not product.title:
                self.report.drop("no_title", row)
            elif not product.description:
                self.report.drop("no_description", row)
            else:
                complete.append((row, product))
        return complete

    def _product(self, row: Row) -> Product:
        title, description = clean_text(row.title), clean_text(row.text)
        if self.settings.lowercase:
            # Lower case may need normalising again: H̱ has no form of one character, ẖ has.
            title, description = clean_text(title.lower()), clean_text(description.lower())
        title = cut_at_word(title, self.settings.max_title_chars)
        description = cut_at_word(description, self.settings.max_description_chars)
        id_ = clean_text(row.id) or xxhash.xxh3_64_hexdigest(f"{title}\0{description}".encode())
        return Product(id_, title, description)

    def changes(self, row: Row, product: Product) -> Changes:
        """What cleaning did to a row."""
        # A cut text is at most as long as its limit; cleaning again tells whether it was longer before.
        limits = self.settings
        title, text = limits.max_title_chars, limits.max_description_chars
        return Changes(
            product.title != row.title or product.description != row.text,
            len(row.title) > title and len(clean_text(row.title)) > title,
            len(row.text) > text and len(clean_text(row.text)) > text,
        )


def keys(rows: list[tuple[Row, Product]]) -> tuple[Hashes, Hashes]:
    """Hashes of the rows' texts and of their ids, for `FirstSeen`."""
    texts = hashes_of(f"{product.title}\0{product.description}".casefold() for _, product in rows)
    return texts, hashes_of(product.id for _, product in rows)
