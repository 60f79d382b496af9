from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ragqa.catalogue.columns import TEXT_COLUMNS, TITLE_COLUMNS, ReadOptions, Row
from ragqa.catalogue.formats import byte
from ragqa.catalogue.read import Catalogue
from ragqa.errors import CatalogueError, InputError

COLUMNS = ["uid", "title", "content"]
TABLE = [["1", 'A, "b"; c\td', "two\nlines"], ["2", "é 👩 ’", "plain"]]
EXPECTED = [tuple(row) for row in TABLE]
DICTS = [dict(zip(COLUMNS, row, strict=True)) for row in TABLE]
JSON_TEXT = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in DICTS)


def csv_text(delimiter: str) -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=delimiter).writerows([COLUMNS, *TABLE])
    return buffer.getvalue()


def texts(source: Any, **options: Any) -> list[tuple[str, str, str]]:
    return [row[:3] for row in Catalogue(source, ReadOptions(**options)).rows()]


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix.lower() == ".gz" else data)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("trn.json", JSON_TEXT),
        ("trn.jsonl", JSON_TEXT),
        ("trn.ndjson", JSON_TEXT),
        ("TRN.JSON", JSON_TEXT),
        ("trn.json", "\ufeff" + JSON_TEXT),
        ("trn.json", "\n \n" + JSON_TEXT.replace("\n", "\r\n\r\n")),
        ("trn.json", JSON_TEXT.rstrip("\n")),
        ("trn.json.gz", JSON_TEXT),
        ("TRN.JSON.GZ", JSON_TEXT),
        ("trn.csv", csv_text(",")),
        ("trn.csv", csv_text(";")),
        ("trn.csv", csv_text("\t")),
        ("trn.csv", "\ufeff" + csv_text(",")),
        ("trn.csv", "\n\n" + csv_text(",")),
        ("trn.csv.gz", csv_text(";")),
        ("trn.tsv", csv_text("\t")),
        ("trn.tsv.gz", csv_text("\t")),
    ],
)
def test_a_text_format_gives_its_rows(tmp_path: Path, name: str, content: str) -> None:
    assert texts(write(tmp_path / name, content)) == EXPECTED


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp037"])
@pytest.mark.parametrize("name", ["trn.json", "trn.csv.gz"])
def test_a_text_format_is_read_in_the_encoding_asked_for(tmp_path: Path, name: str, encoding: str) -> None:
    content = '{"title": "Maçã", "text": "é"}\n{"title": "2", "text": "b"}\n'
    if "csv" in name:
        content = "title,text\nMaçã,é\n2,b\n"
    path = write(tmp_path / name, content.encode(encoding))
    assert texts(path, encoding=encoding) == [("", "Maçã", "é"), ("", "2", "b")]


def test_parquet_gives_its_rows(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(DICTS), tmp_path / "trn.parquet")
    assert texts(tmp_path / "trn.parquet") == EXPECTED


