"""``python -m ragqa.update`` is ``ragqa update``."""

if __name__ == "__main__":
    import sys

    from ragqa.cli import run_command

    sys.exit(run_command("update", sys.argv[1:], "python -m ragqa.update"))
