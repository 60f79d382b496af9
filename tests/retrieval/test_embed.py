"""Fast embedding computes what sentence-transformers computes, whatever the batches, the cores and the memory."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ragqa import models
from ragqa.models.precision import HalfLinear, Product, halve_linear
from ragqa.retrieval import embed
from ragqa.retrieval.bert import fused, read_bert
from ragqa.retrieval.embed import SentenceEmbedder, like_lengths, unit

TEXTS = [
    "Rede de Dormir Casal Maracatu, Azul", "kettle", "Lumen headlamp LT-350 " * 3, "", "Pá", "Whisper Kettle 1.7 L",
    *(f"folding chair number {n} " + "with arms " * (n % 7) for n in range(60)), "word " * 400,
]  # fmt: skip


@pytest.fixture(scope="module")
def encoder() -> Any:
    """The default encoder in float32."""
    return models.load_embedder(models.DEFAULT_EMBEDDER, "cpu", "float32")[0]


@pytest.fixture
def two_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.weights
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_titles_and_questions_have_the_vectors_of_the_library(dtype: str, encoder: Any, two_cores: None) -> None:
    model = models.load_embedder(models.DEFAULT_EMBEDDER, "cpu", dtype)[0]
    assert models.dtype_name(model) == dtype
    assert fused(model) is not None
    ours = SentenceEmbedder(model)
    done: list[int] = []
    wanted = unit(encoder.encode(TEXTS, show_progress_bar=False))
    for found in (ours.embed_titles(TEXTS, done.append), ours.embed_questions(TEXTS)):
        cosines = (found * wanted).sum(1)
        assert cosines.min() > (0.99999 if dtype == "float32" else 0.999)
    assert sum(done) == len(TEXTS)
    assert torch.get_num_threads() == 2


@pytest.mark.weights
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_vector_is_the_same_whatever_texts_are_beside_it(dtype: str) -> None:
    ours = SentenceEmbedder(models.load_embedder(models.DEFAULT_EMBEDDER, "cpu", dtype)[0])
    assert ours.bert is not None
    for embed_them in (ours.embed_titles, ours.embed_questions):
        alone = np.vstack([embed_them([text]) for text in TEXTS])
        assert np.allclose(embed_them(TEXTS), alone, atol=1e-6, rtol=0)


@pytest.mark.weights
def test_a_model_that_is_no_plain_bert_takes_the_general_way(encoder: Any) -> None:
    wanted = unit(encoder.encode(TEXTS, show_progress_bar=False))
    encoder[0].auto_model.config.hidden_act = "relu"
    try:
        assert fused(encoder) is None
        assert (SentenceEmbedder(encoder).embed_titles(TEXTS) * wanted).sum(1).min() > 0.99999
    finally:
        encoder[0].auto_model.config.hidden_act = "gelu"


@pytest.mark.weights
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_encoder_read_from_its_files_is_that_of_the_library(dtype: torch.dtype, encoder: Any) -> None:
    read = read_bert(models.find_model(models.DEFAULT_EMBEDDER).folder, dtype)
    assert read is not None
    ours = SentenceEmbedder(read)
    assert (ours.device, ours.dtype, ours.dimension) == ("cpu", str(dtype).removeprefix("torch."), 384)
    wanted = unit(encoder.encode(TEXTS, show_progress_bar=False))
    for found in (ours.embed_titles(TEXTS), ours.embed_questions(TEXTS)):
        assert (found * wanted).sum(1).min() > (0.99999 if dtype == torch.float32 else 0.999)


@pytest.mark.weights
@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", {"model_type": "roberta"}),
        ("config.json", {"hidden_act": "relu"}),
        ("config.json", {"position_embedding_type": "relative_key"}),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": False}),
        ("sentence_bert_config.json", {"do_lower_case": True}),
        ("tokenizer_config.json", {"do_lower_case": False}),
        ("modules.json", None),
        ("tokenizer.json", None),
        ("model.safetensors", None),
    ],
)
def test_files_that_say_something_else_are_left_to_the_library(
    file: str, change: dict[str, Any] | None, tmp_path: Path
) -> None:
    source, folder = models.find_model(models.DEFAULT_EMBEDDER).folder, tmp_path / "model"
    shutil.copytree(source, folder, copy_function=os.symlink)
    assert read_bert(folder, torch.float32) is not None
    (folder / file).unlink()
    if change is not None:
        (folder / file).write_text(json.dumps(json.loads((source / file).read_text()) | change))
    assert read_bert(folder, torch.float32) is None


@pytest.mark.weights
def test_cls_pooling_takes_the_first_token(tmp_path: Path) -> None:
    source, folder = models.find_model(models.DEFAULT_EMBEDDER).folder, tmp_path / "model"
    shutil.copytree(source, folder)
    pooling = {"word_embedding_dimension": 384, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    model, read = models.load_embedder(str(folder), "cpu", "float32")[0], read_bert(folder, torch.float32)
    assert read is not None
    assert fused(model) is not None
    wanted = unit(model.encode(TEXTS, show_progress_bar=False))
    assert (SentenceEmbedder(read).embed_titles(TEXTS) * wanted).sum(1).min() > 0.99999


@pytest.mark.weights
def test_an_index_is_asked_without_the_library(demo_index: Path) -> None:
    code = (
        "import sys; from ragqa import Answerer\n"
        "found = Answerer.from_pretrained(sys.argv[1], device='cpu').retriever.retrieve(['flamenco skirt'])\n"
        "assert found[0].candidates and 'sentence_transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(demo_index)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.weights
def test_a_bert_whose_vectors_come_out_otherwise_is_left_to_the_library(
    encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    general = encoder.encode_document
    monkeypatch.setattr(encoder, "encode_document", lambda texts, **more: -general(texts, **more))
    assert fused(encoder) is None


@pytest.mark.weights
def test_prompts_of_a_model_go_before_its_texts(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "prompts", {"query": "question: ", "passage": "text: "})
    quick = fused(encoder)
    assert quick is not None
    assert quick.prompts == {"query": "question: ", "document": "text: "}
    assert quick.tokens(["kettle"], "query") != quick.tokens(["kettle"], "document")


def test_without_titles_there_are_no_vectors() -> None:
    assert SentenceEmbedder(Full(99)).embed_titles([]).shape == (0, 3)


@given(st.lists(st.integers(1, 300), max_size=80), st.integers(1, 500))
def test_batches_have_each_text_once_and_fit(lengths: list[int], tokens: int) -> None:
    batches = like_lengths(lengths, tokens)
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[p] for p in batch) <= tokens for batch in batches)


class Full:
    """A model whose memory is full from a number of texts on."""

    device = torch.device("cpu")
    tokenizer = None

    def __init__(self, most: int, error: type[Exception] = torch.OutOfMemoryError) -> None:
        self.most, self.error = most, error
        self.sizes: list[int] = []

    def get_embedding_dimension(self) -> int:
        return 3

    def parameters(self) -> Iterator[torch.Tensor]:
        return iter([torch.zeros(1)])

    def encode_document(self, texts: list[str], **_: Any) -> Any:
        self.sizes.append(len(texts))
        if len(texts) > self.most:
            raise self.error("full")
        return np.array([[len(text), 1, 2] for text in texts], np.float32)


def test_a_full_memory_is_met_with_smaller_batches_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model, said = Full(5), []
    monkeypatch.setattr(embed, "say", said.append)
    titles = ["a" * (n + 1) for n in range(33)]
    found = SentenceEmbedder(model).embed_titles(titles)  # type: ignore[arg-type]
    assert np.allclose(found, unit(np.array([[len(t), 1, 2] for t in titles], np.float32)))
    assert max(model.sizes) > 5
    assert said
    assert "going on with batches of half the size" in said[0]
    with pytest.raises(torch.OutOfMemoryError):
        SentenceEmbedder(Full(0)).embed_titles(titles)  # type: ignore[arg-type]


def test_a_workers_error_ends_the_work_and_leaves_the_cores_as_they_were(
    two_cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "_TOKENS", {"cpu": 8})
    model: Any = Full(0, ValueError)
    with pytest.raises(ValueError, match="full"):
        SentenceEmbedder(model).embed_titles(["title"] * 4000)
    assert len(model.sizes) < 100
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("gelu", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_that_of_a_linear_layer(dtype: torch.dtype, gelu: bool) -> None:
    torch.manual_seed(0)
    layer, inputs = torch.nn.Linear(64, 48), torch.randn(7, 64)
    wanted = torch.nn.functional.gelu(layer(inputs)) if gelu else layer(inputs)
    found = Product(layer.weight.to(dtype), layer.bias.to(dtype), gelu)(inputs).float()
    assert torch.allclose(found, wanted, atol=1e-5 if dtype == torch.float32 else 0.03)


@pytest.mark.parametrize("width", [384, 1536])
def test_a_row_of_a_steady_product_is_the_same_whatever_rows_are_beside_it(width: int) -> None:
    """With AMX, 33 to some 300 rows as long as 1,536 would otherwise be added up in another order."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(width, 384)
    product = Product(layer.weight.detach().bfloat16(), layer.bias.detach().bfloat16(), steady=True)
    rows = torch.randn(600, width)
    alone = torch.cat([product(few) for few in rows.split(20)])
    for count in (33, 64, 100, 256, 511, 600):
        assert torch.equal(product(rows[:count]), alone[:count])


def test_halved_layers_stay_near_and_their_neighbours_in_32_bits() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(32, 32), torch.nn.Sequential(torch.nn.LayerNorm(32), torch.nn.Linear(32, 8))
    )
    inputs = torch.randn(5, 32)
    wanted = model(inputs)
    halve_linear(model, torch.bfloat16)
    assert isinstance(model[0], HalfLinear)
    assert model[1][0].weight.dtype == torch.float32
    found = model(inputs)
    assert found.dtype == torch.float32
    assert torch.allclose(found, wanted, atol=0.03)
    assert not torch.equal(found, wanted)