def test_parquet_may_hold_columns_of_other_types_beside(tmp_path: Path) -> None:
    rows = [{"id": 7, "title": "A", "text": ["b", "c"], "image": b"\xff", "more": {"x": [1]}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "trn.parquet")
    assert texts(tmp_path / "trn.parquet") == [("7", "A", "b c")]


def test_a_folder_of_shards_is_read_in_sorted_order_and_hidden_files_are_not(tmp_path: Path) -> None:
    write(tmp_path / "b.csv", "title,text\nB,2\n")
    write(tmp_path / "a.jsonl.gz", '{"name": "A", "description": "1"}\n')
    pq.write_table(pa.Table.from_pylist([{"title": "C", "body": "3"}]), tmp_path / "c.parquet")
    for name in (".hidden.json", "_meta.json", "README.md"):
        write(tmp_path / name, "not a catalogue")
    assert texts(tmp_path) == [("", "A", "1"), ("", "B", "2"), ("", "C", "3")]


def test_a_data_set_as_an_object_gives_its_rows() -> None:
    import datasets

    assert texts(datasets.Dataset.from_list(DICTS)) == EXPECTED


def test_a_data_set_saved_to_disk_gives_its_rows(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list(DICTS).save_to_disk(tmp_path / "saved")
    assert texts(tmp_path / "saved") == EXPECTED


def test_a_saved_data_set_with_splits_asks_for_one_of_them(tmp_path: Path) -> None:
    import datasets

    datasets.DatasetDict(train=datasets.Dataset.from_list(DICTS)).save_to_disk(tmp_path / "saved")
    with pytest.raises(CatalogueError, match=r"holds the splits train; name one, for example .*/saved/train$"):
        Catalogue(tmp_path / "saved")
    assert texts(tmp_path / "saved" / "train") == EXPECTED


def test_an_iterable_of_mappings_gives_its_rows() -> None:
    assert texts(row for row in DICTS) == EXPECTED


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (7, "int: not a catalogue; accepted are a path, a data set, or an iterable of mappings"),
        ({"train": [], "test": []}, "dict: its parts are 'train', 'test'; give one of them, not all together"),
    ],
)
def test_an_object_without_rows_is_refused(source: object, message: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        Catalogue(source)
    assert str(caught.value) == message


def test_a_catalogue_can_be_streamed_twice_with_the_same_counts(write_lines: Callable[..., Path]) -> None:
    catalogue = Catalogue(write_lines([DICTS[0], "{", DICTS[1]]), ReadOptions(on_error="skip"))
    for _ in range(2):
        assert [row[:3] for row in catalogue.rows()] == EXPECTED
        assert catalogue.malformed_count == 1


@pytest.mark.parametrize("title", TITLE_COLUMNS)
def test_the_title_is_found_under_a_usual_name(title: str) -> None:
    assert texts([{title.upper(): "A", "text": "b"}]) == [("", "A", "b")]


@pytest.mark.parametrize("text", TEXT_COLUMNS)
def test_the_text_is_found_under_a_usual_name(text: str) -> None:
    assert texts([{"title": "A", f" {text} ": "b"}]) == [("", "A", "b")]


def test_portuguese_columns_are_found() -> None:
    assert texts([{"Código": 7, "Título": "A", "Descrição": "b", "Preço": 3}]) == [("7", "A", "b")]


def test_of_several_usual_names_the_first_in_the_list_is_taken() -> None:
    row = {"asin": "x", "id": "1", "uid": "2", "name": "n", "title": "A", "description": "b", "content": "c"}
    assert texts([row]) == [("2", "A", "c")]


def test_columns_asked_for_go_before_the_usual_names() -> None:
    options = {"id_column": "k", "title_column": "t", "text_column": "d"}
    assert texts([{"k": "9", "t": "A", "d": "b", "id": "1", "title": "no", "text": "no"}], **options) == [
        ("9", "A", "b")
    ]


def test_a_column_is_found_when_only_a_later_row_has_it() -> None:
    assert texts([{"title": "A"}, {"title": "B", "text": "b"}]) == [("", "A", ""), ("", "B", "b")]


def test_columns_are_found_after_many_malformed_rows(write_lines: Callable[..., Path]) -> None:
    assert texts(write_lines([*["{"] * 150, DICTS[0]]), on_error="skip") == EXPECTED[:1]


def test_missing_columns_are_all_named_with_those_found() -> None:
    with pytest.raises(CatalogueError) as caught:
        texts([{"a": 1, "b": 2}], id_column="c", title_column="d")
    assert str(caught.value) == (
        "list: no column 'c' (asked for with --id-column); no column 'd' (asked for with --title-column); "
        f"no column for the text (looked for {', '.join(TEXT_COLUMNS)}; name it with --text-column); "
        "the columns found are: 'a', 'b'"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"), (7, "7"), (2.5, "2.5"), (True, "True"), (None, ""), (float("nan"), ""),
        (["one", "two"], "one two"), (("one",), "one"), ([], ""),
    ],
)  # fmt: skip
def test_a_value_becomes_text(value: object, text: str) -> None:
    assert texts([{"title": "A", "text": value}]) == [("", "A", text)]


@pytest.mark.parametrize("value", [{"en": "x"}, [1, 2], [["x"]], b"bytes", np.zeros(2), object()])
def test_a_value_that_is_no_text_is_malformed(value: object) -> None:
    with pytest.raises(CatalogueError, match=r"^list: row 2: field 'text' holds a \w+; text, a number or a list of"):
        texts([{"title": "A", "text": "b"}, {"title": "A", "text": value}])


