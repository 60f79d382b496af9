from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ragqa.errors import InputError
from ragqa.records import Product
from ragqa.retrieval.dense import DenseIndex
from ragqa.retrieval.text import fold
from ragqa.training.pairs import Pair, RetrieverTrainingSettings, make_pairs
from ragqa.training.questions import LabelledQuestion
from ragqa.training.splits import Split, SplitSettings, make_split
from tests.conftest import TrigramEmbedder

SMALL = RetrieverTrainingSettings(steps=8, batch_size=8, validation=10, test=10)


def catalogue(count: int = 80) -> list[Product]:
    """Titles of a few shared words, so that near ones abound; descriptions of their own."""
    colours, things = "red green blue black white".split(), "lamp chair table clock shelf rug".split()
    return [
        Product(f"p{i}", f"{colours[i % 5]} {things[i % 6]} model{i}", " ".join(f"word{i}x{j}" for j in range(12)))
        for i in range(count)
    ]


def index_of(products: list[Product], embedder: TrigramEmbedder) -> DenseIndex:
    dense = DenseIndex.empty(embedder.dimension)
    dense.add(embedder.embed_titles([product.title for product in products]))
    return dense


def split_of(products: list[Product], asked: list[LabelledQuestion], train: tuple[int, ...]) -> Split:
    others = tuple(row for row in range(len(products)) if row not in train)
    rows = {"train": train, "validation": (), "unseen": others, "absent": ()}
    return Split(SplitSettings(), rows, {"train": tuple(asked), "validation": (), "test_unseen": ()}, len(products))


def ask(product: Product, subject: str, kind: Any = "partial", ambiguous: bool = False) -> LabelledQuestion:
    return LabelledQuestion(f"Tell me about {subject}.", kind, product.id, subject, ambiguous)


def pairs_of(
    products: list[Product], asked: list[LabelledQuestion], embedder: TrigramEmbedder, train: tuple[int, ...] = ()
) -> list[Pair]:
    split = split_of(products, asked, train or tuple(range(len(products))))
    two = RetrieverTrainingSettings(batch_size=2)
    return make_pairs(products, split, index_of(products, embedder), embedder, two)


def test_pairs_are_of_the_train_part_alone(trigram_embedder: TrigramEmbedder) -> None:
    products = catalogue()
    split = make_split(products, SMALL.split())
    pairs = make_pairs(products, split, index_of(products, trigram_embedder), trigram_embedder, SMALL)
    titles = {products[row].title for row in split.rows["train"]}
    assert len(pairs) == SMALL.steps * SMALL.batch_size
    assert {pair.title for pair in pairs} | {pair.negative for pair in pairs} <= titles
    assert all(pair.group != pair.negative_group for pair in pairs)


def test_the_subject_is_what_retrieval_embeds(trigram_embedder: TrigramEmbedder) -> None:
    products = catalogue(12)
    pairs = pairs_of(products, [ask(products[0], "model0 red"), ask(products[1], "model1 green")], trigram_embedder)
    assert [pair.subject for pair in pairs] == ["model0 red", "model1 green"]


def test_the_negative_is_the_nearest_title_that_is_surely_wrong(trigram_embedder: TrigramEmbedder) -> None:
    texts = [" ".join(f"w{i}x{j}" for j in range(9)) for i in range(6)]
    titles = ["alpha lamp 350", "alpha lamp 350!", "alpha lamp 350 steel", "alpha lamp 360", "alpha torch", "zulu bed"]
    products = [Product(str(i), title, text) for i, (title, text) in enumerate(zip(titles, texts, strict=True))]
    asked = [ask(products[0], "alpha lamp 350"), ask(products[5], "bed zulu")]
    (pair, other) = pairs_of(products, asked, trigram_embedder)
    # 1 is of the same folded title and 2 has all words of the question: either may be what was meant.
    assert pair.negative == "alpha lamp 360"
    assert other.negative not in ("zulu bed", other.title)


def test_words_of_a_description_make_a_product_fit_too(trigram_embedder: TrigramEmbedder) -> None:
    titles = ["alpha lamp", "alpha lamp two", "zulu bed", "alpha rug"]
    texts = ["bright sky with cells", "runs on cells and more", "made of oak", "woven by hand"]
    products = [Product(str(i), title, text) for i, (title, text) in enumerate(zip(titles, texts, strict=True))]
    asked = [ask(products[0], "alpha lamp cells", "clue"), ask(products[2], "zulu")]
    assert pairs_of(products, asked, trigram_embedder)[0].negative == "alpha rug"


