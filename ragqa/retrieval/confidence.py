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

from ragqa.errors import IndexDamagedError, InputError
from ragqa.records import Candidate, Product
from ragqa.retrieval.noise import mistyped, partial_title, with_clues
from ragqa.retrieval.text import fold

FEATURES: Final = ("cosine", "overlap", "reverse_overlap", "coverage", "margin", "rivals")
_POINTS: Final = 50  # on a curve of risk against coverage


@dataclass(frozen=True, slots=True)
class Confidence:
    """A logistic model over `FEATURES`.

    Attributes:
        weights: one per feature.
        bias: added to the weighted sum.
        fitted_on: number of questions it was fitted on, 0 for the default.
        log_loss: mean negative log-likelihood on held-out questions (5-fold), in nats; chance is 0.69 at most.
        curve: risk against coverage on them: thresholds, ascending, each with the share of the questions that are
            answered from it on and the share of those answers that is right. Half of the questions are about products
            held out of the search.
    """

    weights: tuple[float, ...]
    bias: float
    fitted_on: int = 0
    log_loss: float = math.nan
    curve: tuple[tuple[float, float, float], ...] = ()

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
            tuple((float(t), float(c), float(p)) for t, c, p in values.get("curve", ())),
        )

    def threshold(self, precision: float) -> float:
        """The least probability from which on this share of the answers was right.

        Raises:
            InputError: no threshold gives it; the best there is is named.
        """
        if not self.curve:
            raise InputError(
                "this index is too small to say how many answers are right; give --min-confidence in the place of "
                "--precision"
            )
        for threshold, _, right in self.curve:
            if right >= precision:
                return threshold
        threshold, share, best = max(self.curve, key=lambda point: (point[2], point[1]))
        raise InputError(
            f"no threshold gives a precision of {precision:g} on this catalogue; the best is {best:.3f}, answering {share:.0%} "
            "of the questions"
        )


# Where there is no second product there is no margin to judge by; a small one neither decides nor forbids.
_LONE_MARGIN: Final = 0.1

# For catalogues too small to fit on: the model fitted on the project's own demonstration catalogue.
DEFAULT: Final = Confidence(weights=(-2.24, 0.13, 5.81, 7.73, 12.46, -2.25), bias=-8.84)


def features(candidates: Sequence[Candidate]) -> tuple[float, ...]:
    """What the model looks at, in the order of `FEATURES`, of candidates best first, at least one."""
    first = candidates[0]
    same = fold(first.product.title)
    # A second product of the very same title is no rival: both are what was asked for.
    second = next((c for c in candidates[1:] if fold(c.product.title) != same), None)
    margin = first.score - second.score if second else _LONE_MARGIN
    # Those that have as much of the question: nobody could tell which was meant.
    fitting = (c for c in candidates[1:] if c.coverage >= first.coverage and c.overlap >= first.overlap)
    rivals = sum(fold(c.product.title) != same for c in fitting)
    return (first.cosine, first.overlap, first.reverse_overlap, first.coverage, margin, math.log1p(rivals))


def fitting_questions(products: Sequence[Product], seed: int) -> Iterator[tuple[int, str, bool]]:
    """Questions to fit on: (number of the product, question's subject, the product is held out).

    Each product gives a question with some of its title's words, one with typing errors and one with words of its
    description, more or less of each, once with the product in the catalogue and once with it held out.
    """
    random_ = random.Random(seed)  # noqa: S311  (not for secrets)
    for number, product in enumerate(products):
        subjects = (
            partial_title(product.title, random_, keep=random_.uniform(0.4, 0.9)),
            mistyped(product.title, random_, rate=random_.uniform(0.03, 0.15)),
            with_clues(product.title, product.description, random_),
        )
        for subject in filter(None, subjects):
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
        risk_coverage(held_out[:, 1].tolist(), right),
    )


def risk_coverage(probabilities: Sequence[float], right: Sequence[bool]) -> tuple[tuple[float, float, float], ...]:
    """`Confidence.curve` of answers with these probabilities, at most 50 points of it."""
    ordered = sorted(zip(probabilities, right, strict=True), reverse=True)
    points, correct = [], 0
    for count, (probability, is_right) in enumerate(ordered, 1):
        correct += is_right
        # Answers of one probability are given together or not at all.
        if count == len(ordered) or ordered[count][0] < probability:
            points.append((round(probability, 6), round(count / len(ordered), 6), round(correct / count, 6)))
    step = max(1, math.ceil(len(points) / _POINTS))
    return tuple(reversed(points[step - 1 :: step]))
