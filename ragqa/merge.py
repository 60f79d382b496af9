"""``python -m ragqa.merge`` is ``ragqa merge``."""

if __name__ == "__main__":
    import sys

    from ragqa.cli import run_command

    sys.exit(run_command("merge", sys.argv[1:], "python -m ragqa.merge"))
