"""Questions and titles -> the pairs a sentence encoder is trained on, each with a hard negative.

A pair is what retrieval compares: a question's subject and a product's title. Its hard negative is a wrong title
that the index's own vectors put near the subject. What could be right as well is never a negative: questions that
fit several products are left out, and neither the same group of products nor a product that has all of the
question's words is mined or stands in the same batch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ragqa.errors import InputError
from ragqa.records import Product
from ragqa.retrieval.dense import DenseIndex
from ragqa.retrieval.embed import Embedder
from ragqa.retrieval.question import parse_question
from ragqa.retrieval.text import fold
from ragqa.settings import Settings, at_least
from ragqa.training.groups import product_groups
from ragqa.training.questions import WITH_PRODUCT, LabelledQuestion
from ragqa.training.splits import Split, SplitSettings

# How many nearest titles are looked at for one that may serve as a negative.
_DEPTH: Final = 50
# Subjects embedded and searched at once.
_BLOCK: Final = 1024
# Questions made for each one wanted, since those that several products fit are left out.
_SPARE: Final = 1.4
_MAX_SEED: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class RetrieverTrainingSettings(Settings):
    """How a sentence encoder is trained.

    Attributes:
        steps: optimiser steps.
        batch_size: pairs a step; each question is told from twice as many titles.
        learning_rate: the highest, reached after a tenth of the steps and then lowered to 0 in a straight line.
        scale: cosine similarities are multiplied by it before the softmax (1 / temperature).
        kinds: kinds of questions to train on, see `ragqa.training.questions`.
        evaluations: how often, evenly spread, the encoder is measured on validation questions and a checkpoint is
            written; the best checkpoint is what is kept.
        patience: after so many evaluations in a row that are no better than the best, training stops.
        validation: validation questions.
        test: questions about unseen products, for the final figures.
        max_titles: in catalogues with more, figures are taken over a sample of this many titles.
        seed: chooses the split, the questions, the batches and the dropout.
    """

    steps: int = 150
    batch_size: int = 32
    learning_rate: float = 5e-5
    scale: float = 20.0
    kinds: tuple[str, ...] = ("partial", "typo", "reordered", "clue")
    evaluations: int = 5
    patience: int = 3
    validation: int = 500
    test: int = 1000
    max_titles: int = 50_000
    seed: int = 0

    def _problems(self) -> list[str]:
        least = {"steps": 1, "batch_size": 2, "evaluations": 1, "patience": 1, "validation": 1, "test": 1}
        problems = at_least(self, {**least, "max_titles": 100, "seed": 0})
        if isinstance(self.seed, int) and self.seed > _MAX_SEED:
            problems.append(f"seed must be at most {_MAX_SEED}, not {self.seed!r}")
        for name, highest in (("learning_rate", 1.0), ("scale", 1000.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= highest:
                problems.append(f"{name} must be above 0 and at most {highest:g}, not {value!r}")
        kinds: object = self.kinds
        if not isinstance(kinds, tuple) or not kinds or len(set(kinds)) < len(kinds) or set(kinds) - set(WITH_PRODUCT):
            problems.append(f"kinds must be some of {', '.join(WITH_PRODUCT)}, each once, not {kinds!r}")
        return problems

    @property
    def evaluate_every(self) -> int:
        """Steps from one evaluation to the next."""
        return max(1, self.steps // self.evaluations)

    def split(self) -> SplitSettings:
        """Sizes of the split that yields about as many questions as the steps will use."""
        wanted = self.steps * self.batch_size * len(WITH_PRODUCT) / len(self.kinds)
        return SplitSettings(
            train=round(wanted * _SPARE),
            validation=self.validation,
            test=self.test,
            without_product=0.0,
            seed=self.seed,
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """One training example.

    Attributes:
        subject: of the question, as retrieval embeds it.
        title: of the right product.
        negative: the title of a wrong product that is near.
        group: the right product's group; no batch has two pairs that share one.
        negative_group: the same of the wrong product.
    """

    subject: str
    title: str
    negative: str
    group: int
    negative_group: int


def make_pairs(
    products: Sequence[Product],
    split: Split,
    dense: DenseIndex,
    embedder: Embedder,
    settings: RetrieverTrainingSettings,
) -> list[Pair]:
    """The pairs of the split's train part, at most as many as the steps will use.

    Args:
        products: all products, by row.
        split: made with `settings.split()`.
        dense: vectors of their titles, by row, made by `embedder`.
        embedder: the encoder as it is before training.
        settings: how the encoder will be trained.

    Raises:
        InputError: fewer pairs than a batch come of it.
    """
    rows = split.rows["train"]
    inside = product_groups([products[row] for row in rows])
    group_of = {row: rows[first] for row, first in zip(rows, inside, strict=True)}
    row_of = {products[row].id: row for row in rows}
    asked = [q for q in split.questions["train"] if q.kind in settings.kinds and not q.ambiguous]
    asked = asked[: settings.steps * settings.batch_size]
    pairs = []
    for start in range(0, len(asked), _BLOCK):
        block = asked[start : start + _BLOCK]
        subjects = [parse_question(question.text).subject for question in block]
        _, nearest = dense.search(embedder.embed_questions(subjects), _DEPTH)
        for question, subject, near in zip(block, subjects, nearest, strict=True):
            right = row_of[question.product_id or ""]
            wrong = _negative(subject, right, near.tolist(), products, group_of)
            if wrong is None:
                wrong = _any_other(question, right, rows, group_of, settings.seed)
            if wrong is not None:
                pairs.append(
                    Pair(subject, products[right].title, products[wrong].title, group_of[right], group_of[wrong])
                )
    if len(pairs) < settings.batch_size:
        raise InputError(
            f"{len(products)} products give {len(pairs)} training pairs, fewer than a batch of {settings.batch_size}; "
            "lower --batch-size, or train on a larger catalogue"
        )
    return pairs


def _negative(
    subject: str, right: int, near: Sequence[int], products: Sequence[Product], group_of: dict[int, int]
) -> int | None:
    """The nearest row that is surely wrong; None if there is none. Rows outside the train part stay unseen."""
    words = set(fold(subject).split())
    for row in near:
        if row not in group_of or group_of[row] == group_of[right]:
            continue
        product = products[row]
        if not words <= set(fold(f"{product.title} {product.description}").split()):
            return row
    return None


def _any_other(
    question: LabelledQuestion, right: int, rows: Sequence[int], group_of: dict[int, int], seed: int
) -> int | None:
    random_ = random.Random(f"{seed}/{question.text}")  # noqa: S311
    for row in random_.sample(rows, min(len(rows), _DEPTH)):
        if group_of[row] != group_of[right]:
            return row
    return None
