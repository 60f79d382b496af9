"""Print a script by which a shell completes ragqa's commands, options and their values.

bash: ragqa completion bash > ~/.local/share/bash-completion/completions/ragqa
zsh:  ragqa completion zsh > ~/.zfunc/_ragqa   (a folder of your fpath; then start zsh anew)
fish: ragqa completion fish > ~/.config/fish/completions/ragqa.fish

The script is made anew for each version; pressing Tab starts no Python.
"""

from __future__ import annotations

import argparse
import importlib
from typing import Any, Final

from ragqa.commands import COMMANDS
from ragqa.commands.options import add_common

EXAMPLE = "example: python -m ragqa.completion bash"
AFTER_INTERRUPT = "nothing was written"
SHELLS: Final = ("bash", "zsh", "fish")
# What an argument's metavar says it takes.
_FILES: Final = ("CATALOGUE", "FILE")
_FOLDERS: Final = ("ADAPTER", "FOLDER", "ID", "INDEX")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ragqa completion`."""
    parser.add_argument("shell", choices=SHELLS, help="the shell to complete in")
    add_common(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run `ragqa completion`."""
    import shtab

    print(shtab.complete(whole_parser(), shell=chosen.shell))
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """All commands in one parser, with the kind of file each argument takes."""
    import shtab

    parser = argparse.ArgumentParser(prog="ragqa")
    parser.add_argument("-V", "--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command")
    for name, (module, what) in COMMANDS.items():
        command = commands.add_parser(name, help=what)
        importlib.import_module(module).add_arguments(command)
        for action in command._actions:
            argument: Any = action
            if action.metavar in _FILES:
                argument.complete = shtab.FILE
            elif action.metavar in _FOLDERS:
                argument.complete = shtab.DIRECTORY
    return parser
