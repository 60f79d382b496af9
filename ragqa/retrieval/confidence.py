"""The probability that the first candidate is the product that was asked for.

A similarity alone does not tell "no such product": its scale depends on the catalogue. So a logistic model
over a few features of the candidates is fitted when an index is built, on questions made from the
catalogue itself: about products that are there, and about products that are held out of the search.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from ragqa.errors import IndexDamagedError
from ragqa.records import Candidate
from ragqa.retrieval.noise import mistyped, partial_title
from ragqa.retrieval.text import fold

FEATURES: Final = ("cosine", "overlap", "reverse_overlap", "margin")


@dataclass(frozen=True, slots=True)
class Confidence:
    """A logistic model over `FEATURES`.

    Attributes:
        weights: one per feature.
        bias: added to the weighted sum.
        fitted_on: number of questions it was fitted on, 0 for the default.
        log_loss: mean negative log-likelihood on held-out questions (5-fold), in nats; chance is 0.69 at most.
    """

    weights: tuple[float, ...]
    bias: float
    fitted_on: int = 0
    log_loss: float = math.nan

    def __call__(self, features: Sequence[float]) -> float:
        """Probability in [0, 1]."""
        total = self.bias + sum(w * x for w, x in zip(self.weights, features, strict=True))
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, total))))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        values = asdict(self)
        values["features"] = list(FEATURES)
        if math.isnan(self.log_loss):
            values["log_loss"] = None
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Confidence:
        """The model written by `to_dict`.

        Raises:
            IndexDamagedError: it was written for other features.
        """
        if tuple(values.get("features", ())) != FEATURES or len(values.get("weights", ())) != len(FEATURES):
            raise IndexDamagedError("confidence.json was written for other features; build the index anew")
        log_loss = values.get("log_loss")
        return cls(
            tuple(float(w) for w in values["weights"]),
            float(values["bias"]),
            int(values.get("fitted_on", 0)),
            math.nan if log_loss is None else float(log_loss),
        )


# Where there is no second product there is no margin to judge by; a small one neither decides nor forbids.
_LONE_MARGIN: Final = 0.1

# For catalogues too small to fit on: the model fitted on the project's own demonstration catalogue.
DEFAULT: Final = Confidence(weights=(-2.8, 6.46, 7.01, 15.46), bias=-9.34)


def features(candidates: Sequence[Candidate], reverse_overlap: float) -> tuple[float, ...]:
    """What the model looks at, in the order of `FEATURES`.

    Args:
        candidates: best first, at least one.
        reverse_overlap: share of the first title's trigrams that stand in the question.
    """
    first = candidates[0]
    same = fold(first.product.title)
    # A second product of the very same title is no rival: both are what was asked for.
    rival = next((c for c in candidates[1:] if fold(c.product.title) != same), None)
    margin = first.score - rival.score if rival else _LONE_MARGIN
    return (first.cosine, first.overlap, reverse_overlap, margin)


def fitting_questions(titles: Sequence[str], seed: int) -> Iterator[tuple[int, str, bool]]:
    """Questions to fit on: (number of the title, question's subject, the product is held out).

    Each title gives a question with some of its words and one with typing errors, more or less of either,
    each once with its product in the catalogue and once with it held out.
    """
    random_ = random.Random(seed)  # noqa: S311  (not for secrets)
    for number, title in enumerate(titles):
        partial = partial_title(title, random_, keep=random_.uniform(0.4, 0.9))
        for subject in (partial, mistyped(title, random_, rate=random_.uniform(0.03, 0.15))):
            yield number, subject, False
            yield number, subject, True


def fit(rows: Sequence[tuple[float, ...]], right: Sequence[bool]) -> Confidence:
    """Fit the model; fewer than 100 questions, or answers that are all alike, give the default."""
    if len(rows) < 100 or len(set(right)) < 2 or min(sum(right), len(right) - sum(right)) < 10:
        return DEFAULT
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import cross_val_predict

    inputs, labels = np.array(rows), np.array(right)
    model = LogisticRegression(C=10.0, max_iter=1000)
    held_out = cross_val_predict(model, inputs, labels, cv=5, method="predict_proba")
    model.fit(inputs, labels)
    return Confidence(
        tuple(round(float(w), 6) for w in model.coef_[0]),
        round(float(model.intercept_[0]), 6),
        len(rows),
        round(float(log_loss(labels, held_out)), 6),
    )
