"""A server of completions, and what it is asked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ragqa import models
from ragqa.generation.choice import Choice
from ragqa.generation.generator import Generator
from ragqa.generation.prompt import NUMBERED, Prompt, PromptBuilder, PromptTemplate
from ragqa.generation.remote import RemoteGenerator, connect
from ragqa.generation.server import Server
from ragqa.records import Candidate, Product, Retrieval
from ragqa.retrieval.question import parse_question
from tests.conftest import ROOT

TEXTS = ["Alpha is first. It is long.", "Beta is second.", "Gamma is last."]


@pytest.fixture(scope="package")
def served_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, with tokens for blank and letter, so that descriptions begin with unlike tokens."""
    import torch

    folder = Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("merged") / "tiny"))
    told = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    vocabulary = told["model"]["vocab"]
    for letter in "ABG":
        vocabulary[f"Ġ{letter}"] = len(vocabulary)
        told["model"]["merges"].append(["Ġ", letter])
    (folder / "tokenizer.json").write_text(json.dumps(told), "utf-8")
    model, _, _ = models.load_generator(str(tiny_model), device="cpu", dtype="float32")
    torch.manual_seed(1)
    model.resize_token_embeddings(len(vocabulary), mean_resizing=False)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="package")
def server_url(served_model: Path) -> Iterator[str]:
    """The server's."""
    command = [sys.executable, str(ROOT / "tests" / "completions_server.py"), str(served_model), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


@pytest.fixture(scope="package")
def generator(served_model: Path) -> Iterator[Generator]:
    """The same model on this machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a model is only kept waiting by a second one
    model, tokenizer, _ = models.load_generator(str(served_model), device="cpu", dtype="float32")
    yield Generator(model, tokenizer)
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def chooser(generator: Generator) -> Generator:
    """The same, of an adapter that was trained with numbers."""
    return Generator(generator.model, generator.tokenizer, Choice())


@pytest.fixture
def remote(server_url: str, served_model: Path) -> Callable[..., RemoteGenerator]:
    """The generator of the server's model of that name."""

    def make(name: str = "tiny", choice: Choice | None = None, **patience: Any) -> RemoteGenerator:
        return connect(Server(server_url, name, **patience), str(served_model), choice)[0]

    return make


def asked_by(
    generator: Generator | RemoteGenerator, *questions: str, texts: list[str] = TEXTS, exact: int = -1
) -> tuple[list[Prompt], list[Retrieval]]:
    """Prompts about candidates of like scores."""
    template = NUMBERED if generator.choice else PromptTemplate(system="S")
    shown = tuple(
        Candidate(Product(str(i), f"T{i}", text), i, 0.5, 0.5, 0.5, i == exact) for i, text in enumerate(texts)
    )
    asked = [parse_question(question) for question in questions]
    builder = PromptBuilder(generator.tokenizer, template)
    return [builder.build(q, shown) for q in asked], [Retrieval(q, shown, 0.6) for q in asked]


def told_by(url: str, page: str) -> Any:
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/{page}", timeout=10) as response:
        return json.load(response)
