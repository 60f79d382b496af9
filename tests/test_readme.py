"""What the documents say is what the program does."""

import importlib
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
PORTUGUESE = (ROOT / "README.pt-BR.md").read_text("utf-8")
DOCUMENTS = ("README.md", "README.pt-BR.md", "CONTRIBUTING.md", "indexes/README.md", "benchmarks/README.md", "docs/process.md", "docs/deploy.md", "docs/reliability.md", "docs/scale.md")  # fmt: skip


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


def arguments(line: str) -> tuple[str, ...]:
    """What ragqa is given by `ragqa fine-tune ...`, or by `python -m ragqa.fine_tune ...`."""
    words = shlex.split(line.removeprefix("example: "))
    if words[0] == "python":
        words = ["ragqa", words[2].removeprefix("ragqa.").replace("_", "-"), *words[3:]]
    return tuple(words[1:])


EXAMPLES = [importlib.import_module(module).EXAMPLE for module, _ in COMMANDS.values()]
# tests/comparison/test_smoke.py runs the benchmark, tests/serving/test_process.py the service.
RUN_ELSEWHERE = ("benchmark", "serve")


def test_the_readme_shows_every_command() -> None:
    shown = {line.split()[1] for line in COMMAND_LINES if line.startswith("ragqa ")}
    assert shown == set(COMMANDS)


# In the order of the README, since one makes what the next one takes; what both have is run once.
@pytest.mark.parametrize("given", dict.fromkeys(map(arguments, [*COMMAND_LINES, *EXAMPLES])), ids=" ".join)
def test_a_command_of_the_readme_or_of_a_help_runs_as_written(given: tuple[str, ...], folder: Path) -> None:
    if given[0] in RUN_ELSEWHERE:
        assert given in map(arguments, COMMAND_LINES), "the README and the help have the same one"
        return
    done = run([sys.executable, "-m", "ragqa.cli", *given], folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def commands_of(document: str) -> list[str]:
    """The code blocks of a README, without comments, which may be translated."""
    found = re.findall(r"^```(\w+\n.*?)^```", document, re.DOTALL | re.MULTILINE)
    return [re.sub(r"[ \t]+#.*$", "", block, flags=re.MULTILINE) for block in found]


def test_the_portuguese_readme_has_the_same_commands_in_the_same_order() -> None:
    ours, theirs = commands_of(README), commands_of(PORTUGUESE)
    lacking, beside = [b for b in ours if b not in theirs], [b for b in theirs if b not in ours]
    assert not lacking, f"README.pt-BR.md lacks this block of README.md:\n{lacking[0]}"
    assert not beside, f"README.pt-BR.md has a block that README.md has not:\n{beside[0]}"
    assert ours == theirs, "the blocks of README.pt-BR.md are in another order than those of README.md"


def test_the_portuguese_readme_has_the_same_sections() -> None:
    levels = [
        re.findall(r"^(#+) ", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.M)
        for text in (README, PORTUGUESE)
    ]
    assert levels[0] == levels[1], "README.md and README.pt-BR.md have other sections"


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


def test_the_table_and_picture_of_decoding_are_made_from_the_committed_result(tmp_path: Path) -> None:
    from benchmarks import decoding

    result = json.loads(decoding.RESULT.read_text("utf-8"))
    assert f"<!-- decoding -->\n{decoding.table(result)}\n<!-- /decoding -->" in decoding.README.read_text("utf-8")
    assert decoding.row(result) in README
    decoding.draw(result, tmp_path / "drawn.svg")
    assert decoding.PICTURE.read_text("utf-8") == (tmp_path / "drawn.svg").read_text("utf-8")


def test_the_table_of_the_sweep_is_made_from_the_committed_result() -> None:
    from benchmarks import sweep_report

    table = sweep_report.table(json.loads(sweep_report.RESULT.read_text("utf-8")))
    for page in sweep_report.PAGES:
        assert f"<!-- sweep -->\n{table}\n<!-- /sweep -->" in page.read_text("utf-8")


def test_the_table_of_the_service_is_made_from_the_committed_result() -> None:
    from benchmarks import service_report

    table = service_report.table(json.loads(service_report.RESULT.read_text("utf-8")))
    assert f"<!-- service -->\n{table}\n<!-- /service -->" in service_report.README.read_text("utf-8")


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
    for name in DOCUMENTS:
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
