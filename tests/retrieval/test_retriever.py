from pathlib import Path

import pytest

from ragqa.catalogue.store import ProductStore, StoreWriter
from ragqa.records import Product
from ragqa.retrieval.dense import DenseIndex
from ragqa.retrieval.lexical import build_lexical
from ragqa.retrieval.retriever import Retriever
from ragqa.retrieval.searcher import LocalSearcher
from ragqa.retrieval.titles import TitleTable
from tests.conftest import TrigramEmbedder

TITLES = [
    ("b", "Cobble Tyre 25"),
    ("a", "Cobble Tyre 28"),
    ("d", "The Salt Road"),
    ("c", "The Salt Road"),
    ("e", "The Salt Road Home"),
    ("f", "Descrição"),
    ("g", "!!!"),
    ("j", "🎉🎊"),
    ("h", "C++ Primer"),
    ("i", "C Primer"),
]


@pytest.fixture
def retriever(tmp_path: Path, trigram_embedder: TrigramEmbedder) -> Retriever:
    titles = [title for _, title in TITLES]
    products = [Product(id_, title, f"about {title}") for id_, title in TITLES]
    with StoreWriter(tmp_path / "p.arrow") as writer:
        writer.add(products)
    dense = DenseIndex.empty(trigram_embedder.dimension)
    dense.add(trigram_embedder.embed_titles(titles))
    store, words = ProductStore(tmp_path / "p.arrow"), build_lexical(products)
    return Retriever(LocalSearcher(store, dense, TitleTable.build(titles), words), trigram_embedder)


def ids(retriever: Retriever, question: str, k: int = 9) -> list[str]:
    return [c.product.id for c in retriever.retrieve([question], k)[0].candidates]


def test_an_exact_title_wins_and_is_certain(retriever: Retriever) -> None:
    found = retriever.retrieve(["Qual é a descrição deste produto: COBBLE TYRE 25?"])[0]
    assert (found.candidates[0].product.id, found.candidates[0].exact, found.confidence) == ("b", True, 1.0)


def test_all_products_of_one_exact_title_come_first_in_the_order_of_their_ids(retriever: Retriever) -> None:
    found = retriever.retrieve(["the salt road"])[0].candidates
    assert [(c.product.id, c.exact) for c in found[:3]] == [("c", True), ("d", True), ("e", False)]


def test_the_longest_reading_with_an_exact_title_counts(retriever: Retriever) -> None:
    assert ids(retriever, "What is the description of The Salt Road Home?")[0] == "e"
    assert ids(retriever, "descrição")[0] == "f"


def test_titles_that_differ_in_a_sign_that_counts_are_not_mixed_up(retriever: Retriever) -> None:
    found = retriever.retrieve(["C Primer", "C++ Primer"])
    assert [[c.product.id for c in r.candidates if c.exact] for r in found] == [["i"], ["h"]]


def test_a_title_in_part_and_one_mistyped_are_found(retriever: Retriever) -> None:
    assert ids(retriever, "tell me about salt road home")[0] == "e"
    assert ids(retriever, "cobbel tyre 28")[0] == "a"


def test_ties_are_broken_by_product_id(retriever: Retriever) -> None:
    assert ids(retriever, "salt road")[:2] == ["c", "d"]


def test_scores_fall_and_stay_between_zero_and_one(retriever: Retriever) -> None:
    scores = [c.score for c in retriever.retrieve(["salt cobble primer"], 9)[0].candidates]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


def test_a_batch_answers_as_its_questions_one_by_one(retriever: Retriever) -> None:
    questions = ["cobble", "The Salt Road", "primer c", "zzz"]
    assert retriever.retrieve(questions) == [retriever.retrieve([q])[0] for q in questions]
    assert retriever.retrieve([]) == []


def test_top_k_limits_the_candidates(retriever: Retriever) -> None:
    assert len(ids(retriever, "cobble", k=2)) == 2
    assert len(ids(retriever, "cobble", k=100)) == len(TITLES)


def test_fitting_twice_gives_the_same_model(retriever: Retriever) -> None:
    assert retriever.fit_confidence(seed=3) == retriever.fit_confidence(seed=3)


@pytest.mark.parametrize(
    ("question", "several"),
    [
        ("cobble tyre", True),
        ("cobble tyres", False),
        ("cobble tyre 25", False),
        ("salt road", True),
        ("salt cobble", False),
    ],
)
def test_several_products_fit_when_their_titles_have_all_words(
    retriever: Retriever, question: str, several: bool
) -> None:
    fitting = retriever.retrieve([question])[0].fitting
    assert (len(fitting) > 1) is several
    assert all(set(question.split()) <= set(candidate.product.title.lower().split()) for candidate in fitting)


def test_a_product_held_out_is_as_if_it_were_not_there(retriever: Retriever) -> None:
    without = frozenset({TITLES.index(("e", "The Salt Road Home")), TITLES.index(("d", "The Salt Road"))})
    found = retriever.retrieve(["The Salt Road Home", "The Salt Road"], 9, without=without)
    assert [r.candidates[0].product.id for r in found] == ["c", "c"]
    assert not found[0].candidates[0].exact
    assert all({"d", "e"}.isdisjoint(c.product.id for c in r.candidates) for r in found)
    nothing = retriever.retrieve(["anything"], without=frozenset(range(len(TITLES))))[0]
    assert (nothing.candidates, nothing.confidence) == ((), 0.0)


@pytest.mark.parametrize(("question", "id_"), [("!!!", "g"), ("🎉🎊", "j"), ("What is 🎉🎊?", "j")])
def test_a_title_without_a_letter_can_be_asked_for(retriever: Retriever, question: str, id_: str) -> None:
    found = retriever.retrieve([question])[0]
    assert (found.candidates[0].product.id, found.candidates[0].exact) == (id_, True)
