"""Titles in 8 bits: near the usual vectors, with the loss told, and no more needed once the index is built."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragqa import build_index, models, update_index
from ragqa.answerer import Answerer
from ragqa.catalogue.store import ProductStore
from ragqa.errors import MissingDependencyError, ModelError
from ragqa.index import quantise as steps
from ragqa.index.quantise import loss, quantised, usual_format
from ragqa.records import Product
from ragqa.retrieval import int8
from ragqa.retrieval.embed import SentenceEmbedder, Vectors, unit
from tests.conftest import ROOT

DEMO = ROOT / "examples" / "catalogue" / "trn.json"


@pytest.fixture(scope="module")
def encoder() -> SentenceEmbedder:
    return SentenceEmbedder(models.load_embedder(models.DEFAULT_EMBEDDER, "cpu", "float32")[0])


class Skewed:
    """Vectors by the letters of a text; those of titles turned by an angle."""

    dimension = 26

    def __init__(self, angle: float) -> None:
        self.angle = angle

    def embed_titles(self, titles: Any, progress: Any = None) -> Vectors:
        found = self.embed_questions(titles)
        turned = np.roll(found, 1, axis=1)
        turned -= (turned * found).sum(1, keepdims=True) * found
        return unit(np.cos(self.angle) * found + np.sin(self.angle) * unit(turned))

    def embed_questions(self, questions: Any) -> Vectors:
        return unit(np.array([[text.lower().count(chr(97 + n)) for n in range(26)] for text in questions], np.float32))


def test_the_loss_is_that_of_the_vectors_and_of_what_they_find() -> None:
    products = [Product(str(n), title, "") for n, title in enumerate(("Brass kettle", "Folding chair", "Red lamp"))]
    none = loss(Skewed(0), Skewed(0), products, 1)
    assert (none.titles, round(none.cosine, 5), none.recall_at_1) == (3, 1, none.recall_at_1_before)
    some = loss(Skewed(0), Skewed(0.5), products, 1)
    assert some.cosine == pytest.approx(np.cos(0.5), abs=1e-5)
    assert some.least_cosine == pytest.approx(np.cos(0.5), abs=1e-5)
    assert loss(Skewed(0), Skewed(np.pi), products, 1).recall_at_1 < none.recall_at_1
    assert "of 3 made questions" in some.line()


@pytest.mark.weights
def test_without_the_packages_the_error_says_how_to_install_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingDependencyError, match=r'^--dtype int8 needs .*: pip install "ragqa\[int8\]"$'):
        build_index(DEMO, tmp_path / "index", dtype="int8")
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_and_other_encoders_are_refused(monkeypatch: pytest.MonkeyPatch, encoder: SentenceEmbedder) -> None:
    assert (usual_format("int8", "cpu"), usual_format("bfloat16", "cuda")) == ("auto", "bfloat16")
    monkeypatch.setattr(encoder, "_fused", None)
    with pytest.raises(ModelError, match=r"^--dtype int8 is for BERT encoders "):
        int8.bert_of(encoder)
    monkeypatch.setattr(models, "choose_device", lambda device: "cuda")
    with pytest.raises(ModelError, match=r"^--dtype int8 is for a CPU; add --device cpu"):
        usual_format("int8", "auto")


@pytest.mark.weights
def test_an_index_with_titles_in_8_bits_is_asked_and_updated_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nncf")
    pytest.importorskip("openvino")
    index = build_index(DEMO, tmp_path / "int8", dtype="int8")
    assert capfd.readouterr() == ("", "")
    embedder = index.manifest["embedder"]
    assert embedder["dtype"] == "int8"
    assert embedder["loss"]["titles"] == len(index) // 2
    assert 0.98 < embedder["loss"]["least_cosine"] < embedder["loss"]["cosine"] < 0.9999
    # From now on neither package is there.
    monkeypatch.setattr(int8, "import_openvino", lambda: pytest.fail("answering needs OpenVINO"))
    usual = build_index(DEMO, tmp_path / "usual", dtype="float32")
    rows = np.arange(len(index))
    cosines = (index.dense.vectors(rows) * usual.dense.vectors(rows)).sum(1)
    assert 0.98 < cosines.min() < 0.99999
    answerer = Answerer.from_pretrained(tmp_path / "int8")
    found = answerer.retriever.retrieve([f"Qual é a descrição de {product.title}?" for product in index.store])
    assert [one.candidates[0].product.title for one in found] == [product.title for product in index.store]
    changed = tmp_path / "changed.jsonl"
    changed.write_text(DEMO.read_text("utf-8") + '{"uid": "new", "title": "Zither strings", "content": "Of silver."}\n')
    assert update_index(tmp_path / "int8", changed).embedded == 1


@pytest.mark.weights
def test_an_interrupted_build_goes_on_with_the_model_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: SentenceEmbedder
) -> None:
    pytest.importorskip("nncf")
    pytest.importorskip("openvino")
    build_index(DEMO, tmp_path / "index", dtype="float32")
    store = ProductStore(tmp_path / "index" / "g000001" / "products.arrow")
    first, loss_ = quantised(models.DEFAULT_EMBEDDER, encoder, store, tmp_path, 0)
    monkeypatch.setattr(steps, "quantise", lambda *given: pytest.fail("made anew"))
    again, same = quantised(models.DEFAULT_EMBEDDER, encoder, store, tmp_path, 0)
    assert loss_ == same
    titles = store.column("title", 0, 100)
    done: list[int] = []
    np.testing.assert_array_equal(first.embed_titles(titles), again.embed_titles(titles, done.append))
    assert sum(done) == 100
    assert first.embed_titles([]).shape == (0, 384)
    store.close()
