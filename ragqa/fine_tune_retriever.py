"""``python -m ragqa.fine_tune_retriever`` is ``ragqa fine-tune-retriever``."""

if __name__ == "__main__":
    import sys

    from ragqa.cli import run_command

    sys.exit(run_command("fine-tune-retriever", sys.argv[1:], "python -m ragqa.fine_tune_retriever"))
