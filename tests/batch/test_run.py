"""A file of questions in, a Parquet file of answers out: every format, every interruption."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.toys import rows, toy_answerer, toy_embedder
from ragqa import Answerer, build_index
from ragqa.batch import questions as questions_
from ragqa.batch.questions import QuestionFile, QuestionStore
from ragqa.batch.run import answer_file, here
from ragqa.catalogue.columns import ReadOptions
from ragqa.cli import main
from ragqa.errors import CatalogueError, IndexDamagedError, InputError, StorageError, TimeLimitError
from ragqa.files import HashingFile

ASKED = [
    f"{colour} {thing} {number}" for colour in ("red", "blue") for thing in ("lamp", "kettle") for number in range(3)
]


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> Answerer:
    folder = tmp_path_factory.mktemp("toy")
    with toy_embedder(folder / "model"):
        return toy_answerer(build_index(rows(1, 60), folder / "index"), min_confidence=0.1)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions_, "SIZE", 5)


def text(folder: Path) -> Path:
    path = folder / "q.txt"
    path.write_text("\n".join(ASKED) + "\n\n")
    return path


def asked(answerer: Answerer, source: Path, out: Path, **options: Any) -> list[dict[str, Any]]:
    answer_file(QuestionFile(str(source), ReadOptions(**options), 4000), out, here(answerer, {}), {})
    return pq.read_table(out).to_pylist()


def test_answers_are_those_of_ask_many_in_the_order_of_the_questions(answerer: Answerer, tmp_path: Path) -> None:
    found = asked(answerer, text(tmp_path), tmp_path / "a.parquet")
    assert [row["number"] for row in found] == list(range(1, 13))
    for row, answer in zip(found, answerer.ask_many(ASKED), strict=True):
        assert (row["question"], row["text"], row["confidence"]) == (answer.question, answer.text, answer.confidence)
        assert [one["id"] for one in row["sources"]] == [source.id for source in answer.sources]
        assert [one["cited"] for one in row["sources"]] == [source.cited for source in answer.sources]
    assert {path.name for path in tmp_path.iterdir()} == {"a.parquet", "q.txt"}, "no remains"


def test_every_format_gives_the_same_answers(answerer: Answerer, tmp_path: Path) -> None:
    expected = [row["text"] for row in asked(answerer, text(tmp_path), tmp_path / "a.parquet")]
    ids = [f"q{i}" for i in range(len(ASKED))]
    records = [{"id": id_, "question": question} for id_, question in zip(ids, ASKED, strict=True)]
    (tmp_path / "q.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in records).encode()))
    (tmp_path / "q.csv").write_text("id;pergunta\n" + "".join(f"{r['id']};{r['question']}\n" for r in records))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "q.parquet")
    for name in ("q.jsonl.gz", "q.csv", "q.parquet"):
        found = asked(answerer, tmp_path / name, tmp_path / "a.parquet")
        assert [row["text"] for row in found] == expected
        assert [row["id"] for row in found] == ids


def test_interrupted_work_is_gone_on_with_and_ends_the_same(answerer: Answerer, tmp_path: Path) -> None:
    source, out = text(tmp_path), tmp_path / "a.parquet"
    whole = asked(answerer, source, tmp_path / "whole.parquet")
    called: list[int] = []

    def broken(after: int) -> Callable[..., Iterator[tuple[int, pa.Table]]]:
        def ask(store: Any, numbers: Any) -> Iterator[tuple[int, pa.Table]]:
            for number, table in here(answerer, {})(store, numbers):
                if len(called) == after:
                    raise KeyboardInterrupt
                called.append(number)
                yield number, table

        return ask

    questions = QuestionFile(str(source), ReadOptions(), 4000)
    with pytest.raises(KeyboardInterrupt):
        answer_file(questions, out, broken(2), {"index": "1"})
    assert not out.exists()
    damaged = tmp_path / ".a.parquet.partial" / "answers-00000001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    called.clear()
    done = answer_file(questions, out, broken(99), {"index": "1"})
    assert called == [1, 2], "the whole block is not asked again, the damaged one is"
    assert (done.questions, done.asked) == (12, 7)
    assert pq.read_table(out).to_pylist() == whole
    called.clear()
    with pytest.raises(KeyboardInterrupt):
        answer_file(questions, out, broken(1), {"index": "1"})
    called.clear()
    answer_file(questions, out, broken(99), {"index": "2"})
    assert called == [0, 1, 2], "answers from another index are not taken"


def test_a_question_that_cannot_be_asked_stops_or_is_counted(answerer: Answerer, tmp_path: Path) -> None:
    source = tmp_path / "q.jsonl"
    source.write_text('{"question": "red lamp 3"}\n{"question": " "}\n{"question": 7}\n')
    with pytest.raises(CatalogueError, match=r"q.jsonl: line 2: .*empty.*--on-error skip"):
        asked(answerer, source, tmp_path / "a.parquet")
    assert {path.name for path in tmp_path.iterdir()} == {"q.jsonl"}, "nothing is left of it"
    source.write_text(source.read_text() + '{"question": "\n')
    done = answer_file(
        QuestionFile(str(source), ReadOptions(on_error="skip"), 4000), tmp_path / "a.parquet", here(answerer, {}), {}
    )
    assert (done.questions, done.malformed) == (2, 2)
    assert "q.jsonl: line 4" in done.first_malformed, "the first hundred rows are looked at for their columns before"
    assert [row["number"] for row in pq.read_table(tmp_path / "a.parquet").to_pylist()] == [1, 3]


def test_what_was_not_answered_in_time_has_an_error_and_the_rest_an_answer(
    answerer: Answerer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_many = Answerer.ask_many

    def slow(self: Answerer, questions: Any, **settings: Any) -> Any:
        if "red kettle 1" in questions:
            raise TimeLimitError("no time left")
        return ask_many(self, questions, **settings)

    monkeypatch.setattr(Answerer, "ask_many", slow)
    found = asked(answerer, text(tmp_path), tmp_path / "a.parquet")
    assert [row["question"] for row in found if row["error"]] == ["red kettle 1"]
    assert all(row["error"] or row["text"] for row in found)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.csv", "what\nred lamp\n", "no column for the question .*--question-column.*the columns found are: 'what'"),
        ("q.txt", "\n", "no questions in it"),
        ("q.pdf", "x", "format not known by its name; accepted are JSON lines .* .txt"),
        ("q.json", '["red lamp"]\n', "one JSON array; JSON lines are accepted"),
    ],
)
def test_a_file_of_no_questions_is_told(
    name: str, content: str, message: str, answerer: Answerer, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        asked(answerer, tmp_path / name, tmp_path / "a.parquet")
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_a_place_that_cannot_hold_the_answers_is_told(
    answerer: Answerer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = text(tmp_path)
    with pytest.raises(InputError, match=r"a name that ends in \.parquet"):
        asked(answerer, source, tmp_path / "a.csv")
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(InputError, match="a folder stands there"):
        asked(answerer, source, tmp_path / "folder.parquet")
    with pytest.raises(StorageError, match="cannot write"):
        asked(answerer, source, source / "a.parquet")
    write = HashingFile.write

    def full(self: HashingFile, data: Any) -> int:
        if "answers" in self.path.name:
            raise OSError(28, "No space left on device")
        return write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(HashingFile, "write", full)
        with pytest.raises(StorageError, match="no space left to write"):
            asked(answerer, source, tmp_path / "a.parquet")
    assert len(asked(answerer, source, tmp_path / "a.parquet")) == len(ASKED)


def test_a_data_set_that_was_saved_to_disk_is_no_file_of_questions(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list([{"question": "red lamp 3"}]).save_to_disk(tmp_path / "saved")
    with pytest.raises(CatalogueError, match=r"/saved: no file of questions; accepted are JSON lines .*\.txt"):
        QuestionFile(str(tmp_path / "saved"), ReadOptions(), 4000)
    (tmp_path / "none").mkdir()
    with pytest.raises(CatalogueError, match=r"/none: the folder holds no file of questions; accepted are JSON lines"):
        QuestionFile(str(tmp_path / "none"), ReadOptions(), 4000)


def test_the_column_that_is_named_goes_before_the_usual_one(answerer: Answerer, tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("question,mine\nsubmarine,red lamp 3\n")
    (row,) = asked(answerer, tmp_path / "q.csv", tmp_path / "a.parquet", title_column="mine")
    assert row["question"] == "red lamp 3"
    message = r"q\.csv: no column 'his' \(asked for with --question-column\); the columns found are: 'question', "
    with pytest.raises(CatalogueError, match=message):
        asked(answerer, tmp_path / "q.csv", tmp_path / "a.parquet", title_column="his")


def test_a_line_of_a_text_that_cannot_be_decoded_stops_or_is_passed_over(answerer: Answerer, tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_bytes(b"red lamp 3\nl\xe2mpada\nblue kettle 1\n")
    with pytest.raises(CatalogueError, match=r"q\.txt: line 2: not utf-8 \(byte 0xe2 at 1\)"):
        asked(answerer, tmp_path / "q.txt", tmp_path / "a.parquet")
    found = asked(answerer, tmp_path / "q.txt", tmp_path / "a.parquet", on_error="skip")
    assert [row["question"] for row in found] == ["red lamp 3", "blue kettle 1"]


def test_laid_out_questions_that_are_not_whole_are_refused_and_whole_ones_come_in_blocks(tmp_path: Path) -> None:
    laid = tmp_path / "laid.arrow"
    questions_.write_questions(QuestionFile(str(text(tmp_path)), ReadOptions(), 4000), laid)
    blocks = list(QuestionStore(laid))
    assert [len(block.questions) for block in blocks] == [5, 5, 2]
    assert [question for block in blocks for question in block.questions] == ASKED
    laid.write_bytes(laid.read_bytes()[:-20])
    with pytest.raises(IndexDamagedError, match=r"laid\.arrow: not whole \(.*\); remove it, and ask anew"):
        QuestionStore(laid)


@pytest.mark.weights
def test_the_command_answers_a_file(demo_index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "q.csv").write_text("id,question\na,Lumen headlamp LT-350\nb,the Husker chainsaw\n")
    given = ["ask-many", str(demo_index), str(tmp_path / "q.csv"), "--decoding", "copy", "--quiet"]
    assert main([*given, "--out", str(tmp_path / "a.parquet")]) == 0
    assert "2 answers, 1 of them that there is none; 2 asked in" in capsys.readouterr().out
    found = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [(row["id"], row["abstained"]) for row in found] == [("a", False), ("b", True)]
    assert "Lumen" in found[0]["sources"][0]["title"]
    assert main([*given, "--out", str(tmp_path / "a.parquet"), "--workers", "2"]) == 2
    assert "error: --workers: is for Ray; add --engine ray" in capsys.readouterr().err
