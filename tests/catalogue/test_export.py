from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragqa.catalogue.clean import clean_text
from ragqa.catalogue.columns import ReadOptions
from ragqa.catalogue.export import PAIR_TEMPLATE, clean_catalogue, prepare
from ragqa.catalogue.read import Catalogue
from ragqa.errors import CatalogueError, InputError
from ragqa.records import Product
from ragqa.settings import CleaningSettings

ROWS = [{"uid": "1", "title": "Café", "content": 'said "x", twice'}, {"uid": "2", "title": "B", "content": "b"}]
FORMATS = (".csv", ".jsonl", ".parquet")


def many(count: int) -> Iterator[dict[str, str]]:
    return ({"uid": str(n), "title": f"Title {n}", "content": f"Text {n}"} for n in range(count))


def read(path: Path) -> list[dict[str, str]]:
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file)) if path.suffix == ".csv" else [json.loads(line) for line in file]


def products_of(source: Any) -> list[Product]:
    products: list[Product] = []
    clean_catalogue(Catalogue(source), CleaningSettings(), products.extend)
    return products


@pytest.mark.parametrize("ending", FORMATS)
def test_the_file_holds_id_title_and_description(tmp_path: Path, ending: str) -> None:
    prepare(ROWS, tmp_path / f"out{ending}")
    assert read(tmp_path / f"out{ending}") == [
        {"id": "1", "title": "Café", "description": 'said "x", twice'},
        {"id": "2", "title": "B", "description": "b"},
    ]


@pytest.mark.parametrize("ending", FORMATS)
def test_pairs_add_a_question_and_its_answer(tmp_path: Path, ending: str) -> None:
    prepare(ROWS[:1], tmp_path / f"out{ending}", pairs=True)
    assert read(tmp_path / f"out{ending}") == [
        {
            "id": "1",
            "title": "Café",
            "description": 'said "x", twice',
            "prompt": "Qual é a descrição deste produto: Café?",
            "response": 'said "x", twice',
        }
    ]


def test_a_template_of_ones_own_is_filled_in_whatever_braces_the_title_has(tmp_path: Path) -> None:
    row = {"title": "{description} {0}", "text": "x"}
    prepare([row], tmp_path / "out.jsonl", pairs=True, template="What is\n{title}? {not this}")
    assert read(tmp_path / "out.jsonl")[0]["prompt"] == "What is\n{description} {0}? {not this}"


@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_of_several_blocks_is_whole_and_in_order(tmp_path: Path, ending: str) -> None:
    report = prepare(many(9000), tmp_path / f"out{ending}")
    assert [row["id"] for row in read(tmp_path / f"out{ending}")] == [str(n) for n in range(9000)]
    assert (report.read, report.kept) == (9000, 9000)


@pytest.mark.parametrize("ending", FORMATS)
@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.text()
        | st.sampled_from(['a "quoted", one', "two\nlines", "👩\u200d👧", "a\ud800b", "\r", "'", "\x00x", ";"]),
        max_size=6,
    )
)
def test_a_round_trip_gives_the_same_products(
    tmp_path_factory: pytest.TempPathFactory, ending: str, texts: Sequence[str]
) -> None:
    rows = [{"title": f"{n} {text}", "text": f"{text} x"} for n, text in enumerate(texts)] + [
        {"title": "A", "text": "b"}
    ]
    source = tmp_path_factory.mktemp("trip") / "trn.json"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(source, source.with_name(f"out{ending}"))
    assert products_of(source.with_name(f"out{ending}")) == products_of(rows)
    assert [p.title for p in products_of(rows)] == [clean_text(row["title"]) for row in rows]


def test_the_report_beside_the_file_says_what_was_dropped_and_why(
    tmp_path: Path, write_lines: Callable[..., Path]
) -> None:
    source = write_lines(
        [
            {"uid": 1, "title": "A &amp; B", "content": "text"},
            {"uid": 2, "title": "", "content": "text"},
            {"uid": 3, "title": "C", "content": " "},
            "{",
            {"uid": 4, "title": "a & b", "content": "TEXT"},
            {"uid": 1, "title": "D", "content": "text"},
            {"uid": "\ud8005", "title": "E", "content": "one two three"},
        ]
    )
    returned = prepare(
        source,
        tmp_path / "out.csv",
        options=ReadOptions(on_error="skip"),
        cleaning=CleaningSettings(max_description_chars=9),
    )
    report = json.loads((tmp_path / "out.csv.report.json").read_text("utf-8"))
    written = (tmp_path / "out.csv").read_bytes()
    assert report.pop("file") == {
        "name": "out.csv", "size": len(written), "sha256": hashlib.sha256(written).hexdigest()
    }  # fmt: skip
    assert report == returned.to_dict()
    assert report.pop("seconds") > 0
    assert report == {
        "source": str(source),
        "columns": {"id": "uid", "title": "title", "text": "content"},
        "read": 6,
        "kept": 2,
        "dropped": {"no_title": 1, "no_description": 1, "duplicate": 1, "repeated_id": 1},
        "examples": {
            "no_title": [{"id": "2", "title": "", "line": 2}],
            "no_description": [{"id": "3", "title": "C", "line": 3}],
            "duplicate": [{"id": "4", "title": "a & b", "line": 5}],
            "repeated_id": [{"id": "1", "title": "D", "line": 6}],
        },
        "malformed": [
            f"{source}: line 4: not valid JSON (Expecting property name enclosed in double quotes at column 2)"
        ],
        "malformed_count": 1,
        "titles_cut": 0,
        "descriptions_cut": 1,
        "changed": 2,
    }


