"""The parts of a report, each written as HTML and as Markdown. All text is plain: markup in it is shown, never obeyed."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

# Control characters (they are invalid in HTML), lone surrogates, and the marks that turn the direction of what follows.
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
_MARKUP = re.compile(
    r"""[\\`*_<>|~$&@#{}]|\](?=[(\[:])|!(?=\[)|:(?=//)|(?<=\bwww)\.|(?<=\bxmpp):|(?<=\bmailto):""", re.I
)
_LINK = re.compile(r"https?://[^\s<>\"')\]]*[^\s<>\"')\].,;:]")


def escape(text: str) -> str:
    """Text for HTML, also inside an attribute."""
    return html.escape(_UNFIT.sub(" ", text))


def plain(text: str) -> str:
    """Text for Markdown, on one line: nothing in it is markup, a link, a table's edge, HTML or mathematics."""
    flat = " ".join(_UNFIT.sub(" ", text).split())
    return _MARKUP.sub(lambda sign: "&amp;" if sign[0] == "&" else f"\\{sign[0]}", flat)


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph; `lead` sets it apart as the one to read."""

    text: str
    lead: bool = False

    def html(self) -> str:
        """As HTML."""
        return f'<p class="lead">{escape(self.text)}</p>' if self.lead else f"<p>{escape(self.text)}</p>"

    def markdown(self) -> str:
        """As Markdown."""
        return f"> {plain(self.text)}" if self.lead else plain(self.text)


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list of sentences; addresses in them become links if `links`, for text that is not a catalogue's."""

    items: Sequence[str]
    links: bool = False

    def html(self) -> str:
        """As HTML."""
        items = (_linked_html(item) if self.links else escape(item) for item in self.items)
        return "<ul>\n" + "\n".join(f"<li>{item}</li>" for item in items) + "\n</ul>"

    def markdown(self) -> str:
        """As Markdown."""
        return "\n".join(f"- {_linked_markdown(item) if self.links else plain(item)}" for item in self.items)


def _linked_html(text: str) -> str:
    ends = [0, *(end for match in _LINK.finditer(text) for end in match.span()), len(text)]
    between = [escape(text[a:b]) for a, b in zip(ends[::2], ends[1::2], strict=True)]
    links = [f'<a href="{escape(m[0])}" rel="noreferrer">{escape(m[0])}</a>' for m in _LINK.finditer(text)]
    return "".join(part for pair in zip(between, [*links, ""], strict=True) for part in pair)


def _linked_markdown(text: str) -> str:
    parts = _LINK.split(text)
    links = [f"<{m[0]}>" for m in _LINK.finditer(text)]
    spaced = [plain(f"x{part}x")[1:-1] for part in parts]  # keeps the blanks at the edges
    return "".join(part for pair in zip(spaced, [*links, ""], strict=True) for part in pair)


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column names the rows.

    Attributes:
        title: above it.
        head: names of the columns.
        rows: cells as text, as many as columns.
        note: how to read it, below the title.
        words: how many columns, from the first, are words, to be set from the left; the others are figures.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    words: int = 1

    def html(self) -> str:
        """As HTML, in a box of its own that scrolls sideways where the page is narrow."""
        figure = ["" if i < self.words else ' class="n"' for i in range(len(self.head))]
        head = "".join(f'<th scope="col"{c}>{escape(name)}</th>' for c, name in zip(figure, self.head, strict=True))
        rows = "\n".join(
            f'<tr><th scope="row">{escape(row[0])}</th>'
            + "".join(f"<td{c}>{escape(cell)}</td>" for c, cell in zip(figure[1:], row[1:], strict=True))
            + "</tr>"
            for row in self.rows
        )
        note = f'<p class="note">{escape(self.note)}</p>\n' if self.note else ""
        return (
            f"<h3>{escape(self.title)}</h3>\n{note}"
            f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(self.title)}">'
            f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n"
            "</table></div>"
        )

    def markdown(self) -> str:
        """As Markdown."""
        lines = [
            _line([plain(name) for name in self.head]),
            _line(["---" if i < self.words else "---:" for i in range(len(self.head))]),
            *(_line([plain(cell) for cell in row]) for row in self.rows),
        ]
        return "\n\n".join(part for part in (f"### {plain(self.title)}", plain(self.note), "\n".join(lines)) if part)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture.

    Attributes:
        name: of its file, without the ending.
        caption: what it shows and how to read it.
        svg: the picture itself, safe to stand inside HTML.
    """

    name: str
    caption: str
    svg: str

    def html(self) -> str:
        """As HTML, the picture inside."""
        return (
            f'<figure><div class="scroll paper" role="img" tabindex="0" aria-label="{escape(self.caption)}">{self.svg}</div>\n'
            f"<figcaption>{escape(self.caption)}</figcaption></figure>"
        )

    def markdown(self) -> str:
        """As Markdown, the picture a file beside it."""
        return f"![{plain(self.caption)}](pictures/{self.name}.svg)\n\n*{plain(self.caption)}*"


@dataclass(frozen=True, slots=True)
class Answers:
    """A question with the answers of several arms, side by side.

    Attributes:
        title: which question, and why it is shown.
        question: as asked.
        reference: the right answer.
        answers: (arm, its scores in words, its text).
    """

    title: str
    question: str
    reference: str
    answers: Sequence[tuple[str, str, str]]

    def html(self) -> str:
        """As HTML: cards that stand beside each other where there is room."""
        cards = "\n".join(
            f'<div class="card"><h5>{escape(arm)}</h5><p class="note">{escape(scores)}</p>'
            f'<p dir="auto">{escape(text) or "(nothing)"}</p></div>'
            for arm, scores, text in [("Reference", "the cleaned description", self.reference), *self.answers]
        )
        return (
            f'<article><h4>{escape(self.title)}</h4>\n<blockquote dir="auto">{escape(self.question)}</blockquote>\n'
            f'<div class="cards">\n{cards}\n</div></article>'
        )

    def markdown(self) -> str:
        """As Markdown: a table."""
        rows = [("Reference", "", self.reference), *self.answers]
        lines = [_line([plain(arm), plain(scores), plain(text) or "(nothing)"]) for arm, scores, text in rows]
        return "\n".join(
            [
                f"#### {plain(self.title)}\n\n> Asked: {plain(self.question)}\n\n| | scores | text |\n|---|---|---|",
                *lines,
            ]
        )


Block = Paragraph | Bullets | Table | Picture | Answers


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report.

    Attributes:
        anchor: by which the table of contents finds it; letters and hyphens.
        title: its heading.
        blocks: what stands in it.
    """

    anchor: str
    title: str
    blocks: Sequence[Block]
