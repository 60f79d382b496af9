"""``python -m ragqa.compare`` is ``ragqa compare``."""

if __name__ == "__main__":
    import sys

    from ragqa.cli import run_command

    sys.exit(run_command("compare", sys.argv[1:], "python -m ragqa.compare"))
