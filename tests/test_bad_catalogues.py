"""Bad input and bad places, all through the command line: one line that helps, and nothing left behind."""

from __future__ import annotations

import gzip
import io
import json
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ragqa.catalogue.columns import TEXT_COLUMNS, TITLE_COLUMNS
from ragqa.catalogue.read import FORMATS
from ragqa.cli import main

GOOD = '{"uid": "1", "title": "A", "content": "text"}\n'
MEND = "; mend it, or leave such rows out with --on-error skip"

Run = Callable[..., str]


def gzipped(lines: int = 3000) -> bytes:
    noise = random.Random(0)
    rows = ({"title": f"Title {n}", "text": noise.randbytes(8).hex()} for n in range(1, lines + 1))
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0)


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"title": [f"T{n}" for n in range(9999)], "text": ["x"] * 9999}), buffer)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refusal(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `ragqa prepare` on content that it must refuse; gives the one line it said, without "error: "."""

    def run(name: str, content: str | bytes | None, *options: str, out: str = "out.csv") -> str:
        if content is not None:
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        before = sorted(folder.rglob("*"))
        assert main(["prepare", name, "--out", out, "--quiet", *options]) == 2
        printed, said = capsys.readouterr()
        assert printed == ""
        assert said.startswith("error: ")
        assert said.endswith("\n")
        assert said.count("\n") == 1
        assert sorted(folder.rglob("*")) == before
        return said.removeprefix("error: ").rstrip("\n")

    return run


def assert_says(said: str, expected: str) -> None:
    """`said` is what was expected; three dots stand for any beginning or end."""
    if expected.startswith("..."):
        assert said.endswith(expected[3:])
    elif expected.endswith("..."):
        assert said.startswith(expected[:-3])
    else:
        assert said == expected


CASES: dict[str, tuple[str, str | bytes | None, str]] = {
    "missing": ("no.json", None, f"no.json: no such file or folder; accepted are {FORMATS}"),
    "unknown ending": ("trn.xlsx", "x", f"trn.xlsx: format not known by its name; accepted are {FORMATS}"),
    "wrong columns": (
        "trn.json",
        '{"sku": 1, "price": 2}\n',
        f"trn.json: no column for the title (looked for {', '.join(TITLE_COLUMNS)}; name it with --title-column); "
        f"no column for the text (looked for {', '.join(TEXT_COLUMNS)}; name it with --text-column); "
        "the columns found are: 'sku', 'price'",
    ),
    "objects without fields": ("trn.json", "{}\n", "...the columns found are: none"),
    "half a JSON line": (
        "trn.json",
        GOOD + '{"uid":\n' + GOOD,
        f"trn.json: line 2: not valid JSON (Expecting value at column 8){MEND}",
    ),
    "a list on a line": (
        "trn.json",
        GOOD + "[1]\n",
        f"trn.json: line 2: an object with named fields is accepted, not a value of type list{MEND}",
    ),
    "a number on a line": (
        "trn.json",
        GOOD + "\n7\n",
        f"trn.json: line 3: an object with named fields is accepted, not a value of type int{MEND}",
    ),
    "a field that is no text": (
        "trn.json",
        GOOD + '{"title": {"en": "A"}, "content": "x"}\n',
        f"trn.json: line 2: field 'title' holds a dict; text, a number or a list of texts is accepted{MEND}",
    ),
    "an integer of 5,000 digits": (
        "trn.json",
        GOOD + '{"uid": ' + "9" * 5000 + "}\n",
        "trn.json: line 2: not valid JSON (Exceeds the limit (4300 digits) for integer string conversion...",
    ),
    "deep lists": ("trn.json", GOOD + "[" * 100_000 + "\n", "trn.json: line 2: not valid JSON (..."),
    "deep objects": ("trn.json", GOOD + '{"title":' * 100_000 + "\n", "trn.json: line 2: not valid JSON (..."),
    "one JSON array": (
        "my trn.jsonl",
        '\n [{"title": "A", "content": "x"}]',
        "my trn.jsonl: one JSON array; JSON lines are accepted, one object a line: convert it with "
        "cat 'my trn.jsonl' | jq -c '.[]' > 'my trn.lines.jsonl'",
    ),
    "one JSON array, gzipped": (
        "trn.json.gz",
        gzip.compress(b"[]"),
        "...gzip -dc trn.json.gz | jq -c '.[]' > trn.lines.jsonl",
    ),
    "empty": ("trn.json", "", "trn.json: no rows in it; a catalogue has rows with a title and a description each"),
    "a header alone": ("trn.csv", "title,text\n", "trn.csv: no rows in it; ..."),
    "empty gzip": ("trn.csv.gz", b"", "trn.csv.gz: no rows in it; ..."),
    "only empty descriptions": (
        "trn.json",
        GOOD.replace("text", " ") * 3,
        "trn.json: none of its 3 rows has both a title and a description (columns taken: {'id': 'uid', "
        "'title': 'title', 'text': 'content'}); name others with --title-column and --text-column",
    ),
    "gzip header alone": (
        "trn.csv.gz",
        gzipped()[:5],
        "trn.csv.gz: the gzip data end in the middle, after line 0; ...",
    ),
    "damaged gzip": ("trn.json.gz", gzipped()[:-8] + bytes(8), "trn.json.gz: not valid gzip data (CRC check failed..."),
    "not gzip": (
        "trn.json.gz",
        GOOD,
        "trn.json.gz: not valid gzip data (Not a gzipped file (b'{\"')); get the file anew, or drop .gz from its name",
    ),
    "gzip without the ending": ("trn.json", gzipped(), "trn.json: these are gzip data; add .gz to the file's name"),
    "latin-1": (
        "trn.json",
        (GOOD + GOOD.replace("A", "Maçã")).encode("latin-1"),
        "trn.json: line 2: not utf-8 (byte 0xe7 at 25); name the encoding, for example --encoding cp1252 or latin-1",
    ),
    "a latin-1 header": (
        "trn.csv",
        "título,descrição\na,b\n".encode("latin-1"),
        "trn.csv: line 1: not utf-8 (byte 0xed at 1); name the encoding, for example --encoding cp1252 or latin-1",
    ),
    "UTF-16": (
        "trn.json",
        GOOD.encode("utf-16"),
        "trn.json: line 1: not utf-8 (byte 0xff at 0); name the encoding, for example --encoding utf-16",
    ),
    "a CSV row too wide": (
        "trn.csv",
        "title,text\na,b\nc,d,e\n",
        f"trn.csv: line 3: 3 fields where the header has 2{MEND}",
    ),
    "a CSV row too narrow": ("trn.tsv", "title\ttext\na\n", f"trn.tsv: line 2: 1 fields where the header has 2{MEND}"),
    "an unterminated quote": (
        "trn.csv",
        'title,text\na,b\n"c,d\ne,f\ng,h\n',
        "trn.csv: line 3: not valid CSV (a quotation mark opened in this row is not closed before the file ends)"
        + MEND,
    ),
    "text after a quote": ("trn.csv", 'title,text\n"a"b,c\n', "trn.csv: line 2: not valid CSV (',' expected after..."),
    "carriage returns alone": (
        "trn.csv",
        "title,text\ra,b\r",
        "trn.csv: line 1: not valid CSV (a carriage return alone; lines that end in LF or CRLF are accepted)" + MEND,
    ),
    "no Parquet at all": ("trn.parquet", "PAR1 no PAR1", "trn.parquet: not a valid Parquet file (..."),
    "empty Parquet": ("trn.parquet", b"", "trn.parquet: not a valid Parquet file (..."),
    "a name too long": ("x" * 300 + ".json", None, "x" * 300 + ".json: ..."),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_catalogue_is_refused_in_one_line_that_helps(refusal: Run, case: str) -> None:
    name, content, expected = CASES[case]
    assert_says(refusal(name, content), expected)


def test_a_truncated_gzip_names_the_line_it_ends_after(refusal: Run) -> None:
    whole = gzipped()
    cut = whole[: len(whole) // 2]
    lines = zlib.decompressobj(wbits=31).decompress(cut).count(b"\n")
    assert 0 < lines < 3000
    assert refusal("trn.json.gz", cut) == (
        f"trn.json.gz: the gzip data end in the middle, after line {lines}; the file was cut short: get it anew, or "
        "take what is there with --on-error skip"
    )


def test_a_parquet_file_cut_or_damaged_anywhere_is_refused(refusal: Run) -> None:
    whole = parquet()
    for at in range(4, len(whole), len(whole) // 12):
        assert refusal("trn.parquet", whole[:at]).startswith("trn.parquet: not a valid Parquet file (")
    footer = len(whole) - int.from_bytes(whole[-8:-4], "little") - 8
    for at in (4, 40, footer, footer + 9):
        damaged = whole[:at] + b"\xff" * 30 + whole[at + 30 :]
        assert refusal("trn.parquet", damaged).startswith("trn.parquet: not a valid Parquet file (")


def test_parquet_text_that_is_not_utf_8_is_refused(refusal: Run) -> None:
    text = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))
    buffer = io.BytesIO()
    pq.write_table(pa.table({"title": ["A"], "text": text}), buffer)
    assert refusal("trn.parquet", buffer.getvalue()).startswith("trn.parquet: not a valid Parquet file ('utf-8' codec")


def test_nothing_but_malformed_rows_is_an_error_that_shows_the_first(refusal: Run) -> None:
    said = refusal("trn.json", GOOD.encode("utf-16"), "--on-error", "skip")
    assert said.startswith("trn.json: no rows in it but 2 malformed (first: trn.json: line 1: not utf-8")


def test_a_shard_that_points_nowhere_is_refused(refusal: Run, folder: Path) -> None:
    (folder / "shards").mkdir()
    (folder / "shards" / "a.json").symlink_to("nowhere")
    assert refusal("shards", None) == "shards/a.json: cannot be read (No such file or directory)"


def test_a_folder_without_a_catalogue_is_refused(refusal: Run, folder: Path) -> None:
    (folder / "shards").mkdir()
    assert refusal("shards", None) == f"shards: the folder holds no catalogue; accepted are {FORMATS}"


def test_a_missing_catalogue_is_named_also_where_an_older_result_lies(refusal: Run, folder: Path) -> None:
    (folder / "out.csv").write_text("old")
    assert refusal("no.json", None).startswith("no.json: no such file or folder; ")


def test_a_broken_saved_data_set_is_refused(refusal: Run, folder: Path) -> None:
    (folder / "saved").mkdir()
    (folder / "saved" / "state.json").write_text("{")
    assert refusal("saved", None).startswith("saved: not a whole data set as `datasets` saves it (")


def test_a_name_that_is_neither_a_file_nor_on_the_hub_says_both(refusal: Run) -> None:
    said = refusal("nobody/nothing", None)
    assert said.startswith("nobody/nothing: no such file, and no data set of that name could be read from the Hub (")
