"""``python -m ragqa.export`` is ``ragqa export``."""

if __name__ == "__main__":
    import sys

    from ragqa.cli import run_command

    sys.exit(run_command("export", sys.argv[1:], "python -m ragqa.export"))
