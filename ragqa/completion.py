"""``python -m ragqa.completion`` is ``ragqa completion``."""

if __name__ == "__main__":
    import sys

    from ragqa.cli import run_command

    sys.exit(run_command("completion", sys.argv[1:], "python -m ragqa.completion"))
