"""Small parts that are quick to use and yet depend on what they are given: catalogues, an encoder, a language model."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
import xxhash

from ragqa import Answerer, models
from ragqa.index import recipe
from ragqa.models.source import quiet
from ragqa.retrieval.embed import SentenceEmbedder, Vectors, unit
from ragqa.retrieval.text import trigrams
from ragqa.settings import AnswerSettings

_DIMENSION: Final = 32
_ADJECTIVES: Final = "red blue small large cotton steel garden kitchen folding electric trail winter".split()
_NOUNS: Final = "lamp kettle hammock chair table bicycle tent backpack mirror clock basket blanket".split()
QUESTIONS: Final = (
    "red lamp 3",
    "What is the description of the folding tent 8?",
    "kitchen clok 4",
    "steel basket",
    "submarine",
)


class ToyModel:
    """Hashed character trigrams in the place of a sentence-transformers model."""

    device = "cpu"

    def parameters(self) -> Iterator[Any]:
        """One parameter, for its number format."""
        import torch

        return iter([torch.zeros(1)])

    def get_embedding_dimension(self) -> int:
        """Length of a vector."""
        return _DIMENSION

    def encode_document(self, texts: Sequence[str], **_: Any) -> Vectors:
        """Unit vectors of texts."""
        vectors = np.full((len(texts), _DIMENSION), 1e-3, np.float32)
        for row, text in enumerate(texts):
            for trigram in trigrams(text):
                vectors[row, xxhash.xxh3_64_intdigest(trigram.encode()) % _DIMENSION] += 1
        return unit(vectors)

    encode_query = encode_document


@contextmanager
def toy_embedder(folder: Path) -> Iterator[None]:
    """Within, the toy takes the place of every encoder, and no time is spent on trying the machine.

    Args:
        folder: where it "lies"; made here.
    """
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"toy")
    (folder / "config.json").write_text("{}\n")

    def load(name: str, *_: Any) -> tuple[ToyModel, models.ModelSource]:
        place = Path(name) if Path(name).is_dir() else folder
        return ToyModel(), models.ModelSource("toy", "folder", "", place)

    speed = recipe._Speed(1e9, 1e9)
    with mock.patch.object(models, "load_embedder", load), mock.patch.object(recipe, "_speed", return_value=speed):
        yield


def rows(state: int, count: int, seed: int = 0) -> list[dict[str, str]]:
    """Products whose descriptions name a state: of another one all descriptions and some products are others."""
    random_ = random.Random(seed)  # noqa: S311  (not for secrets)
    made = []
    for number in range(count):
        title = f"{random_.choice(_ADJECTIVES)} {random_.choice(_ADJECTIVES)} {random_.choice(_NOUNS)} {number % 20}"
        text = f"State {state}. Made of {random_.choice(_NOUNS)} and {random_.choice(_ADJECTIVES)} {number}."
        made.append({"id": f"p{number}", "title": title, "text": text})
    return [one for number, one in enumerate(made) if number % 7 != state % 7]


def catalogue(path: Path, state: int, count: int) -> Path:
    """The same as a file of JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(state, count)), "utf-8")
    return path


def told(answerer: Answerer, questions: Sequence[str] = QUESTIONS) -> list[Any]:
    """Answers with all that is in them but the time they took."""
    answers = answerer.ask_many(questions, min_confidence=0.1)
    return [{k: v for k, v in answer.to_dict().items() if k != "timings"} for answer in answers]


def toy_answerer(index: Any, **settings: Any) -> Answerer:
    """An Answerer over an opened index that takes answers from descriptions and loads no model."""
    return Answerer(index, SentenceEmbedder(ToyModel()), settings=AnswerSettings(decoding="copy", **settings))  # type: ignore[arg-type]


def save_tiny_model(folder: Path) -> Path:
    """Save a random Llama of two layers with a byte-level tokenizer and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    vocabulary = {token: i for i, token in enumerate(special + alphabet)}
    raw = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|end|>",  # noqa: S106
        pad_token="<|end|>",  # noqa: S106
        additional_special_tokens=special[1:],
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
    with quiet():
        LlamaForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder
