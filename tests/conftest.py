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

import numpy as np
import pytest
import xxhash

from ragqa.retrieval.embed import Vectors, unit
from ragqa.retrieval.text import trigrams

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "examples" / "catalogue" / "trn.json"


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
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    vocabulary = {token: i for i, token in enumerate(special + alphabet)}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|end|>", pad_token="<|end|>", additional_special_tokens=special[1:]
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    folder = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
