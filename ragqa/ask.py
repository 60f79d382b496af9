"""``python -m ragqa.ask`` is ``ragqa ask``."""

if __name__ == "__main__":
    import sys

    from ragqa.cli import run_command

    sys.exit(run_command("ask", sys.argv[1:], "python -m ragqa.ask"))
