"""Toy parts that depend on their input, and the real weights for the end-to-end group."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import hypothesis
import numpy as np
import pytest
import xxhash

from ragqa.progress import show_progress
from ragqa.retrieval.embed import Vectors, unit
from ragqa.retrieval.text import trigrams

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "examples" / "catalogue" / "trn.json"

# A busy machine is no failure.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")

# Files that take minutes, the longest first. Those that begin last end together: else one core would wait for one file.
LONGEST = ("comparison/test_smoke.py", "test_readme.py", "training/test_fine_tune.py", "training/test_export.py", "test_examples.py")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`pytest --dist loadfile --no-loadscope-reorder` hands files out in this order; without, those of few tests come last."""
    order = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


class TrigramEmbedder:
    """Hashed character trigrams: texts that share letters are near, unrelated texts are not."""

    dimension = 64

    def embed_titles(self, titles: Sequence[str], progress: Callable[[int], None] | None = None) -> Vectors:
        if progress:
            progress(len(titles))
        return self.embed_questions(titles)

    def embed_questions(self, questions: Sequence[str]) -> Vectors:
        vectors = np.full((len(questions), self.dimension), 1e-3, np.float32)
        for row, text in enumerate(questions):
            for trigram in trigrams(text):
                vectors[row, xxhash.xxh3_64_intdigest(trigram.encode()) % self.dimension] += 1
        return unit(vectors)


@pytest.fixture(scope="session")
def trigram_embedder() -> TrigramEmbedder:
    return TrigramEmbedder()


@pytest.fixture
def write_lines(tmp_path: Path) -> Callable[..., Path]:
    """Write rows as JSON lines (gzipped where the name ends in .gz); returns the path."""

    def write(rows: Sequence[dict[str, Any] | str], name: str = "trn.json") -> Path:
        text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write


@pytest.fixture(autouse=True)
def _no_progress() -> None:
    """Commands switch progress on for their process, which is that of other tests, too."""
    show_progress(False)


@pytest.fixture(scope="session")
def demo_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index over the demonstration catalogue, built with the real embedder. Tests must not change it."""
    from ragqa import build_index

    folder = tmp_path_factory.mktemp("indexes") / "demo"
    build_index(DEMO, folder)
    return folder


@pytest.fixture
def own_index(demo_index: Path, tmp_path: Path) -> Path:
    """A copy of the demonstration index that a test may damage."""
    return Path(shutil.copytree(demo_index, tmp_path / "demo"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers with a byte-level tokenizer and a chat template, saved to a folder."""
    from benchmarks.toys import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("tiny"))
