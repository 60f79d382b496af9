"""``python -m ragqa.build_index`` is ``ragqa build-index``."""

if __name__ == "__main__":
    import sys

    from ragqa.cli import run_command

    sys.exit(run_command("build-index", sys.argv[1:], "python -m ragqa.build_index"))
