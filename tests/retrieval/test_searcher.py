from pathlib import Path

import pytest

from ragqa.catalogue.store import ProductStore, StoreWriter
from ragqa.errors import IndexDamagedError
from ragqa.records import Product
from ragqa.retrieval.dense import DenseIndex
from ragqa.retrieval.lexical import build_lexical
from ragqa.retrieval.searcher import LocalSearcher
from ragqa.retrieval.titles import TitleTable
from tests.conftest import TrigramEmbedder


def test_a_row_that_no_product_has_is_the_indexs_damage(tmp_path: Path, trigram_embedder: TrigramEmbedder) -> None:
    titles = ["Low Tide", "High Tide"]
    products = [Product(str(row), title, "") for row, title in enumerate(titles)]
    with StoreWriter(tmp_path / "p.arrow") as writer:
        writer.add(products)
    vectors, dense = trigram_embedder.embed_titles(titles), DenseIndex.empty(trigram_embedder.dimension)
    dense.add(vectors)
    searcher = LocalSearcher(
        ProductStore(tmp_path / "p.arrow"), dense, TitleTable.build(titles), build_lexical(products)
    )
    asked = vectors[:1], [["low"]]
    (found,) = searcher.search(*asked, [frozenset({1})], (1, 1))
    assert found.rows.tolist() == [0, 1]
    with pytest.raises(IndexDamagedError, match="names rows that are not there; build the index anew"):
        searcher.search(*asked, [frozenset({2})], (1, 1))
