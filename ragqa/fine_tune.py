"""``python -m ragqa.fine_tune`` is ``ragqa fine-tune``."""

if __name__ == "__main__":
    import sys

    from ragqa.cli import run_command

    sys.exit(run_command("fine-tune", sys.argv[1:], "python -m ragqa.fine_tune"))
