"""``python -m ragqa.plan`` is ``ragqa plan``."""

if __name__ == "__main__":
    import sys

    from ragqa.cli import run_command

    sys.exit(run_command("plan", sys.argv[1:], "python -m ragqa.plan"))
