"""``python -m ragqa.serve`` is ``ragqa serve``."""

if __name__ == "__main__":
    import sys

    from ragqa.cli import run_command

    sys.exit(run_command("serve", sys.argv[1:], "python -m ragqa.serve"))
