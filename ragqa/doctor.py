"""``python -m ragqa.doctor`` is ``ragqa doctor``."""

if __name__ == "__main__":
    import sys

    from ragqa.cli import run_command

    sys.exit(run_command("doctor", sys.argv[1:], "python -m ragqa.doctor"))
