"""``python -m ragqa.benchmark`` is ``ragqa benchmark``."""

if __name__ == "__main__":
    import sys

    from ragqa.cli import run_command

    sys.exit(run_command("benchmark", sys.argv[1:], "python -m ragqa.benchmark"))
