"""The first candidates of a question, read again by a cross-encoder.

A cross-encoder (Nogueira, Cho 2019, arXiv 1901.04085) reads question and product in one piece and says how well they go
together. It sees what vectors made apart from each other do not, and costs a pass of the model for each pair, so only the
first candidates are read.

The score of a candidate is the mean of the retriever's own, in [0, 1], and of the cross-encoder's relevance, the sigmoid of
its logit, in [0, 1]. One that was not read counts as irrelevant, and so never passes one that was. Where the cross-encoder is
decided, it decides; where it gives all candidates nearly 0, or nearly 1, the retriever's order remains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from ragqa.catalogue.clean import cut_at_word
from ragqa.errors import ModelError
from ragqa.records import Candidate, Product

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

# The weight of relevance beside the retriever's own score, which has 1.
WEIGHT: Final = 1.0
# Of a description. Published cross-encoders are trained on MS MARCO, whose passages have some 60 words: a title alone is
# shorter than anything they were asked about and lacks the words of a question about a use or a property; a whole
# description of 4,000 characters takes ten times as long and would be cut by most of them anyway.
_CHARS: Final = 400
# Pairs read at once; like batches of the embedder.
_BATCH: Final = {"cpu": 32, "cuda": 512, "mps": 128}
# A score of 1 is an exact title's alone.
_MOST: Final = 0.9999


class Reranker(Protocol):
    """What retrieval needs of a cross-encoder."""

    def relevance(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """How well the texts of each pair (question, product) go together, in [0, 1]."""


class CrossEncoderReranker:
    """A `Reranker` over a sentence-transformers CrossEncoder of one label, with its own default prompt."""

    def __init__(self, model: CrossEncoder) -> None:
        self._model = model
        self._batch = _BATCH.get(str(model.device).partition(":")[0], 32)

    def relevance(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The sigmoid of the model's logit for each pair.

        Some models' own activation gives logits, others' a sigmoid: here all are on one scale.

        Raises:
            ModelError: the model gave something that is no number.
        """
        if not pairs:
            return []
        from torch.nn import Identity

        logits = self._model.predict(
            list(pairs), batch_size=self._batch, show_progress_bar=False, activation_fn=Identity()
        )
        values = [float(logit) for logit in logits]
        if any(math.isnan(value) for value in values):
            raise ModelError("the reranker gives scores that are no numbers; try --dtype float32, or another one")
        return [1 / (1 + math.exp(-max(-50.0, min(50.0, value)))) for value in values]


def passage(product: Product) -> str:
    """What is read of a product: its title and the beginning of its description."""
    return f"{product.title}\n{cut_at_word(product.description, _CHARS)}"


def relevances(
    reranker: Reranker, subjects: Sequence[str], ranked: Sequence[Sequence[Candidate]], depth: int
) -> list[list[float] | None]:
    """For each question the relevance of its first candidates, computed for all questions at once.

    A question whose exact title was found needs no reader: it has None.

    Args:
        subjects: what the questions name.
        ranked: their candidates, best first.
        depth: how many are read.
    """
    read = [() if found and found[0].exact else found[:depth] for found in ranked]
    pairs = [
        (subject, passage(candidate.product))
        for subject, found in zip(subjects, read, strict=True)
        for candidate in found
    ]
    told = iter(reranker.relevance(pairs))
    return [[next(told) for _ in found] or None for found in read]


def reranked(candidates: Sequence[Candidate], relevance: Sequence[float]) -> list[Candidate]:
    """The candidates in their new order, best first, with their new scores; ties leave them as they were.

    Args:
        candidates: best first, none of them exact.
        relevance: of the first of them, in [0, 1]; the others were not read.
    """
    read = [*relevance, *[0.0] * (len(candidates) - len(relevance))]
    scored = (
        replace(candidate, score=min(_MOST, (candidate.score + WEIGHT * value) / (1 + WEIGHT)))
        for candidate, value in zip(candidates, read, strict=True)
    )
    return sorted(scored, key=lambda candidate: -candidate.score)