def test_rows_outside_the_train_part_are_no_negatives(trigram_embedder: TrigramEmbedder) -> None:
    titles = ["alpha lamp 350", "alpha lamp 360", "zulu bed", "yankee sofa"]
    products = [Product(str(i), title, f"text number {i} of its own {i}{i}") for i, title in enumerate(titles)]
    asked = [ask(products[0], "alpha lamp 350"), ask(products[2], "zulu bed")]
    pairs = pairs_of(products, asked, trigram_embedder, train=(0, 2, 3))
    assert "alpha lamp 360" not in {pair.negative for pair in pairs}


def test_questions_that_several_products_fit_are_left_out(trigram_embedder: TrigramEmbedder) -> None:
    products = catalogue(12)
    asked = [ask(products[i], f"model{i}") for i in range(3)] + [ask(products[4], "lamp", ambiguous=True)]
    assert "lamp" not in {pair.subject for pair in pairs_of(products, asked, trigram_embedder)}


def test_only_the_kinds_chosen_are_trained_on(trigram_embedder: TrigramEmbedder) -> None:
    products = catalogue()
    settings = RetrieverTrainingSettings(steps=4, batch_size=4, kinds=("reordered",))
    split = make_split(products, settings.split())
    pairs = make_pairs(products, split, index_of(products, trigram_embedder), trigram_embedder, settings)
    assert len(pairs) == 16
    for pair in pairs:
        assert sorted(fold(pair.subject).split()) == sorted(fold(pair.title).split())


def test_too_few_pairs_for_a_batch_are_told(trigram_embedder: TrigramEmbedder) -> None:
    products = catalogue(12)
    split = split_of(products, [ask(products[0], "model0")], tuple(range(12)))
    with pytest.raises(
        InputError, match=r"12 products give 1 training pairs, fewer than a batch of 32; lower --batch-size"
    ):
        make_pairs(products, split, index_of(products, trigram_embedder), trigram_embedder, RetrieverTrainingSettings())


def test_all_wrong_settings_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        RetrieverTrainingSettings.from_dict(
            {
                "steps": 0,
                "batch_size": 1,
                "learning_rate": 0,
                "scale": "x",
                "kinds": ("partial", "absent"),
                "seed": 2**32,
            }
        )
    problems = str(caught.value).split("; ")
    assert [problem.split()[0] for problem in problems] == "steps batch_size seed learning_rate scale kinds".split()
    assert "kinds must be some of exact, partial, typo, reordered, clue" in problems[-1]


def test_an_unknown_setting_is_told_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"unknown setting 'step'; RetrieverTrainingSettings has: steps, batch_size"):
        RetrieverTrainingSettings.from_dict({"step": 3})


@pytest.mark.parametrize(("steps", "evaluations", "every"), [(150, 5, 30), (4, 5, 1), (11, 2, 5)])
def test_evaluations_are_spread_over_the_steps(steps: int, evaluations: int, every: int) -> None:
    assert RetrieverTrainingSettings(steps=steps, evaluations=evaluations).evaluate_every == every


def test_vectors_of_rows_are_those_that_were_added() -> None:
    dense = DenseIndex.empty(2)
    dense.add(np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32))
    np.testing.assert_array_equal(dense.vectors([2, 0]), np.array([[0.6, 0.8], [1, 0]], np.float32))


def test_where_all_that_is_near_may_fit_the_negative_is_any_other_product(trigram_embedder: TrigramEmbedder) -> None:
    products = [
        Product(f"p{i}", f"{colour} lamp", f"{colour} " * 9) for i, colour in enumerate("red blue green".split())
    ]
    asked = [ask(products[0], "lamp"), ask(products[1], "lamp")]
    pairs = pairs_of(products, asked, trigram_embedder)
    assert [pair.title for pair in pairs] == ["red lamp", "blue lamp"]
    assert all(pair.negative in {"red lamp", "blue lamp", "green lamp"} - {pair.title} for pair in pairs)
    assert pairs == pairs_of(products, asked, trigram_embedder)


def test_products_of_one_group_give_no_pair(trigram_embedder: TrigramEmbedder) -> None:
    products = [Product(f"p{i}", "red lamp", f"{word} " * 9) for i, word in enumerate("warm cold".split())]
    with pytest.raises(InputError, match="2 products give 0 training pairs, fewer than a batch of 2"):
        pairs_of(products, [ask(product, "lamp") for product in products], trigram_embedder)
