"""The command line: help, exit status, one line for every mistake."""

import argparse
import gzip
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ragqa import Answerer, cli
from ragqa.cli import COMMANDS, main
from ragqa.index.generations import live_generation
from tests.conftest import ROOT

Captured = pytest.CaptureFixture[str]


def fails(arguments: list[str], capsys: Captured) -> str:
    """Run a command that must fail with status 2 and one line on stderr; returns the line."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, captured.err
    assert captured.err.splitlines()[-1] == lines[0]
    assert "Traceback" not in captured.err
    return lines[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_ends_in_an_example_that_parses(name: str, capsys: Captured) -> None:
    assert main([name, "--help"]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("example: python -m ragqa."), last
    words = shlex.split(last.removeprefix("example: "))
    assert words[2] == f"ragqa.{name.replace('-', '_')}"


def test_the_overview_names_every_command(capsys: Captured) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ragqa 0.")


def test_an_unknown_command_or_option_is_told(capsys: Captured) -> None:
    assert f"no command 'asc'; there are {', '.join(COMMANDS)} (see ragqa --help)" in fails(["asc"], capsys)
    assert "unrecognized arguments: --topk 3" in fails(["ask", "x", "q", "--topk", "3"], capsys)
    assert "see ragqa ask --help" in fails(["ask"], capsys)


def test_a_missing_index_is_told_with_the_command_that_builds_it(tmp_path: Path, capsys: Captured) -> None:
    assert "no such index; build it: python -m ragqa.build_index" in fails(["ask", str(tmp_path / "no"), "q"], capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["  "], "the question is empty"),
        (["a" * 100_000], "100,000 characters; at most 4,000 are accepted (--max-question-chars)"),
        (["q", "--top-k", "0"], "top_k must be a whole number of at least 1"),
        (["q", "--min-confidence", "7"], "min_confidence must be from 0 to 1"),
        (["q", "--device", "cuda:9"], "'cuda:9' is not on this machine"),
        (["q", "--dtype", "int8"], "unknown dtype 'int8'"),
        (["lumen 350", "--generator", "no/such"], "no/such: not in the Hub's cache"),
        (["lumen 350", "--adapter", "nowhere"], "nowhere: no LoRA adapter in this folder"),
        (["q", "--embedder", "nowhere"], "nowhere: no such folder"),
        (["q", "--reranker", "nowhere"], "nowhere: no such folder"),
        (["q", "--rerank-depth", "-1"], "rerank_depth must be a whole number of at least 0"),
        (["q", "--rerank-depth", "9"], "--rerank-depth: there is no reranker; name one with --reranker"),
    ],
)
def test_a_mistake_in_a_question_or_option_is_one_line(
    arguments: list[str], message: str, demo_index: Path, capsys: Captured
) -> None:
    assert message in fails(["ask", str(demo_index), *arguments], capsys)


def test_a_damaged_index_is_one_line(own_index: Path, capsys: Captured) -> None:
    part = live_generation(own_index) / "vectors.faiss"
    content = bytearray(part.read_bytes())
    content[1000] ^= 1
    part.write_bytes(content)
    assert "vectors.faiss: its content changed" in fails(["ask", str(own_index), "q"], capsys)


def test_build_index_names_its_mistakes_and_leaves_nothing(tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "out"
    catalogue = tmp_path / "c.json"
    catalogue.write_text('{"title": "a", "content": "b"}\n{"title": \n')
    arguments = ["build-index", str(catalogue), "--out", str(out)]
    assert f"{catalogue}: line 2: not valid JSON" in fails(arguments, capsys)
    assert not out.exists()
    assert "no/such: not in the Hub's cache" in fails([*arguments, "--embedder", "no/such"], capsys)
    assert not out.exists()
    for text, given in (
        ("lots", ["--max-memory", "lots"]),
        ("above 0", ["--max-memory", "0"]),
        ("at most 1", ["--min-recall", "95"]),
    ):
        assert text in fails([*arguments, *given], capsys)
    assert "--name '../x'" in fails(["build-index", str(catalogue), "--name", "../x"], capsys)


def test_build_index_skips_malformed_rows_when_told_to(tmp_path: Path, capsys: Captured) -> None:
    catalogue = tmp_path / "c.json"
    catalogue.write_text('{"title": "a", "content": "b"}\n{"title": \n')
    out = tmp_path / "out"
    assert main(["build-index", str(catalogue), "--out", str(out), "--on-error", "skip"]) == 0
    captured = capsys.readouterr()
    assert "1  skipped: malformed" in captured.err
    assert f"{out}: 1 products" in captured.out
    assert json.loads((live_generation(out) / "cleaning.json").read_text())["malformed_count"] == 1


def test_the_index_is_named_after_the_catalogue(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toys").mkdir()
    row = b'{"title": "a", "content": "b"}\n'
    (tmp_path / "toys" / "trn.json.gz").write_bytes(gzip.compress(row))
    (tmp_path / "My shop.jsonl").write_bytes(row)
    assert main(["build-index", "toys/trn.json.gz", "-q"]) == 0
    assert main(["build_index", "My shop.jsonl", "-q"]) == 0
    assert {path.name for path in (tmp_path / "indexes").iterdir()} == {"toys", "My-shop"}


def test_json_output_is_one_object_a_question(demo_index: Path, capsys: Captured) -> None:
    questions = ["lumen headlamp LT-350", "chainsaw"]
    assert main(["ask", str(demo_index), "-q", questions[0], "--json", "--top-k", "2", questions[1]]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["question"] for answer in found] == questions
    assert [answer["abstained"] for answer in found] == [False, True]
    assert [len(answer["sources"]) for answer in found] == [2, 2]
    assert "prompt" not in found[0]


def test_the_prompt_is_shown_when_asked_for(demo_index: Path, capsys: Captured) -> None:
    assert main(["ask", str(demo_index), "lumen headlamp LT-350", "--show-prompt", "-q"]) == 0
    out = capsys.readouterr().out
    assert "<|im_start|>user" in out
    assert "Question: lumen headlamp LT-350" in out


def test_an_answer_is_explained_with_its_sources_and_probabilities(demo_index: Path, capsys: Captured) -> None:
    assert main(["ask", str(demo_index), "lumen headlamp LT-350", "--explain", "--timings", "-q"]) == 0
    told = capsys.readouterr()
    answer = Answerer.from_pretrained(demo_index).ask("lumen headlamp LT-350", decoding="copy")
    assert f"A: [1: {answer.text}]" in told.out
    assert "100% of it is copied:" in told.out
    assert re.search(rf"   0-{len(answer.text)}: \[1\] 0-{len(answer.text)}, \d+% a token", told.out)
    assert re.search(r"import \d+\.\d\d s, open index and embedder \d+\.\d\d s", told.err)
    assert re.search(r"\d+\.\d\d s since the start", told.err)


def test_without_a_question_questions_are_read_a_line_each(demo_index: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ragqa.ask", str(demo_index), "-q"],
        input=f"Lumen Trail Headlamp LT-350\n\n{'x' * 5000}\nThe Lighthouse Keeper's Kittens\n",
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.stdout.count("Q: ") == 2, done.stderr
    assert "error: the question has 5,0" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 2


def test_a_broken_pipe_is_no_traceback(demo_index: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -m ragqa.ask {shlex.quote(str(demo_index))} a b c -q | head -c 1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_an_interrupt_ends_with_status_130_and_says_how_to_go_on(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ragqa.index.build.build_index", interrupt)
    assert main(["build-index", str(tmp_path), "--out", str(tmp_path / "x")]) == 130
    assert "interrupted; the same command goes on from what" in capsys.readouterr().err


def test_an_option_leaves_the_other_settings_of_a_saved_answerer_as_they_were(
    demo_index: Path, tmp_path: Path, capsys: Captured
) -> None:
    from ragqa import Answerer, AnswerSettings

    settings = AnswerSettings(min_confidence=0.0, top_k=3)
    Answerer.from_pretrained(demo_index, settings=settings).save_pretrained(tmp_path / "saved")
    assert main(["ask", str(tmp_path / "saved"), "chainsaw", "--json", "-q", "--max-new-tokens", "20"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["abstained"], len(answer["sources"])) == (False, 3)


class Command:
    """A command of which several processes do the work."""

    EXAMPLE = ""
    AFTER_INTERRUPT = "the same command goes on"
    PROCESSES = True

    def __init__(self, run: Callable[[object], int]) -> None:
        self.run = run

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--quiet", action="store_true")


def interrupted(chosen: object) -> int:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("helper", "said"), [(False, "error: unrecognized arguments: --no"), (True, "")])
def test_of_several_processes_the_first_alone_tells_a_mistake_and_the_others_wait(
    helper: bool, said: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[bool] = []
    monkeypatch.setattr(cli, "is_helper", lambda: helper)
    monkeypatch.setattr(cli, "wait_to_be_ended", lambda: waited.append(True))
    assert cli.run_module(Command(interrupted), ["--no"], "ragqa x") == 2
    assert capsys.readouterr().err.partition(" (see")[0] == said
    assert waited == [True] * helper


@pytest.mark.parametrize(("helper", "said"), [(False, "\ninterrupted; the same command goes on\n"), (True, "")])
def test_of_several_processes_the_first_alone_tells_an_interrupt(
    helper: bool, said: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "is_helper", lambda: helper)
    assert cli.run_module(Command(interrupted), [], "ragqa x") == 130
    assert capsys.readouterr().err == said


def test_a_helper_that_is_asked_for_help_does_not_wait(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "is_helper", lambda: True)
    monkeypatch.setattr(cli, "wait_to_be_ended", lambda: pytest.fail("it waits"))
    assert cli.run_module(Command(interrupted), ["--help"], "ragqa x") == 0
    assert capsys.readouterr().out.startswith("usage: ragqa x")


def test_a_command_runs_where_its_output_is_gathered_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gathered = io.StringIO()
    monkeypatch.setattr(sys, "stdout", gathered)

    def tell(chosen: object) -> int:
        print("told")
        return 7

    assert cli.run_module(Command(tell), ["--quiet"], "ragqa x") == 7
    assert gathered.getvalue() == "told\n"
