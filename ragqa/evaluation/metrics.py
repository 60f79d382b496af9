"""The measures as `evaluate.Metric`: ``ExactMatch().compute(predictions=[...], references=[...])``.

They need no network, and unlike other metrics of `evaluate` keep what they are given in memory: nothing is written
to a cache, no folder is made there. Any prediction or reference may be None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

import datasets
import evaluate

from ragqa.evaluation import corpus, scores
from ragqa.evaluation.scores import Array, Measure, Texts

_MEASURES: Final = {measure.name: measure for measure in (*scores.MEASURES, *corpus.CORPUS_MEASURES)}
_INPUTS: Final = """
Args:
    predictions: {predictions}, one a question, or None.
    references: {references}, in the same order, or None.

Returns:
    A dictionary with ``{name}``.
"""


class TextMetric(evaluate.Metric):  # type: ignore[misc]
    """Base of all: two columns of texts to one number.

    Args:
        config_name: as of every `evaluate.Metric`.
        options: the same, but for ``keep_in_memory``, which is always true.
    """

    measure: ClassVar[str]
    predictions: ClassVar[str] = "the answers"
    references: ClassVar[str] = "the descriptions"

    def __init__(self, config_name: str | None = None, **options: Any) -> None:
        super().__init__(config_name, **{**options, "keep_in_memory": True})

    def score(self, predictions: Texts, references: Texts) -> float:
        """The number; 0 for no questions at all."""
        raise NotImplementedError

    def _build_data_dir(self) -> str:
        # The base class would make an empty folder for every metric.
        return str(self._data_dir_root)

    def _enforce_nested_string_type(self, schema: Any, obj: Any) -> None:
        # The base class would take a leading None for a wrong type.
        if obj is not None:
            super()._enforce_nested_string_type(schema, obj)

    def _info(self) -> evaluate.MetricInfo:
        found: Measure = _MEASURES[self.measure]
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=found.about,
            citation=found.cite,
            inputs_description=_INPUTS.format(
                predictions=self.predictions, references=self.references, name=found.name
            ),
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: Sequence[str | None], references: Sequence[str | None]) -> dict[str, float]:
        return {self.measure: self.score(list(predictions), list(references))}


class _Mean(TextMetric):
    by_question: ClassVar[Callable[[Texts, Texts], Array]]
    column: ClassVar[int | None] = None

    def score(self, predictions: Texts, references: Texts) -> float:
        if not predictions:
            return 0.0
        found = type(self).by_question(predictions, references)
        return float((found if self.column is None else found[:, self.column]).mean())


class ExactMatch(_Mean):
    """Share of answers that are their references after SQuAD's normalisation; the original study's "accuracy"."""

    measure = "exact_match"
    by_question = scores.exact_match


class TokenPrecision(_Mean):
    """Mean share of the answer's tokens that the reference has."""

    measure, column = "precision", 0
    by_question = scores.token_overlap


class TokenRecall(_Mean):
    """Mean share of the reference's tokens that the answer has."""

    measure, column = "recall", 1
    by_question = scores.token_overlap


class TokenF1(_Mean):
    """Mean F1 of tokens, as in SQuAD."""

    measure, column = "f1", 2
    by_question = scores.token_overlap


class Rouge1(_Mean):
    """Mean F1 of words."""

    measure, column = "rouge1", 0
    by_question = scores.rouge


class Rouge2(_Mean):
    """Mean F1 of pairs of words in succession."""

    measure, column = "rouge2", 1
    by_question = scores.rouge


class RougeL(_Mean):
    """Mean F1 of the longest common subsequence of words."""

    measure, column = "rougeL", 2
    by_question = scores.rouge


class Grounded(_Mean):
    """Mean share of the answer's words that come from the source it names."""

    measure = "grounded"
    references = "the texts of the sources the answers name"
    by_question = scores.grounded


class RightProduct(_Mean):
    """Share of answers whose source is the product asked for."""

    measure = "right_product"
    predictions, references = "ids of the sources", "ids of the products asked for"
    by_question = scores.right_product


class Bleu(TextMetric):
    """Corpus BLEU of sacrebleu, from 0 to 100."""

    measure = "bleu"

    def score(self, predictions: Texts, references: Texts) -> float:
        """The score of all answers together."""
        return float(corpus.corpus_score("bleu", corpus.statistics("bleu", predictions, references).sum(axis=0)))


class ChrF(TextMetric):
    """Corpus chrF of sacrebleu, from 0 to 100."""

    measure = "chrf"

    def score(self, predictions: Texts, references: Texts) -> float:
        """The score of all answers together."""
        return float(corpus.corpus_score("chrf", corpus.statistics("chrf", predictions, references).sum(axis=0)))
