from __future__ import annotations

import re
import time
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragqa.catalogue.clean import REASONS, Cleaner, CleaningReport, clean_text, cut_at_word
from ragqa.catalogue.columns import Row
from ragqa.catalogue.seen import SeenHashes
from ragqa.records import Product
from ragqa.settings import CleaningSettings

# Pieces of which text that is hard to clean is made, and any text at all between them.
PIECES = (
    "&amp;", "&", "amp;", "&lt;", "&gt;", "lt;", "#38;", "&#x3C;", "&#8217;", "&nbsp;", "&Amp;", "&not;", "&notes;",
    "<b>", "<", ">", "b>", "</p>", "<br/>", "<!--", "-->", "<script>", "</script>", "<style a='1'>", "</style>",
    "e\u0301", "\u0301", "\u0338", "H\u0331", "\u212a", "\u00ad", "\u200b", "\u200d", "\ufeff", "\u202e", "\ud800",
    "\udc00", "\x00", "\x07", "\x1c", "\x85", "\u2028", "\u3000", " ", "\n", "\t", "👩", "a", "B",
)  # fmt: skip
hard_text = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=25).map("".join)


def report_of(rows: list[Row], **settings: bool | int) -> tuple[list[Product], CleaningReport]:
    report = CleaningReport()
    return Cleaner(CleaningSettings(**settings), report).clean(rows), report  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Judith Kerr&#8217;s best&#8211;selling", "Judith Kerr’s best–selling"),
        ("Judith Kerr&#x2019;s best&ndash;selling", "Judith Kerr’s best–selling"),
        ("Fish &amp; chips", "Fish & chips"),
        ("Fish &amp;amp; chips", "Fish & chips"),
        ("Fish &#38;amp;#38; chips", "Fish & chips"),
        ("Judith Kerr&amp;#8217;s", "Judith Kerr’s"),
        ("&lt;b&gt;bold&lt;/b&gt; text", "bold text"),
        ("a&nbsp;&nbsp;b", "a b"),
        ("&#128; 5", "€ 5"),
        ("&eacute;&Eacute;", "éÉ"),
        ("1 &lt; 2", "1 < 2"),
    ],
)
def test_entities_become_their_letters(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean


@pytest.mark.parametrize(
    "text", ["AT&notes", "AT&notes;", "R&D;", "R&D", "a&b;", "&Amp;", "Q&A", "&;", "&#;", "&#x;", "fish & chips"]
)
def test_what_only_looks_like_an_entity_stays(text: str) -> None:
    assert clean_text(text) == text


@pytest.mark.parametrize("text", ["List<String>", "I <3 you", "x <y> z", "a < b > c", "<bold>", "<>", "-> <-", "<1>"])
def test_angle_brackets_that_are_no_html_stay(text: str) -> None:
    assert clean_text(text) == text


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("<b>bold</b>er", "bolder"),
        ("one<br />two<BR>three", "one two three"),
        ("<ul><li>one</li><li>two</li></ul>", "one two"),
        ('a <a href="x.html" class=y>link</a> b', "a link b"),
        ("<p\nalign=left>text</p>", "text"),
        ("a<script type='x'>if (1 < 2) alert('<b>')</script>b", "a b"),
        ("a<STYLE>b { color: red }</style >b", "a b"),
        ("a<!-- a comment\nof <b>two</b> lines -->b", "a b"),
        ("<<b>b>nested</b>", "nested"),
        ("&am<i></i>p;", "&"),
    ],
)
def test_html_tags_go_and_blocks_leave_a_blank(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean


@pytest.mark.parametrize(
    "mark", ["\u00ad", "\u200b", "\u2060", "\u200e", "\u202e", "\u2066", "\ufeff", "\ud800", "\x00", "\x1b"]
)
def test_a_mark_that_cannot_be_seen_goes(mark: str) -> None:
    assert clean_text(f"so{mark}ft") == "soft"


@pytest.mark.parametrize("text", ["👩\u200d👩\u200d👧", "❤\ufe0f", "می\u200cخواهم"])
def test_joiners_that_change_what_is_seen_stay(text: str) -> None:
    assert clean_text(text) == text


@pytest.mark.parametrize("space", ["\t", "\n", "\r\n", "\x0b", "\x0c", "\x85", "\u00a0", "\u2003", "\u2028", "\u3000"])
def test_white_space_of_any_kind_is_folded(space: str) -> None:
    assert clean_text(f"{space}a{space}{space}b{space}") == "a b"


def test_text_becomes_nfc() -> None:
    assert clean_text("cafe\u0301") == "caf\u00e9"


def test_case_is_kept() -> None:
    products, _ = report_of([Row("1", "The BIG Book", "By John SMITH", 1)])
    assert products == [Product("1", "The BIG Book", "By John SMITH")]


def test_lowercase_lowers_titles_and_descriptions_but_no_ids() -> None:
    products, _ = report_of([Row("A1", "The BIG Book", "CAFÉ", 1)], lowercase=True)
    assert products == [Product("A1", "the big book", "café")]


def test_lower_case_text_is_nfc_too() -> None:
    products, _ = report_of([Row("1", "H\u0331", "x", 1)], lowercase=True)
    assert products[0].title == "\u1e96"


@given(hard_text)
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    once = clean_text(text)
    assert clean_text(once) == once


@given(hard_text)
def test_clean_text_is_nfc_with_no_controls_no_surrogates_and_single_blanks(text: str) -> None:
    clean = clean_text(text)
    assert unicodedata.is_normalized("NFC", clean)
    assert not {unicodedata.category(letter) for letter in clean} & {"Cc", "Cs"}
    assert " ".join(clean.split()) == clean


@given(hard_text)
def test_clean_text_holds_no_tag_of_html(text: str) -> None:
    assert not re.search(r"</?(?:b|i|p|br|li|div|span|a)(?:\s[^<>]*)?/?>|<!--[^<]*-->", clean_text(text), re.IGNORECASE)


@pytest.mark.parametrize(
    "hostile",
    ["&" + "amp;" * 50_000, "-->" + "<!--" * 50_000, "</script>" + "<script>" * 25_000, "<" * 50_000 + "b>" * 50_000],
    ids=["escaped 50,000 times", "comments that never end", "scripts that never end", "tags within tags"],
)
def test_hostile_text_is_cleaned_in_a_moment_and_for_good(hostile: str) -> None:
    started = time.perf_counter()
    once = clean_text(hostile)
    assert time.perf_counter() - started < 8
    assert clean_text(once) == once


@pytest.mark.parametrize(
    ("limit", "cut"),
    [(13, "one two three"), (12, "one two"), (8, "one two"), (7, "one two"), (6, "one tw"), (3, "one"), (1, "o")],
)
def test_text_is_cut_at_a_blank_where_one_is_in_the_second_half(limit: int, cut: str) -> None:
    assert cut_at_word("one two three", limit) == cut


@given(st.text(alphabet="ab ", max_size=40), st.integers(1, 40))
def test_cut_text_is_a_beginning_within_the_limit(text: str, limit: int) -> None:
    cut = cut_at_word(text, limit)
    assert len(cut) <= limit
    assert text.startswith(cut)


@given(st.lists(st.lists(st.integers(0, 50) | st.integers(0, 2**64 - 1), max_size=40), max_size=12))
def test_seen_hashes_agree_with_a_set(blocks: list[list[int]]) -> None:
    seen, hashes = set[int](), SeenHashes()
    for block in blocks:
        values = np.array(block, dtype=np.uint64)
        assert hashes.contains(values).tolist() == [value in seen for value in block]
        hashes.add(values)
        seen.update(block)
        assert hashes.contains(values).all()


@pytest.mark.parametrize(
    ("rows", "reason", "example"),
    [
        ([Row("7", " <p></p>", "text", 3)], "no_title", {"id": "7", "title": "", "line": 3}),
        ([Row("7", "A <b>book</b>", "&nbsp;", 3)], "no_description", {"id": "7", "title": "A book", "line": 3}),
        (
            [Row("1", "A Book", "Text", 1), Row("2", "a  BOOK", " text", 2)],
            "duplicate",
            {"id": "2", "title": "a BOOK", "line": 2},
        ),
        (
            [Row("1", "A Book", "Text", 1), Row(" 1", "Another", "Text", 2)],
            "repeated_id",
            {"id": "1", "title": "Another", "line": 2},
        ),
    ],
)
def test_a_dropped_row_is_counted_under_its_reason_with_an_example(
    rows: list[Row], reason: str, example: dict[str, object]
) -> None:
    products, report = report_of(rows)
    assert report.dropped == dict.fromkeys(REASONS, 0) | {reason: 1}
    assert report.examples == {name: [example] if name == reason else [] for name in REASONS}
    assert (report.read, report.kept) == (len(rows), len(products)) == (len(rows), len(rows) - 1)


def test_only_the_first_five_examples_are_kept() -> None:
    _, report = report_of([Row(str(line), "", "text", line) for line in range(1, 9)])
    assert report.dropped["no_title"] == 8
    assert [example["line"] for example in report.examples["no_title"]] == [1, 2, 3, 4, 5]


def test_same_texts_under_the_same_id_count_as_a_duplicate() -> None:
    _, report = report_of([Row("1", "A", "b", 1), Row("1", "A", "b", 2)])
    assert (report.dropped["duplicate"], report.dropped["repeated_id"]) == (1, 0)


def test_a_title_and_a_text_do_not_run_into_each_other() -> None:
    products, _ = report_of([Row("1", "ab", "c", 1), Row("2", "a", "bc", 2)])
    assert len(products) == 2


def test_duplicates_are_found_across_blocks() -> None:
    cleaner = Cleaner(CleaningSettings(), CleaningReport())
    kept = [len(cleaner.clean([Row("", "A", "b", line), Row("", f"T{line}", "b", line)])) for line in range(5)]
    assert kept == [2, 1, 1, 1, 1]


def test_ids_made_from_content_do_not_depend_on_the_order_of_rows() -> None:
    rows = [Row("", f"Title {n}", f"Text {n}", n) for n in range(20)]
    forward, backward = report_of(rows)[0], report_of(rows[::-1])[0]
    assert {p.title: p.id for p in forward} == {p.title: p.id for p in backward}
    assert len({p.id for p in forward}) == 20


def test_an_id_made_from_content_has_16_hexadecimal_digits() -> None:
    assert re.fullmatch("[0-9a-f]{16}", report_of([Row("", "A", "b", 1)])[0][0].id)


def test_texts_over_the_limits_are_cut_and_counted() -> None:
    rows = [Row("1", "one two three", "four five", 1), Row("2", "one", "four five six", 2)]
    products, report = report_of(rows, max_title_chars=8, max_description_chars=9)
    assert products == [Product("1", "one two", "four five"), Product("2", "one", "four five")]
    assert (report.titles_cut, report.descriptions_cut) == (1, 1)


def test_text_that_cleaning_brings_under_the_limit_is_not_counted_as_cut() -> None:
    products, report = report_of([Row("1", "<b>one</b>", "four &amp; five", 1)], max_title_chars=3)
    assert products == [Product("1", "one", "four & five")]
    assert (report.titles_cut, report.changed) == (0, 1)


def test_a_dropped_row_hides_no_other() -> None:
    report = CleaningReport()
    rows = [
        Row("1", "A", "first", 1),
        Row("1", "B", "second", 2),  # repeated id: its text was not kept
        Row("2", "B", "second", 3),
        Row("3", "A", "first", 4),  # duplicate: its id was not kept
        Row("3", "C", "third", 5),
    ]
    kept = Cleaner(CleaningSettings(), report).clean(rows)
    assert [(product.id, product.title) for product in kept] == [("1", "A"), ("2", "B"), ("3", "C")]
