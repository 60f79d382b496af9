"""``python -m ragqa.ask_many`` is ``ragqa ask-many``."""

if __name__ == "__main__":
    import sys

    from ragqa.cli import run_command

    sys.exit(run_command("ask-many", sys.argv[1:], "python -m ragqa.ask_many"))
