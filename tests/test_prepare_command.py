"""`ragqa prepare` from end to end: what it says, what it skips, and places that cannot be written."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ragqa.catalogue.columns import Row
from ragqa.catalogue.read import Catalogue
from ragqa.cli import main
from tests.test_bad_catalogues import GOOD, assert_says, gzipped

ENDINGS = (".csv", ".jsonl", ".parquet")
ROWS = [{"uid": n, "title": f"Title {n} é", "content": f"Text {n}"} for n in range(9000)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def catalogue(folder: Path, write_lines: Callable[..., Path]) -> str:
    return write_lines(ROWS).name


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def report(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.with_name(path.name + ".report.json").read_text("utf-8"))
    return loaded


def test_it_says_what_it_did_and_where_that_is(catalogue: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", catalogue, "--out", "sub/out.csv", "-q"]) == 0
    printed, said = capsys.readouterr()
    assert said == ""
    assert printed.splitlines()[0] == "cleaned trn.json"
    assert printed.splitlines()[2] == "        9,000  products kept (0 of them had text to clean)"
    assert printed.splitlines()[-1] == "written: sub/out.csv and sub/out.csv.report.json"


def test_all_options_reach_the_cleaning(folder: Path) -> None:
    (folder / "trn.txt.csv").write_bytes("k;t;d\n7;Big MAÇÃ pie;One Two\n8;B;c\n".encode("latin-1"))
    options = "--id-column k --title-column t --text-column d --encoding latin-1 --limit 1 --lowercase"
    more = ["--max-title-chars", "9", "--max-description-chars", "3", "--pairs", "--template", "{title}?"]
    assert main(["prepare", "trn.txt.csv", "--out", "o.jsonl", "-q", *options.split(), *more]) == 0
    assert json.loads((folder / "o.jsonl").read_text("utf-8")) == {
        "id": "7", "title": "big maçã", "description": "one", "prompt": "big maçã?", "response": "one",
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_file_in_another_encoding_is_read_when_that_is_named(folder: Path, encoding: str) -> None:
    (folder / "trn.json").write_bytes('{"title": "Maçã", "text": "é"}\n{"title": "B", "text": "b"}\n'.encode(encoding))
    assert main(["prepare", "trn.json", "--out", "o.csv", "-q", "--encoding", encoding]) == 0
    assert [line.split(",")[1:] for line in (folder / "o.csv").read_text("utf-8").splitlines()[1:]] == [
        ["Maçã", "é"],
        ["B", "b"],
    ]


def test_skipped_rows_are_counted_and_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = GOOD.replace("A", "é").encode("latin-1")
    (folder / "trn.json").write_bytes(GOOD.encode() + b'{"uid":\n' + bad + b"[1]\n" + GOOD.replace("1", "2").encode())
    assert main(["prepare", "trn.json", "--out", "o.csv", "-q", "--on-error", "skip"]) == 0
    said = report(folder / "o.csv")
    assert (said["read"], said["kept"], said["malformed_count"]) == (2, 1, 3)
    assert said["malformed"] == [
        "trn.json: line 2: not valid JSON (Expecting value at column 8)",
        "trn.json: line 3: not utf-8 (byte 0xe9 at 23); name the encoding, for example --encoding cp1252 or latin-1",
        "trn.json: line 4: an object with named fields is accepted, not a value of type list",
    ]
    line = "            3  skipped: malformed (trn.json: line 2: not valid JSON (Expecting value at column 8))"
    assert line in capsys.readouterr().out.splitlines()


def test_skipping_takes_what_a_truncated_gzip_holds(folder: Path) -> None:
    (folder / "trn.json.gz").write_bytes(gzipped()[:20_000])
    assert main(["prepare", "trn.json.gz", "--out", "o.csv", "-q", "--on-error", "skip"]) == 0
    said = report(folder / "o.csv")
    assert said["malformed_count"] == 1
    assert f"after line {said['kept']};" in said["malformed"][0]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_malformed_row_far_down_leaves_nothing(
    catalogue: str, folder: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    with (folder / catalogue).open("a") as file:
        file.write("{\n")
    assert main(["prepare", catalogue, "--out", f"out{ending}", "-q"]) == 2
    assert capsys.readouterr().err.startswith("error: trn.json: line 9001: not valid JSON (")
    assert names(folder) == [catalogue]


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_interrupt_leaves_nothing(
    catalogue: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    whole = Catalogue.rows

    def interrupted(self: Catalogue) -> Iterator[Row]:
        for row in whole(self):
            if row.line == 8500:
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr(Catalogue, "rows", interrupted)
    assert main(["prepare", catalogue, "--out", f"out{ending}", "-q"]) == 130
    assert capsys.readouterr().err == "\ninterrupted; nothing was written\n"
    assert names(folder) == [catalogue]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_disk_that_fills_up_leaves_nothing(
    catalogue: str, folder: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, before[1]))
    try:
        status = main(["prepare", catalogue, "--out", f"out{ending}", "-q"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 2
    assert capsys.readouterr().err.startswith(f"error: no space left to write out{ending} (")
    assert names(folder) == [catalogue]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "error: no space left to write {0} ("),
        (errno.EACCES, "error: cannot write {0} (Permission denied); choose a folder of yours with --out\n"),
    ],
)
def test_a_refusal_of_the_system_at_the_end_leaves_nothing(
    catalogue: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    ending: str, number: int, message: str,
) -> None:  # fmt: skip
    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    assert main(["prepare", catalogue, "--out", f"out{ending}", "-q"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(message.format(f"out{ending}"))
    assert said.count("\n") == 1
    assert names(folder) == [catalogue]


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("file/out.csv", "cannot write file/out.csv (Not a directory); choose another place with --out"),
        ("file/sub/out.csv", "cannot write file/sub/out.csv (Not a directory); choose another place with --out"),
        (
            "x" * 300 + ".csv",
            "cannot write " + "x" * 300 + ".csv (File name too long); choose another place with --out",
        ),
        ("taken.csv", "cannot write taken.csv (Is a directory); choose another place with --out"),
        ("trn.json", "trn.json: the ending '.json' is not known; accepted are .jsonl, .csv, .parquet"),
        ("copy.csv", "copy.csv: this is the catalogue itself; choose another place with --out"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(
    catalogue: str, folder: Path, capsys: pytest.CaptureFixture[str], out: str, message: str
) -> None:
    (folder / "file").write_text("x")
    (folder / "taken.csv").mkdir()
    (folder / "copy.csv").symlink_to(catalogue)
    before = names(folder)
    assert main(["prepare", catalogue, "--out", out, "-q"]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert names(folder) == before


def test_progress_is_on_stderr_and_an_error_is_still_its_last_line(
    catalogue: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / catalogue).write_text(GOOD + "{\n")
    assert main(["prepare", catalogue, "--out", "out.csv"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: trn.json: line 2: not valid JSON (")


def test_a_screen_without_the_letters_and_a_name_that_is_no_text_are_no_obstacle(folder: Path) -> None:
    name = os.fsdecode(b"ma\xe7\xe3.json")
    (folder / name).write_text(json.dumps({"title": "’", "text": "’"}) + "\n" + '{"title": "’", "text": ""}\n')
    command = [sys.executable, "-m", "ragqa.prepare", name, "--out", "o.csv", "-q"]
    done = subprocess.run(command, capture_output=True, check=False, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"dropped: without a description (first: '\\u2019')" in done.stdout
    assert report(folder / "o.csv")["source"] == name


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--encoding", "klingon"], "unknown encoding 'klingon'; try utf-8, utf-16, cp1252 or latin-1"),
        (["--encoding", "base64"], "unknown encoding 'base64'; try utf-8, utf-16, cp1252 or latin-1"),
        (["--encoding", "undefined"], "unknown encoding 'undefined'; try utf-8, utf-16, cp1252 or latin-1"),
        (["--limit", "0"], "the limit must be a whole number of at least 1, not 0"),
        (["--limit", "-1"], "the limit must be a whole number of at least 1, not -1"),
        (["--limit", "x"], "argument --limit: invalid int value: 'x' (see ragqa prepare --help)"),
        (["--max-title-chars", "0"], "max_title_chars must be a whole number of at least 1, not 0"),
        (
            ["--text-column", "x"],
            "...no column 'x' (asked for with --text-column); the columns found are: 'uid', 'title', 'content'",
        ),
        (["--on-error", "ask"], "argument --on-error: invalid choice: 'ask' (choose from ..."),
        (["--pairs", "--template", "?"], "the template '?' has no {title} in it"),
    ],
)
def test_a_bad_option_is_refused(
    catalogue: str, folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], expected: str
) -> None:
    assert main(["prepare", catalogue, "--out", "o.csv", "-q", *options]) == 2
    assert_says(capsys.readouterr().err.removeprefix("error: ").rstrip(), expected)
    assert names(folder) == [catalogue]


def test_missing_arguments_are_named_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare"]) == 2
    assert capsys.readouterr().err == (
        "error: the following arguments are required: CATALOGUE, --out (see ragqa prepare --help)\n"
    )


def test_help_names_formats_defaults_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in ("JSON lines (.json, .jsonl), .csv", "(default: 2000)", "example: python -m ragqa.prepare"):
        assert part in shown
