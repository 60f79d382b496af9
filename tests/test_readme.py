"""What the documents say is what the program does."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ragqa.cli import COMMANDS
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def run(arguments: list[str], cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, check=False, timeout=600, input=stdin)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, demo_index: Path) -> Path:
    """A newcomer's folder: the examples, and the index the demo builds."""
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "indexes").mkdir()
    shutil.copytree(demo_index, folder / "indexes" / "demo")
    return folder


COMMAND_LINES = [
    line for block in blocks("bash") for line in block.splitlines() if line.startswith(("ragqa ", "python -m ragqa."))
    and "my_products" not in line
]  # fmt: skip


def test_the_readme_shows_every_command() -> None:
    shown = {line.split()[1] for line in COMMAND_LINES if line.startswith("ragqa ")}
    assert shown == set(COMMANDS)


# tests/evaluation/test_smoke.py runs the benchmark.
@pytest.mark.parametrize("line", [line for line in COMMAND_LINES if not line.startswith("ragqa benchmark ")])
def test_a_command_of_the_readme_runs_as_written(line: str, folder: Path) -> None:
    words = shlex.split(line)
    done = run([sys.executable, "-m", "ragqa.cli", *words[1:]], folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_python_of_the_readme_runs_as_written(folder: Path) -> None:
    (code,) = blocks("python")
    done = run([sys.executable, "-c", code + "\nprint(answer.sources[0].title, answer.sources[0].score)"], folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "Rede de Dormir Casal Maracatu, Azul 1.0"


def test_the_answer_the_readme_prints_is_the_one_given(folder: Path) -> None:
    (printed,) = blocks("text")
    question = printed.splitlines()[0].removeprefix("Q: ")
    done = run([sys.executable, "-m", "ragqa.ask", "indexes/demo", question, "--top-k", "3", "-q"], folder)
    # Times, and the digits of scores, depend on the machine and its number format.
    varying = re.compile(r"confidence .*|score \d\.\d\d")
    assert varying.sub("", done.stdout).strip() == varying.sub("", printed).strip()


def test_a_users_own_csv_is_built_and_asked_as_the_readme_says(folder: Path) -> None:
    (folder / "my_products.csv").write_text("sku;nome;descrição\n1;Chaleira Azul;Ferve 1,7 litro.\n2;Bule;De ágata.\n")
    built = run([sys.executable, "-m", "ragqa.build_index", "my_products.csv", "--out", "mine"], folder)
    assert built.returncode == 0, built.stderr
    asked = run([sys.executable, "-m", "ragqa.ask", "mine", "Qual é a descrição da chaleira azul?", "--json"], folder)
    assert json.loads(asked.stdout)["text"] == "Ferve 1,7 litro."


def test_the_example_runs_as_it_stands(demo_index: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "01_ask.py").write_bytes((ROOT / "examples" / "01_ask.py").read_bytes())
    (tmp_path / "examples" / "catalogue").symlink_to(ROOT / "examples" / "catalogue")
    done = run([sys.executable, "examples/01_ask.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("source: ") == 3
    assert done.stdout.count("nearest: ") == 1
    assert "source: Marisol Girls' Flamenco Skirt, Red (RQO6GUF6A8)" in done.stdout


def test_the_first_thirty_lines_show_commands_an_answer_and_a_result() -> None:
    first = "\n".join(README.splitlines()[:30])
    assert all(part in first for part in ("make demo", "Q: ", "A: ", "sources:", "Measured"))


def test_the_tables_are_made_from_the_committed_result() -> None:
    from benchmarks import road

    result = json.loads(road.RESULT.read_text("utf-8"))
    assert road.row(result) in README
    assert road.table(result) in road.README.read_text("utf-8")


def test_the_tables_of_fine_tuning_are_made_from_the_committed_results() -> None:
    from benchmarks import training

    page = training.README.read_text("utf-8")
    assert training.table(json.loads(training.RESULT.read_text("utf-8"))) in page


def test_the_tables_of_retrieval_are_made_from_the_committed_result() -> None:
    from benchmarks import retrieval_report

    table = retrieval_report.table(json.loads(retrieval_report.RESULT.read_text("utf-8")))
    assert f"<!-- retrieval -->\n{table}\n<!-- /retrieval -->" in retrieval_report.README.read_text("utf-8")


def test_the_table_of_the_sweep_is_made_from_the_committed_result() -> None:
    from benchmarks import sweep_report

    table = sweep_report.table(json.loads(sweep_report.RESULT.read_text("utf-8")))
    for page in sweep_report.PAGES:
        assert f"<!-- sweep -->\n{table}\n<!-- /sweep -->" in page.read_text("utf-8")


PROCESS_LINES = re.findall(r"^python -m (.+)$", (ROOT / "docs" / "process.md").read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("line", PROCESS_LINES)
def test_the_options_of_the_commands_of_the_process_are_there(line: str) -> None:
    module, *words = shlex.split(line)
    done = run([sys.executable, "-m", module, "--help"], ROOT)
    assert done.returncode == 0, done.stderr
    options = set(re.findall(r"--[a-z-]+", done.stdout))
    assert {word for word in words if word.startswith("--")} <= options


def test_every_target_of_the_makefile_is_in_its_help() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert targets
    assert set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)) == set(targets[1].split())


def test_links_of_the_documents_lead_somewhere() -> None:
    for name in ("README.md", "indexes/README.md", "benchmarks/README.md", "docs/process.md", "docs/reliability.md"):
        document = ROOT / name
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_results_of_the_comparison_are_made_from_the_committed_files() -> None:
    from benchmarks import answers

    page = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    for name, reading in answers.kept().items():
        assert answers.section(name, reading) in page
        assert answers.row(name, reading) in README
        assert (answers.RESULTS / name / "report.html").is_file()
