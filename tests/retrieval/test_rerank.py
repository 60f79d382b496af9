"""Reranking: what is read, in which order it comes back, what the scores and the confidence then are."""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from ragqa import Answerer, build_index, models
from ragqa.errors import ModelError
from ragqa.records import Candidate, Product
from ragqa.retrieval import confidence as confidence_
from ragqa.retrieval.dense import DenseIndex
from ragqa.retrieval.lexical import build_lexical
from ragqa.retrieval.rerank import CrossEncoderReranker, passage, relevances, reranked
from ragqa.retrieval.retriever import Retriever
from ragqa.retrieval.searcher import LocalSearcher
from ragqa.retrieval.titles import TitleTable
from tests.conftest import TrigramEmbedder

TITLES = ["Salt Road", "Salt Road Home", "Salt Road North", "Salt Road South", "Cobble Tyre 25", "Cobble Tyre 28"]


class Longest:
    """Finds a product the more relevant the longer its title is; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[tuple[str, str]]] = []

    def relevance(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.asked.append(list(pairs))
        return [len(text.splitlines()[0]) / 100 for _, text in pairs]


def candidate(row: int, score: float, exact: bool = False, title: str = "") -> Candidate:
    product = Product(f"p{row}", title or f"title {row}", f"about {row}")
    return Candidate(product, row, score, cosine=score, overlap=score, exact=exact)


@pytest.fixture
def retriever(trigram_embedder: TrigramEmbedder) -> Retriever:
    products = [Product(f"p{row}", title, f"about {title}") for row, title in enumerate(TITLES)]
    dense = DenseIndex.empty(trigram_embedder.dimension)
    dense.add(trigram_embedder.embed_titles(TITLES))
    return Retriever(
        LocalSearcher(products, dense, TitleTable.build(TITLES), build_lexical(products)), trigram_embedder
    )


def test_the_score_is_the_mean_of_the_retrievers_and_of_the_relevance_and_sets_the_order() -> None:
    found = reranked([candidate(0, 0.9), candidate(1, 0.8), candidate(2, 0.6)], [0.1, 0.4, 0.9])
    assert [(c.row, pytest.approx(c.score)) for c in found] == [(2, 0.75), (1, 0.6), (0, 0.5)]
    assert [c.cosine for c in found] == [0.6, 0.8, 0.9], "the evidence stays"


def test_what_was_not_read_counts_as_irrelevant_and_stays_behind_what_was() -> None:
    found = reranked([candidate(0, 0.9), candidate(1, 0.8), candidate(2, 0.7), candidate(3, 0.6)], [0.0, 0.5])
    assert [(c.row, pytest.approx(c.score)) for c in found] == [(1, 0.65), (0, 0.45), (2, 0.35), (3, 0.3)]


def test_where_the_reranker_is_undecided_the_order_remains() -> None:
    candidates = [candidate(0, 0.7), candidate(2, 0.7), candidate(1, 0.7), candidate(3, 0.6)]
    assert [c.row for c in reranked(candidates, [0.0] * 4)] == [0, 2, 1, 3]
    assert [c.row for c in reranked(candidates, [1.0] * 4)] == [0, 2, 1, 3]


def test_only_an_exact_title_has_a_score_of_one() -> None:
    assert reranked([candidate(0, 0.9999)], [1.0])[0].score == 0.9999


def test_all_questions_are_read_at_once_to_the_depth_and_exact_titles_not_at_all() -> None:
    reader = Longest()
    ranked = [
        [candidate(0, 0.9), candidate(1, 0.8), candidate(2, 0.7)],
        [candidate(3, 1.0, exact=True), candidate(4, 0.5)],
        [],
        [candidate(5, 0.9, title="x" * 50)],
    ]
    read = relevances(reader, ["a", "b", "c", "d"], ranked, 2)
    assert read == [[0.07, 0.07], None, None, [0.5]]
    assert [[(subject, text.split("\n")[0]) for subject, text in call] for call in reader.asked] == [
        [("a", "title 0"), ("a", "title 1"), ("d", "x" * 50)]
    ]


def test_a_title_and_the_beginning_of_the_description_are_read() -> None:
    assert passage(Product("1", "Blue Kettle", "Boils.")) == "Blue Kettle\nBoils."
    long = passage(Product("1", "Blue Kettle", "boils " * 1000))
    assert long == "Blue Kettle\n" + " ".join(["boils"] * 66), "400 characters, whole words"


def test_the_retriever_gives_the_rerankers_order_with_falling_scores(retriever: Retriever) -> None:
    plain = retriever.retrieve(["salt roat"], 6)[0].candidates
    again = retriever.retrieve(["salt roat"], 6, reranker=Longest())[0].candidates
    assert plain[0].product.title == "Salt Road"
    own = {c.row: c.score for c in plain}
    for c in again:
        assert c.score == pytest.approx((own[c.row] + len(c.product.title) / 100) / 2)
    assert [c.score for c in again] == sorted((c.score for c in again), reverse=True)


def test_depth_limits_what_is_read(retriever: Retriever) -> None:
    plain = retriever.retrieve(["salt roat"], 6)[0]
    reader = Longest()
    found = retriever.retrieve(["salt roat"], 6, reranker=reader, rerank_depth=2)[0]
    assert len(reader.asked[0]) == 2
    assert {c.row for c in found.candidates[:2]} == {c.row for c in plain.candidates[:2]}
    assert [c.row for c in found.candidates[2:]] == [c.row for c in plain.candidates[2:]]
    assert retriever.retrieve(["salt roat"], 6, reranker=reader, rerank_depth=0)[0] == plain
    assert len(reader.asked) == 1


def test_an_exact_title_stays_first_and_is_not_read(retriever: Retriever) -> None:
    reader = Longest()
    asked = ["Salt Road", "cobble tyre", "salt road home"]
    found = retriever.retrieve(asked, 6, reranker=reader)
    assert [found[0], found[2]] == retriever.retrieve(["Salt Road", "salt road home"], 6)
    assert found[0].candidates[0].exact
    assert {subject for call in reader.asked for subject, _ in call} == {"cobble tyre"}


def test_a_batch_is_read_as_its_questions_one_by_one(retriever: Retriever, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragqa.retrieval.retriever._BLOCK", 2)
    questions = ["cobble", "Salt Road", "road north", "zzz", "home"]
    reader = Longest()
    together = retriever.retrieve(questions, reranker=reader)
    assert len(reader.asked) == 3
    assert together == [retriever.retrieve([q], reranker=Longest())[0] for q in questions]


def test_confidence_is_the_retrievers_own_evidence_of_the_candidate_that_is_now_the_first(
    retriever: Retriever,
) -> None:
    class Turned:
        def relevance(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
            return [0.0] * (len(pairs) - 1) + [1.0]

    plain = retriever.retrieve(["salt roat"], 6)[0]
    found = retriever.retrieve(["salt roat"], 6, reranker=Turned())[0]
    own = [plain.candidates[-1], *plain.candidates[:-1]]
    assert [c.row for c in found.candidates] == [c.row for c in own]
    assert found.confidence == confidence_.DEFAULT(confidence_.features(own))
    assert found.confidence < plain.confidence


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of one layer with one label, saved to a folder; its weights are large, so that scores differ."""
    return make_cross_encoder(tmp_path_factory.mktemp("cross-encoder"), labels=1)


