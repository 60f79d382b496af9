import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_bm25 import BM25Plus

from ragqa.errors import IndexDamagedError
from ragqa.files import HashingFile
from ragqa.records import Product
from ragqa.retrieval import lexical
from ragqa.retrieval.lexical import LexicalIndex, RankBM25, build_lexical
from ragqa.retrieval.postings import K1, B, Postings, PostingsWriter
from ragqa.retrieval.terms import terms

WORDS = [
    "lamp",
    "trail",
    "red",
    "blue",
    "cotton",
    "steel",
    "lt-350",
    "r20",
    "32gb",
    "kettle",
    "hammock",
    "for",
    "the",
    "with",
]


def catalogue(count: int, seed: int = 0) -> list[Product]:
    random_ = random.Random(seed)
    weights = [1 / (rank + 1) for rank in range(len(WORDS))]

    def text(least: int, most: int) -> str:
        return " ".join(random_.choices(WORDS, weights, k=random_.randint(least, most)))

    return [Product(str(i), text(1, 9), text(0, 40)) for i in range(count)]


def titles_only(products: list[Product], folder: Path) -> LexicalIndex:
    writer = PostingsWriter(folder / "scratch")
    for start in range(0, len(products), 7):
        writer.add([terms(p.title) for p in products[start : start + 7]])
    with HashingFile(folder / "postings.bin") as file:
        writer.write(file)
    return LexicalIndex(Postings.load(folder / "postings.bin"))


QUESTIONS = [
    "red lamp",
    "r20",
    "the lamp with the steel kettle",
    "hammock 32 gb",
    "kettle kettle red",
    "nothing of it",
    "",
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_ranking_is_that_of_rank_bm25_and_of_bm25s(question: str, tmp_path: Path) -> None:
    products = catalogue(300)
    words, corpus = terms(question), [terms(p.title) for p in products]
    index = titles_only(products, tmp_path)
    rows, scores = index.search(words, 1000)
    reference = BM25Plus(corpus, k1=K1, b=B)
    expected = reference.get_scores(words)
    # Its delta is added to all rows alike.
    np.testing.assert_allclose(expected[rows] - scores, expected.min() if words else 0, atol=1e-4)
    assert {int(row) for row in np.flatnonzero(expected > expected.min() + 1e-6)} == set(rows.tolist())
    other = bm25s.BM25(method="bm25+", k1=K1, b=B, delta=1)
    other.index(corpus, show_progress=False)
    known = [word for word in words if word in other.vocab_dict]
    if known:
        found = other.get_scores(known)
        np.testing.assert_allclose(np.sort(found[rows])[::-1], found[rows], atol=1e-4)
        assert RankBM25([p.title for p in products]).search(words, 5)[0].tolist() == rows[:5].tolist()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 30), st.lists(st.sampled_from(WORDS), max_size=8))
def test_scores_are_the_weights_of_all_matching_words_added_up(seed: int, k: int, question: list[str]) -> None:
    products = catalogue(60, seed)
    index = build_lexical(products)
    words = terms(" ".join(question))
    total = np.zeros(len(products))
    for postings, weight in ((index.titles, 1.0), (index.descriptions, lexical.DESCRIPTION_WEIGHT)):
        assert postings is not None
        for word in words:
            place = postings.find(word)
            if place is not None:
                rows, pairs = postings.entries(place)
                total[rows] += weight * postings.rarity(place) * postings.saturation[pairs]
    expected = [row for row in np.lexsort((np.arange(len(total)), -total.round(4))) if total[row] > 0][:k]
    rows, scores = index.search(words, k)
    assert len(rows) == len(expected)
    np.testing.assert_allclose(scores, total[rows], rtol=1e-4)
    np.testing.assert_allclose(scores, total[expected], rtol=1e-4)


