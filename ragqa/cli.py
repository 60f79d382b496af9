"""The command line: ``ragqa COMMAND``, and the same as ``python -m ragqa.COMMAND``.

Exit status: 0 done; 1 `ragqa doctor` found a fault; 2 something given was wrong, said in one line on stderr; 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from ragqa import __version__
from ragqa.commands import COMMANDS
from ragqa.errors import ProcessError, RagqaError
from ragqa.training.processes import is_helper, wait_to_be_ended


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, or none where another process says the same."""

    silent = False

    def error(self, message: str) -> NoReturn:
        """Print one line and leave with status 2."""
        self.exit(2, None if self.silent else f"error: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None, prog: str = "ragqa") -> int:
    """Run one command; returns the exit status.

    Args:
        arguments: without the program's name; None takes the process's own.
        prog: how the command was called, for help texts.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if given[0] in ("-V", "--version"):
        print(f"ragqa {__version__}")
        return 0
    name = given[0].replace("_", "-")
    if name not in COMMANDS:
        print(
            f"error: no command {given[0]!r}; there are {', '.join(COMMANDS)} (see ragqa --help)",
            file=sys.stderr,
        )
        return 2
    return run_command(name, given[1:], f"{prog} {name}")


def run_command(name: str, arguments: Sequence[str], prog: str) -> int:
    """Run the command `name`."""
    return run_module(importlib.import_module(COMMANDS[name][0]), arguments, prog)


def run_module(module: Any, arguments: Sequence[str], prog: str) -> int:
    """Run a command's module; errors of the project's own become one line and status 2.

    Args:
        module: with `add_arguments`, `run`, ``EXAMPLE`` and ``AFTER_INTERRUPT``; ``PROCESSES`` where several processes
            may do its work together, of which the first speaks for all.
        arguments: without the program's name.
        prog: how the command was called.
    """
    parser = Parser(
        prog=prog,
        description=module.__doc__,
        epilog=module.EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    helper = parser.silent = getattr(module, "PROCESSES", False) and is_helper()
    try:
        # Where several questions are taken, options may stand between them.
        intermixed = getattr(module, "INTERMIXED", False)
        chosen = (parser.parse_intermixed_args if intermixed else parser.parse_args)(arguments)
    except SystemExit as stop:
        if helper and stop.code:
            wait_to_be_ended()
        return int(stop.code or 0)
    # The tokenizers' own threads quarrel with forks, and warn about it on every run.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from ragqa.progress import show_progress

    show_progress(not chosen.quiet and not helper)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a screen that does not know a letter of a title
    try:
        status: int = module.run(chosen)
        sys.stdout.flush()
        return status
    except RagqaError as error:
        if isinstance(error, ProcessError) and error.told:
            wait_to_be_ended()
        else:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if not helper:
            print(f"\ninterrupted; {module.AFTER_INTERRUPT}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output left (`| head`); Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: ragqa COMMAND ...",
            "",
            "Sourced answers over product catalogues.",
            "",
            *lines,
            "",
            "ragqa COMMAND --help says more; python -m ragqa.COMMAND does the same.",
            'example: ragqa ask indexes/demo "What is the description of Lumen Trail Headlamp LT-350?"',
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