def make_cross_encoder(folder: Path, labels: int) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,-'"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(pieces))
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        initializer_range=0.5,
        num_labels=labels,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=128).save_pretrained(folder)
    return folder


PAIRS = [("salt road", "Salt Road\nabout salt."), ("salt road", "Cobble Tyre 25\n" + "tyre " * 90), ("q", "a\nb")]


def test_relevance_is_the_sigmoid_of_the_models_logit(cross_encoder: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, source = models.load_reranker(str(cross_encoder), "cpu", "float32")
    assert (source.origin, str(model.dtype)) == ("folder", "torch.float32")
    told = CrossEncoderReranker(model).relevance(PAIRS)
    plain = AutoModelForSequenceClassification.from_pretrained(cross_encoder).eval()
    tokenizer = AutoTokenizer.from_pretrained(cross_encoder)
    for pair, value in zip(PAIRS, told, strict=True):
        inputs = tokenizer(*pair, truncation=True, max_length=128, return_tensors="pt")
        with torch.inference_mode():
            assert value == pytest.approx(float(plain(**inputs).logits[0, 0].sigmoid()), abs=1e-5)
    assert len({round(value, 3) for value in told}) == len(PAIRS)
    assert CrossEncoderReranker(model).relevance([]) == []


def test_what_a_model_does_with_its_logits_makes_no_difference(cross_encoder: Path, tmp_path: Path) -> None:
    """Those trained on MS MARCO are saved with no activation, others with a sigmoid."""
    from torch.nn import Identity

    model, _ = models.load_reranker(str(cross_encoder), "cpu", "float32")
    before = CrossEncoderReranker(model).relevance(PAIRS)
    model.activation_fn = Identity()
    model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    again, _ = models.load_reranker(str(tmp_path / "saved"), "cpu", "float32")
    assert isinstance(again.activation_fn, Identity)
    assert CrossEncoderReranker(again).relevance(PAIRS) == pytest.approx(before)


def test_a_model_that_gives_no_numbers_is_told(cross_encoder: Path) -> None:
    import torch

    model, _ = models.load_reranker(str(cross_encoder), "cpu", "float32")
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(ModelError, match="no numbers; try --dtype float32"):
        CrossEncoderReranker(model).relevance(PAIRS)


def test_what_cannot_rerank_is_refused_in_one_line(tmp_path: Path, cross_encoder: Path, tiny_model: Path) -> None:
    with pytest.raises(ModelError, match=r"^nowhere: no such folder"):
        models.load_reranker("nowhere")
    (tmp_path / "three").mkdir()
    with pytest.raises(ModelError, match=r"three: has 3 labels, and a reranker needs one[^\n]*$"):
        models.load_reranker(str(make_cross_encoder(tmp_path / "three", labels=3)))
    with pytest.raises(ModelError, match=r"is no cross-encoder; choose one such as cross-encoder/"):
        models.load_reranker(str(tiny_model))
    broken = Path(shutil.copytree(cross_encoder, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"cannot be loaded as a cross-encoder \([^\n]*\)$"):
        models.load_reranker(str(broken))
    (broken / "config.json").write_text("{")
    with pytest.raises(ModelError, match="is no cross-encoder"):
        models.load_reranker(str(broken))


def test_a_sentence_encoder_is_no_reranker_though_the_library_would_make_it_one() -> None:
    with pytest.raises(ModelError, match="is no cross-encoder"):
        models.load_reranker(models.DEFAULT_EMBEDDER)


def test_an_answerer_reranks_and_saves_its_reranker(cross_encoder: Path, tmp_path: Path, tiny_model: Path) -> None:
    rows = [{"title": title, "content": f"about {title}, number {n}"} for n, title in enumerate(TITLES)]
    build_index(rows, tmp_path / "index")
    named = {"generator": str(tiny_model), "device": "cpu", "dtype": "float32"}
    plain = Answerer.from_pretrained(tmp_path / "index", **named)
    answerer = Answerer.from_pretrained(tmp_path / "index", reranker=str(cross_encoder), **named)
    asked = {"decoding": "copy", "min_confidence": 0.0, "top_k": 6}
    before, after = plain.ask("cobble", **asked), answerer.ask("cobble", **asked)
    assert "load" in after.timings
    assert "load" not in answerer.ask("cobble", **asked).timings

    def told(answer: object) -> list[tuple[str, float]]:
        return [(source.title, source.score) for source in answer.sources]  # type: ignore[attr-defined]

    model, _ = models.load_reranker(str(cross_encoder), "cpu", "float32")
    reader = CrossEncoderReranker(model)
    expected = {
        s.title: (s.score + reader.relevance([("cobble", passage(Product("", s.title, s.description)))])[0]) / 2
        for s in before.sources
    }
    assert dict(told(after)) == {title: pytest.approx(score, abs=2e-4) for title, score in expected.items()}
    assert [title for title, _ in told(after)] != [title for title, _ in told(before)]
    assert told(answerer.ask("cobble", **asked, rerank_depth=0)) == told(before)

    answerer.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "answerer.json").read_text())["reranker"]["name"] == str(cross_encoder)
    again = Answerer.from_pretrained(tmp_path / "saved", device="cpu", dtype="float32")
    assert told(again.ask("cobble", **asked)) == told(after)