def test_a_word_of_a_description_finds_its_product_and_one_of_a_title_counts_more() -> None:
    products = [
        Product("a", "Lamp", "Gives red light"),
        Product("b", "Red chair", "For one"),
        Product("c", "Table", "Oak"),
    ]
    index = build_lexical([*products, *(Product(str(i), f"Thing {i}", "") for i in range(20))])
    assert index.search(terms("red"), 5)[0].tolist() == [1, 0]
    assert index.search(terms("oak"), 5)[0].tolist() == [2]


def test_coverage_weighs_rare_words_more_and_is_one_where_all_are_held() -> None:
    products = [Product(str(i), "lamp", "") for i in range(20)] + [
        Product("x", "lamp kettle", ""),
        Product("y", "kettle", "a lamp"),
    ]
    index = build_lexical(products)
    shares = index.coverage(terms("lamp kettle"), np.array([0, 20, 21], np.uint32))
    assert shares[1] == shares[2] == pytest.approx(1)
    assert 0 < shares[0] < 0.1
    assert index.coverage(terms("lamp unheard"), np.array([0], np.uint32))[0] < 0.1
    assert index.coverage([], np.array([0], np.uint32)).tolist() == [0.0]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("hammok", "hammock"),
        ("hammocck", "hammock"),
        ("hamnock", "hammock"),
        ("hmamock", "hammock"),
        ("hammocks", "hammock"),
    ],
)
def test_a_mistyped_word_finds_what_was_meant(typed: str, meant: str) -> None:
    index = build_lexical([Product("a", "Cotton hammock", ""), Product("b", "Steel kettle", "")])
    assert index.search(terms(typed), 5)[0].tolist() == [0]
    assert index.coverage(terms(typed), np.array([0, 1], np.uint32)).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("typed", ["xyz", "ammock", "ham", "350", "hummack"])
def test_what_is_too_short_or_too_far_is_no_mistake_for_anything(typed: str) -> None:
    index = build_lexical([Product("a", "Cotton hammock", ""), Product("b", "Steel kettle", "")])
    assert index.search(terms(typed), 5)[0].tolist() == []


def test_what_was_written_is_what_is_mapped(tmp_path: Path) -> None:
    products = catalogue(50)
    files = lexical.write_lexical(products, tmp_path, tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()
    assert {name: file.size for name, file in files.items()} == {
        n: (tmp_path / n).stat().st_size for n in lexical.FILES
    }
    mapped, made = LexicalIndex.load(tmp_path), build_lexical(products)
    for question in QUESTIONS:
        for one, other in zip(mapped.search(terms(question), 9), made.search(terms(question), 9), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_word_that_too_many_descriptions_have_finds_nothing_and_is_no_mistake_for_another() -> None:
    products = [Product(str(i), f"Width gauge {i}", "Comes with a warranty") for i in range(20)]
    index = build_lexical([*products, Product("x", "Lamp without", "Plain")])
    assert index.descriptions is not None
    assert index.descriptions.find("warranty") is not None
    for word in ("warranty", "with"):  # "with" would else be taken for "width"
        assert index.search(terms(word), 5)[0].tolist() == []
        assert index.coverage(terms(word), np.array([0, 20], np.uint32)).tolist() == [0.0, 0.0]
    assert index.search(terms("widht"), 5)[0].tolist() == [0, 1, 2, 3, 4]
    rows, scores = index.search(terms("lamp with"), 5)
    assert (rows.tolist(), scores.tolist()) == ([20], index.search(terms("lamp"), 5)[1].tolist())


def test_a_word_of_titles_that_too_many_descriptions_have_is_searched_in_titles_alone() -> None:
    products = [Product(str(i), f"Gauge {i}", "Of steel") for i in range(20)]
    index = build_lexical([*products, Product("x", "Steel lamp", "Of steel")])
    assert index.search(terms("steel"), 5)[0].tolist() == [20]
    assert index.coverage(terms("steel"), np.array([0, 20], np.uint32)).tolist() == [0.0, 1.0]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(8, 40), st.integers(0, 20), st.data())
def test_an_updated_index_is_byte_for_byte_one_of_all_products(
    seed: int, count: int, more: int, data: st.DataObject
) -> None:
    def described(products: list[Product]) -> list[Product]:
        # One word that all have, which stays left out, and one that two have at most.
        letters = str.maketrans("0123456789", "abcdefghij")
        return [Product(p.id, p.title, f"everywhere {p.id.translate(letters)}") for p in products]

    old, new = described(catalogue(count, seed)), described(catalogue(more, seed + 1))
    kept = np.array(sorted(data.draw(st.sets(st.integers(0, count - 1)))), np.int64)
    with tempfile.TemporaryDirectory() as folder:
        before, after, anew = (Path(folder) / part for part in ("before", "after", "anew"))
        lexical.write_lexical(old, before, before / "scratch")
        lexical.write_lexical(new, after, after / "scratch", old=LexicalIndex.load(before), kept=kept)
        lexical.write_lexical([old[row] for row in kept] + new, anew, anew / "scratch")
        if more or len(kept):  # else nobody has the word that is left out
            assert all((after / name).read_bytes() == (anew / name).read_bytes() for name in lexical.FILES)


@pytest.mark.parametrize("name", lexical.FILES)
@pytest.mark.parametrize("size", [3, -5])
def test_a_file_cut_short_is_refused(name: str, size: int, tmp_path: Path) -> None:
    lexical.write_lexical(catalogue(50), tmp_path, tmp_path / "scratch")
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:size])
    with pytest.raises(IndexDamagedError, match="build the index anew"):
        LexicalIndex.load(tmp_path)


