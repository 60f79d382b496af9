"""The sub-commands of `ragqa`: each module has `add_arguments`, `run`, and an example."""

from __future__ import annotations

from typing import Final

# Command -> (module that implements it, one line of help). Imported only when used.
COMMANDS: Final = {
    "prepare": ("ragqa.commands.prepare", "clean a catalogue and save it as Parquet, CSV or JSON lines"),
    "build-index": ("ragqa.commands.build_index", "build a product index from a catalogue"),
    "update": ("ragqa.commands.update", "bring an index to a new state of its catalogue"),
    "fine-tune-retriever": (
        "ragqa.commands.fine_tune_retriever",
        "train an index's own sentence encoder on its catalogue",
    ),
    "fine-tune": ("ragqa.commands.fine_tune", "fine-tune a generator on questions about an index's products"),
    "benchmark": (
        "ragqa.commands.benchmark",
        "compare plain and retrieval-conditioned fine-tuning, and none, with intervals",
    ),
    "merge": ("ragqa.commands.merge", "merge an adapter into its base model"),
    "export": ("ragqa.commands.export", "export an adapter's model for a server: vLLM, llama.cpp, Ollama"),
    "ask": ("ragqa.commands.ask", "answer questions from an index, with sources"),
    "ask-many": ("ragqa.commands.ask_many", "answer a file of questions, into a Parquet file with sources"),
    "compare": ("ragqa.commands.compare", "answer one question in every way that the benchmark compares"),
    "serve": ("ragqa.commands.serve", "answer questions over HTTP, with a page to ask on"),
    "plan": ("ragqa.commands.plan", "plan machines for so many titles and questions a second"),
    "doctor": ("ragqa.commands.doctor", "tell what is installed, what this machine computes with, and what is missing"),
    "completion": ("ragqa.commands.completion", "print what makes a shell complete ragqa's commands and options"),
}