def test_an_integer_too_long_to_write_is_malformed() -> None:
    with pytest.raises(CatalogueError, match=r"^list: row 1: field 'text': Exceeds the limit \(4300 digits\)"):
        texts([{"title": "A", "text": 10**5000}])


def test_a_field_that_a_row_lacks_is_empty() -> None:
    assert texts([{"id": 1, "title": "A", "text": "b"}, {"title": "B"}])[1] == ("", "B", "")


def test_rows_carry_the_line_they_begin_at(tmp_path: Path) -> None:
    path = write(tmp_path / "trn.csv", 'title,text\nA,"1\n2"\n\nB,3\n')
    assert list(Catalogue(path).rows()) == [Row("", "A", "1\n2", 2), Row("", "B", "3", 5)]


def test_only_the_first_hundred_messages_are_kept_but_all_are_counted(write_lines: Callable[..., Path]) -> None:
    catalogue = Catalogue(write_lines([*["{"] * 130, DICTS[0]]), ReadOptions(on_error="skip"))
    assert len(list(catalogue.rows())) == 1
    assert (len(catalogue.malformed), catalogue.malformed_count) == (100, 130)


def test_rows_are_streamed_not_gathered() -> None:
    def endless() -> Iterator[dict[str, str]]:
        while True:
            yield DICTS[0]

    assert next(Catalogue(endless()).rows())[:3] == EXPECTED[0]


def test_a_line_beyond_16_mib_is_malformed_and_the_next_is_read(write_lines: Callable[..., Path]) -> None:
    path = write_lines([{"title": "A", "text": "x" * (1 << 24)}, DICTS[0]], "trn.json.gz")
    catalogue = Catalogue(path, ReadOptions(on_error="skip"))
    assert [row[:3] for row in catalogue.rows()] == EXPECTED[:1]
    assert catalogue.malformed == [f"{path}: line 1: longer than 16 MiB; one row a line is accepted"]


def test_the_fingerprint_changes_with_name_and_content(tmp_path: Path) -> None:
    names = {Catalogue(write(tmp_path / name, text)).fingerprint() for name in ("a.csv", "b.csv") for text in "xy"}
    assert len(names) == 4
    assert Catalogue([]).fingerprint() is None


def test_read_bytes_reaches_the_size_of_the_files(tmp_path: Path) -> None:
    catalogue = Catalogue(write(tmp_path / "trn.json.gz", JSON_TEXT))
    list(catalogue.rows())
    assert catalogue.read_bytes == catalogue.total_bytes == (tmp_path / "trn.json.gz").stat().st_size


def test_excels_own_line_names_the_delimiter(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("sep=;\nsku;name;description\n1;A, B;Text\n")
    assert [(row.id, row.title, row.text) for row in Catalogue(tmp_path / "c.csv").rows()] == [("1", "A, B", "Text")]


def test_what_to_do_about_a_malformed_row_is_one_of_two_words() -> None:
    with pytest.raises(InputError, match=r"^on_error must be stop or skip, not 'ignore'$"):
        ReadOptions(on_error="ignore")  # type: ignore[arg-type]


def test_a_gzipped_parquet_file_is_not_taken_for_a_catalogue(tmp_path: Path) -> None:
    write(tmp_path / "trn.parquet.gz", b"PAR1")
    with pytest.raises(CatalogueError, match=r"trn\.parquet\.gz: .*format not known by its name"):
        texts(tmp_path / "trn.parquet.gz")


def test_a_file_without_the_mark_that_its_encoding_begins_with_is_told(tmp_path: Path) -> None:
    write(tmp_path / "trn.jsonl", JSON_TEXT)
    with pytest.raises(CatalogueError, match=r"trn\.jsonl: .*not utf-16 .*does not start with BOM"):
        texts(tmp_path / "trn.jsonl", encoding="utf-16")


def test_a_decoder_that_does_not_say_which_byte_is_wrong_is_quoted_in_one_line() -> None:
    assert byte(UnicodeError("label too long\nmore")) == "label too long"
    assert byte(UnicodeDecodeError("utf-8", b"ab\xe9", 2, 3, "unexpected end")) == "byte 0xe9 at 2"