def test_a_catalogue_without_a_word_is_searched_in_vain() -> None:
    index = build_lexical([Product("a", "!!!", ""), Product("b", "🎉", "")])
    assert index.search(terms("lamp"), 5)[0].tolist() == []
    assert len(index) == 2


@pytest.mark.parametrize("looked_up", [0, 10**6], ids=["rows are looked up", "lists are added"])
@pytest.mark.parametrize("k", [1, 3, 20])
def test_rows_are_left_out_early_and_the_best_are_the_same(
    k: int, looked_up: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    products = catalogue(200, k)
    index, whole = build_lexical(products), [terms(" ".join(WORDS)), *map(terms, QUESTIONS), terms("hammock the red")]
    wanted = [index.search(words, k) for words in whole]
    left: list[int] = []

    def look_up(lists: Sequence[Any], total: Any, rows: Any, least: float) -> Any:
        found = real(lists, total, rows, least)
        left.append(len(rows) - len(found))
        return found

    real = lexical._look_up
    monkeypatch.setattr(lexical, "_look_up", look_up)
    monkeypatch.setattr(lexical, "_ADDED", 10)
    monkeypatch.setattr(lexical, "_TRIED", 40)
    monkeypatch.setattr(lexical, "_LOOKED_UP", looked_up)
    for words, (rows, scores) in zip(whole, wanted, strict=True):
        found = index.search(words, k)
        assert found[0].tolist() == rows.tolist()
        np.testing.assert_allclose(found[1], scores, rtol=1e-5)
    assert max(left) > 0


def test_where_too_few_rows_were_tried_none_is_left_out() -> None:
    rows, total = np.arange(3, dtype=np.uint32), np.arange(5, dtype=np.float32)
    assert lexical._surely([], total, [], 1) == -np.inf
    assert lexical._surely([], total, [rows], 4) == -np.inf
    assert lexical._surely([], total, [rows], 2) == pytest.approx(1.0, rel=1e-5)


def test_products_read_by_blocks_are_indexed_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[int, list[int]] = {}
    for size in (7, 4096):
        monkeypatch.setattr(lexical, "_BLOCK", size)
        folder = tmp_path / str(size)
        lexical.write_lexical(catalogue(21), folder, folder / "scratch", told.setdefault(size, []).append)
    assert told == {7: [7, 7, 7], 4096: [21]}
    for name in lexical.FILES:
        assert (tmp_path / "7" / name).read_bytes() == (tmp_path / "4096" / name).read_bytes()
