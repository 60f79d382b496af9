"""An index -> the questions, contexts and tokens of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ragqa.errors import InputError
from ragqa.index.storage import ProductIndex
from ragqa.records import Product
from ragqa.retrieval.retriever import Retriever
from ragqa.training.contexts import Context, ContextSettings, ask_more, make_contexts
from ragqa.training.questions import TEMPLATES, LabelledQuestion, QuestionMaker, read_questions
from ragqa.training.recipe import Recipe
from ragqa.training.splits import Split, make_split


@dataclass(frozen=True, slots=True)
class Examples:
    """What a run trains on and watches itself with.

    Attributes:
        products: all of the index, by row.
        split: the questions of all parts; its train part holds those that are really trained on.
        train: contexts to train on.
        watched: contexts to watch training with, made as those for training.
        asked: the validation questions with the candidates that answering will show, right product or not.
    """

    products: Sequence[Product]
    split: Split
    train: tuple[Context, ...]
    watched: tuple[Context, ...]
    asked: tuple[Context, ...]


def make_examples(
    index: ProductIndex,
    retriever: Retriever,
    recipe: Recipe,
    templates: Sequence[str] = TEMPLATES,
    questions: str | Path | None = None,
) -> Examples:
    """Split the index's products, make questions, and retrieve their contexts.

    Args:
        index: the product index.
        retriever: over it.
        recipe: sizes, seeds, and how contexts are made.
        templates: questions with ``{subject}`` in them.
        questions: a file of the user's own questions to train on, in place of made ones; those about products of
            another part are left out of training.

    Raises:
        InputError: the index has too few products, or nothing is left to train on.
    """
    products: list[Product] = list(index.store)
    by_id = {product.id: (row, product) for row, product in enumerate(products)}
    maker = QuestionMaker(products, templates, recipe.seed)
    split = make_split(products, recipe.split(), maker)
    if questions is not None:
        split = _with_own(split, products, list(read_questions(questions, by_id)), questions)
    without = frozenset(split.rows["absent"])
    settings = recipe.contexts()

    def contexts(asked: Sequence[LabelledQuestion], use: ContextSettings) -> tuple[Context, ...]:
        return tuple(make_contexts(asked, by_id, retriever, without, use))

    taken = {q.text for name, asked in split.questions.items() if name != "train" for q in asked}
    more = ask_more(
        make_contexts(split.questions["train"], by_id, retriever, without, settings),
        maker, frozenset(split.rows["train"]), recipe.questions_per_context, recipe.number_questions, taken, recipe.seed,
    )  # fmt: skip
    trained = tuple(_first(more, recipe.examples))
    split = replace(split, questions={**split.questions, "train": tuple(c.asked for c in trained)})
    validation = split.questions["validation"]
    shown = replace(settings, gold_fraction=1.0, order="retriever", insert=False)
    watched = contexts(validation[: recipe.watched], settings)
    return Examples(products, split, trained, watched, contexts(validation, shown))


def _first(contexts: Iterable[Context], count: int) -> Iterator[Context]:
    """Contexts up to the last of `count` answered ones."""
    for context in contexts:
        if context.answered and count == 0:
            return
        yield context
        count -= context.answered


def _with_own(split: Split, products: Sequence[Product], own: list[LabelledQuestion], path: str | Path) -> Split:
    train = {products[row].id for row in split.rows["train"]}
    kept = tuple(q for q in own if q.product_id is None or q.product_id in train)
    if not kept:
        raise InputError(
            f"{path}: none of its {len(own)} questions is about a product of the training part; give more questions, "
            "or raise the first of the recipe's fractions"
        )
    return replace(split, questions={**split.questions, "train": kept})