def test_the_table_says_the_same_on_a_screen(tmp_path: Path) -> None:
    rows = [{"title": "A", "text": "b"}, {"title": "a", "text": "B"}, {"title": "C", "text": None}]
    report = prepare(rows, tmp_path / "out.csv", cleaning=CleaningSettings(max_title_chars=1))
    report.seconds = 0.0
    assert report.table().splitlines() == [
        "cleaned list",
        "            3  rows read",
        "            1  products kept (0 of them had text to clean)",
        "            1  dropped: without a description (first: 'C')",
        "            1  dropped: same title and description as an earlier row (first: 'a')",
    ]


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("limit", [1, 3, 4096, 4097, 5000])
def test_the_limit_is_on_products_and_the_report_counts_nothing_beyond(tmp_path: Path, ending: str, limit: int) -> None:
    rows = (row for n, row in enumerate(many(6000)) for row in ([row, dict(row, title="")] if n % 2 else [row]))
    report = prepare(rows, tmp_path / f"out{ending}", limit=limit)
    assert len(read(tmp_path / f"out{ending}")) == report.kept == limit
    assert report.read == report.kept + report.dropped["no_title"] == limit + (limit - 1) // 2


def test_a_limit_beyond_the_catalogue_takes_all_of_it(tmp_path: Path) -> None:
    assert prepare(ROWS, tmp_path / "out.csv", limit=10**12).kept == 2


@pytest.mark.parametrize("ending", FORMATS)
def test_a_block_of_which_nothing_remains_does_not_end_the_file(tmp_path: Path, ending: str) -> None:
    rows = [*many(1), *[ROWS[0] | {"uid": "0"}] * 9000, *list(many(3))[1:]]
    prepare(rows, tmp_path / f"out{ending}")
    assert [row["id"] for row in read(tmp_path / f"out{ending}")] == ["0", "1", "2"]


def test_duplicates_are_found_across_blocks_of_4096_rows(tmp_path: Path) -> None:
    report = prepare([*many(5000), *many(5000)], tmp_path / "out.csv")
    assert (report.kept, report.dropped["duplicate"]) == (5000, 5000)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_what_stops_the_rows_leaves_no_file(tmp_path: Path, ending: str, failure: type[BaseException]) -> None:
    def rows() -> Iterator[dict[str, str]]:
        yield from many(5000)
        raise failure

    with pytest.raises(failure):
        prepare(rows(), tmp_path / f"out{ending}", pairs=True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_before_is_still_whole_after_a_failure(tmp_path: Path) -> None:
    prepare(ROWS, tmp_path / "out.csv")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CatalogueError):
        prepare([], tmp_path / "out.csv")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("out", "more", "message"),
    [
        ("o.txt", {}, "the ending '.txt' is not known; accepted are .jsonl, .csv, .parquet"),
        ("o", {}, "the ending '' is not known"),
        ("o.csv", {"pairs": True, "template": "What?"}, "the template 'What?' has no {title} in it"),
        ("o.csv", {"pairs": True, "template": "\udcff{title}"}, "has bytes in it that are no text"),
        ("o.csv", {"limit": 0}, "the limit must be a whole number of at least 1, not 0"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_file_is_made(
    tmp_path: Path, out: str, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        prepare(ROWS, tmp_path / out, **more)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_template_of_the_original_study_is_the_default() -> None:
    assert PAIR_TEMPLATE == "Qual é a descrição deste produto: {title}?"


@pytest.mark.parametrize("ending", FORMATS)
def test_what_stops_the_first_row_leaves_no_file(tmp_path: Path, ending: str) -> None:
    def rows() -> Iterator[dict[str, str]]:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        prepare(rows(), tmp_path / f"out{ending}")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_the_report_is_told_before_any_file_is_made(tmp_path: Path) -> None:
    (tmp_path / "out.csv.report.json").mkdir()
    with pytest.raises(InputError, match=r"out\.csv\.report\.json: a folder stands where the report goes; choose"):
        prepare(ROWS, tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv.report.json"]
