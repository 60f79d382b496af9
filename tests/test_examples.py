"""The examples run as they stand, on the demonstration index, the trained ones by one step each."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("0*"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, demo_index: Path) -> Path:
    """A folder with the examples and the index that they would build, with toy sizes."""
    home = tmp_path_factory.mktemp("examples")
    shutil.copytree(ROOT / "examples", home / "examples")
    shutil.copytree(demo_index, home / "indexes" / "demo")
    return home


def run(name: str, home: Path) -> str:
    done = subprocess.run(
        [sys.executable, f"examples/{name}"],
        cwd=home, env=os.environ | {"RAGQA_TOY": "1"}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_are_these_and_each_is_short() -> None:
    assert [name[:2] for name in EXAMPLES] == ["01", "02", "03", "04", "05", "06", "07"]
    lengths = {path.name: len(path.read_text("utf-8").splitlines()) for path in (ROOT / "examples").glob("*.py")}
    assert {name: length for name, length in lengths.items() if length >= 60} == {}


def test_01_asks(home: Path) -> None:
    out = run("01_ask.py", home)
    assert out.count("source: ") == 3
    assert out.count("nearest: ") == 1
    assert "source: Marisol Girls' Flamenco Skirt, Red (RQO6GUF6A8)" in out


def test_02_builds_from_a_csv_and_updates(home: Path) -> None:
    out = run("02_your_own_csv.py", home)
    assert out.splitlines() == [
        "11 products; the one without a description was left out",
        "Q: Qual é a descrição da garrafa térmica?",
        "A: Mantém quente por doze horas e frio por vinte. A tampa é o copo, a rolha abre com uma mão só.",
        "0 added, 1 changed, 0 deleted, 10 as before",
        "A: Garrafa Minuano, 2 L",
    ]


def test_03_prepares_the_form_of_lf_amazon(home: Path) -> None:
    out = run("03_prepare_lf_amazon.py", home)
    assert "320 rows of id, title, description, prompt, response" in out
    assert "prompt: What is the description of " in out


def test_04_fine_tunes_both_ways(home: Path) -> None:
    out = run("04_fine_tune.py", home)
    for mode in ("plain", "retrieval"):
        assert re.search(rf"^{mode}: loss \d\.\d\d -> \d\.\d\d in 1 steps$", out, re.MULTILINE)
        assert (home / "adapters" / f"example-{mode}" / "README.md").is_file()
    assert out.count("\nA: ") == 2
    assert "   source: " in out


# tests/comparison/test_smoke.py runs 05_benchmark.py, on the stages it has.


def test_06_serves_and_calls(home: Path) -> None:
    out = run("06_serve_and_call.py", home)
    assert out.startswith("A: Our all-round headlamp: 350 lumens")
    assert "from Lumen Trail Headlamp LT-350, confidence 0." in out
    pieces = [line.removeprefix("piece: ") for line in out.splitlines() if line.startswith("piece: ")]
    (whole,) = (line.removeprefix("answer: ") for line in out.splitlines() if line.startswith("answer: "))
    assert "".join(pieces) == whole
    assert "chat: " in out


def test_07_the_notebook_runs_from_the_file_to_the_comparison(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    (name,) = (name for name in EXAMPLES if name.endswith(".ipynb"))
    book = nbformat.read(home / "examples" / name, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    monkeypatch.setenv("RAGQA_TOY", "1")
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(home / "examples")}}).execute()
    pictures = [o for cell in code for o in cell.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 6
    text = "".join(o.text for cell in code for o in cell.outputs if o.output_type == "stream" and o.name == "stdout")
    for way in ("first candidate", "base model", "plain", "retrieval"):
        assert re.search(rf"^ *{way}: \d\.\d\d$", text, re.MULTILINE)
    assert "retrieval less first candidate: between " in text
