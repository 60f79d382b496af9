"""``python -m ragqa.prepare`` is ``ragqa prepare``."""

if __name__ == "__main__":
    import sys

    from ragqa.cli import run_command

    sys.exit(run_command("prepare", sys.argv[1:], "python -m ragqa.prepare"))
