"""The completion scripts, asked as the shells ask them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ragqa.cli import COMMANDS
from ragqa.commands.completion import SHELLS
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The script of every shell, each written by the command line."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in SHELLS:
        with (folder / shell).open("wb") as out:
            subprocess.run(
                [sys.executable, "-m", "ragqa.completion", shell], cwd=ROOT, stdout=out, check=True, timeout=60
            )
    return {shell: folder / shell for shell in SHELLS}


def replies(script: Path, words: list[str], cwd: Path) -> set[str]:
    """What bash offers for the last of the words, when Tab is pressed after it."""
    code = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; '
        'asked=$(complete -p ragqa); asked=${asked#*-F }; ${asked%% *} ragqa "${@: -1}" "${@: -2:1}"; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", code, "bash", str(script), *words],
        cwd=cwd, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return set(done.stdout.split())


def test_bash_completes_commands_options_values_and_files(scripts: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "indexes").mkdir()
    (tmp_path / "items.csv").touch()
    bash = scripts["bash"]
    assert replies(bash, ["ragqa", ""], tmp_path) >= set(COMMANDS)
    assert replies(bash, ["ragqa", "fine"], tmp_path) == {"fine-tune", "fine-tune-retriever"}
    assert replies(bash, ["ragqa", "ask", "--min"], tmp_path) == {"--min-confidence"}
    assert replies(bash, ["ragqa", "benchmark", "--profile", ""], tmp_path) == {"smoke", "quick", "full"}
    assert replies(bash, ["ragqa", "ask", "i"], tmp_path) == {"indexes"}
    assert replies(bash, ["ragqa", "prepare", "i"], tmp_path) == {"indexes", "items.csv"}
    assert replies(bash, ["ragqa", "completion", ""], tmp_path) == set(SHELLS)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_one_its_shell_can_read(shell: str, scripts: dict[str, Path]) -> None:
    assert "--min-confidence" in scripts[shell].read_text("utf-8") or "min-confidence" in scripts[shell].read_text(
        "utf-8"
    )
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not on this machine")
    done = subprocess.run([shell, "-n", str(scripts[shell])], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_neither_help_nor_completion_imports_torch() -> None:
    code = (
        "import sys; from ragqa.cli import COMMANDS, main; "
        "all(main([name, '--help']) == 0 for name in COMMANDS); main(['completion', 'bash']); "
        "print('torch' in sys.modules, 'transformers' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.split() == ["False", "False"]
