from __future__ import annotations

import pytest

from ragqa.records import Product
from ragqa.training.questions import LabelledQuestion
from ragqa.training.recall import Ranked, change, rank_titles, recalls, searched_rows
from tests.conftest import TrigramEmbedder

RANKED = [
    Ranked("partial", True, 1, 1),
    Ranked("partial", False, 4, 2),
    Ranked("typo", True, None, 1),
    Ranked("typo", True, 2, None),
]


def test_recalls_and_reciprocal_ranks_are_those_counted_by_hand() -> None:
    found = recalls(RANKED)
    assert list(found) == ["partial", "typo", "all", "sure"]
    assert found["all"] == {
        "questions": 4,
        "sure": 0.75,
        "dense": {"1": 0.25, "3": 0.5, "10": 0.75, "mrr": 0.4375},
        "retriever": {"1": 0.5, "3": 0.75, "10": 0.75, "mrr": 0.625},
    }
    assert found["sure"] == {
        "questions": 3,
        "sure": 1.0,
        "dense": {"1": 0.3333, "3": 0.6667, "10": 0.6667, "mrr": 0.5},
        "retriever": {"1": 0.6667, "3": 0.6667, "10": 0.6667, "mrr": 0.6667},
    }
    assert found["typo"]["dense"] == {"1": 0.0, "3": 0.5, "10": 0.5, "mrr": 0.25}


def test_a_change_is_told_by_questions_won_and_lost() -> None:
    before = [Ranked("typo", True, rank, 1) for rank in (1, 2, 2, 2, 4, None, 2, 1)]
    after = [Ranked("typo", True, rank, 1) for rank in (2, 1, 1, 1, 1, 1, 1, 1)]
    before += [Ranked("partial", False, 5, 5)] * 9
    after += [Ranked("partial", False, 1, 1)] * 9
    # 6 won, 1 lost: (1 + 7) / 2**7 on one side. The nine that several products fit do not count.
    assert change(before, after, "dense") == {"won": 6, "lost": 1, "p": 0.125}
    assert change(before, after, "dense", 3) == {"won": 2, "lost": 0, "p": 0.5}
    clear = change([Ranked("typo", True, 2, 2)] * 40, [Ranked("typo", True, 1, 2)] * 40, "dense")
    assert clear == {"won": 40, "lost": 0, "p": 1.82e-12}
    assert change(before, after, "retriever") == {"won": 0, "lost": 0, "p": 1.0}


def test_a_title_is_found_by_vectors_and_by_the_whole_retriever(trigram_embedder: TrigramEmbedder) -> None:
    titles = ["Alpha Lamp 350", "Alpha Lamp 360", "ALPHA lamp 350", "Zulu Bed", "Yankee Sofa"]
    products = [Product(str(i), title, "text") for i, title in enumerate(titles)]
    vectors = trigram_embedder.embed_titles(titles)
    asked = [
        LabelledQuestion("What is the description of Zulu Bed?", "exact", "3", "Zulu Bed"),
        LabelledQuestion("Tell me about alpha lamp 350.", "exact", "2", "alpha lamp 350", ambiguous=True),
        LabelledQuestion("Tell me about Zulu Bed.", "partial", "4", "Zulu Bed"),
    ]
    bed, lamp, sofa = rank_titles(products, vectors, trigram_embedder, asked)
    assert bed == Ranked("exact", True, 1, 1)
    assert lamp == Ranked("exact", False, 1, 1)  # of two products of one folded title either will do
    assert sofa.kind == "partial"
    assert sofa.dense is not None
    assert sofa.dense > 1
    assert sofa.retriever is not None
    assert sofa.retriever > 1


def test_a_large_catalogue_is_searched_in_a_sample_that_has_what_is_asked_about() -> None:
    asked = [LabelledQuestion("q", "exact", "b", "q"), LabelledQuestion("q", "exact", "y", "q")]
    row_of = {"b": 1, "y": 24}
    rows = searched_rows(range(26), row_of, asked, limit=10, seed=0)
    assert len(rows) == 10
    assert {1, 24} <= set(rows)
    assert rows == sorted(set(rows))
    assert rows == searched_rows(range(26), row_of, asked, limit=10, seed=0)
    assert rows != searched_rows(range(26), row_of, asked, limit=10, seed=1)
    assert searched_rows(range(26), row_of, asked, limit=26, seed=0) == list(range(26))


@pytest.mark.parametrize("limit", [1, 2])
def test_what_is_asked_about_is_searched_even_beyond_the_limit(limit: int) -> None:
    asked = [LabelledQuestion("q", "exact", "b", "q"), LabelledQuestion("q", "exact", "y", "q")]
    assert searched_rows(range(26), {"b": 1, "y": 24}, asked, limit, seed=0) == [1, 24]
