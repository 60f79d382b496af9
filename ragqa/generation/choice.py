"""Which of the shown candidates an adapter's answer begins with, and how sure that is.

An adapter trained with context begins its answer with the number of its source: ``[2] ...``, ``[0]`` where none of
the candidates is the product asked for. Its training sees the right product at every rank, so its prior is not that
of real questions. A conditional logit (McFadden 1974), fitted on validation questions, joins the model's
log-probability of each number with what the retriever knew: the probability of the best alternative is calibrated
and serves as the answer's confidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from ragqa.errors import ModelError
from ragqa.records import Candidate
from ragqa.retrieval.text import coverage, overlap

# Of a candidate. Coverage is the share of the question's words that stand in its title or description; the last
# stands for the first candidate alone.
FEATURES: Final = ("model", "cosine", "overlap", "reverse_overlap", "coverage", "first")
# Of the alternative that none of them fits.
NONE_FEATURES: Final = ("model", "bias", "confidence")
MOST: Final = 9  # candidates that one digit can number
_PRIOR: Final = {"model": 0.5, "cosine": 5.0, "overlap": 5.0, "reverse_overlap": 1.0, "coverage": 5.0, "first": 0.0}
_NONE_PRIOR: Final = {"model": 0.5, "bias": 4.0, "confidence": -0.5}
# How far a weight may leave its prior: standard deviations of Gaussian priors, in nats a unit of the feature.
_SPREAD: Final = {
    "model": 0.5,
    "cosine": 10.0,
    "overlap": 10.0,
    "reverse_overlap": 10.0,
    "coverage": 10.0,
    "first": 1.0,
}
_NONE_SPREAD: Final = {"model": 0.5, "bias": 4.0, "confidence": 0.5}
_LOGIT: Final = 6.0


@dataclass(frozen=True, slots=True)
class Choice:
    """The weights of the conditional logit.

    Attributes:
        weights: one for each of `FEATURES`.
        none: one for each of `NONE_FEATURES`.
        fitted_on: number of questions it was fitted on; 0 for the prior.
        log_loss: mean negative log-likelihood in nats on held-out questions (5-fold).
    """

    weights: tuple[float, ...] = tuple(_PRIOR.values())
    none: tuple[float, ...] = tuple(_NONE_PRIOR.values())
    fitted_on: int = 0
    log_loss: float | None = None

    def probabilities(self, alternatives: Alternatives) -> list[float]:
        """The probability of each alternative, [0] that of none, then the candidates in their order."""
        values = [_dot(self.none, alternatives.none), *(_dot(self.weights, row) for row in alternatives.candidates)]
        most = max(values)
        powers = [math.exp(value - most) for value in values]
        return [power / sum(powers) for power in powers]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return asdict(self) | {"features": list(FEATURES), "none_features": list(NONE_FEATURES)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Choice:
        """What `to_dict` wrote.

        Raises:
            ValueError: it was written for other features.
        """
        if tuple(values["features"]) != FEATURES or tuple(values["none_features"]) != NONE_FEATURES:
            raise ValueError("the choice of sources was fitted with other features")
        weights, none = tuple(map(float, values["weights"])), tuple(map(float, values["none"]))
        if len(weights) != len(FEATURES) or len(none) != len(NONE_FEATURES):
            raise ValueError("the choice of sources has weights missing")
        return cls(weights, none, int(values["fitted_on"]), values["log_loss"])


@dataclass(frozen=True, slots=True)
class Alternatives:
    """What is known of the alternatives of one question.

    Attributes:
        candidates: `FEATURES` of each candidate, in the order of the prompt.
        none: `NONE_FEATURES`.
    """

    candidates: tuple[tuple[float, ...], ...]
    none: tuple[float, ...]


def alternatives(
    log_probs: Sequence[float], candidates: Sequence[Candidate], subject: str, confidence: float
) -> Alternatives:
    """The features of a question's alternatives.

    Args:
        log_probs: the model's log-probability of the number 0 and of each candidate's.
        candidates: those shown, best first.
        subject: what the question names.
        confidence: the retriever's probability that its first candidate is right.
    """
    rows = tuple(
        (
            log_prob,
            c.cosine,
            c.overlap,
            overlap(c.product.title, subject),
            coverage(subject, f"{c.product.title} {c.product.description}"),
            float(rank == 0),
        )
        for rank, (log_prob, c) in enumerate(zip(log_probs[1:], candidates, strict=True))
    )
    bounded = min(max(confidence, 1e-9), 1 - 1e-9)
    logit = max(-_LOGIT, min(_LOGIT, math.log(bounded / (1 - bounded))))
    return Alternatives(rows, (log_probs[0], 1.0, logit))


def fit(asked: Sequence[Alternatives], right: Sequence[int]) -> Choice:
    """Fit the weights by maximum a posteriori likelihood; fewer than 20 questions give the prior.

    Args:
        asked: the alternatives of each question.
        right: for each the right one: 0 for none, else 1 + the candidate's place.
    """
    if len(asked) < 20:
        return Choice()
    losses = []
    for part in range(5):
        learnt = _fit(
            [a for i, a in enumerate(asked) if i % 5 != part], [r for i, r in enumerate(right) if i % 5 != part]
        )
        losses += [
            -math.log(max(learnt.probabilities(a)[r], 1e-12))
            for i, (a, r) in enumerate(zip(asked, right, strict=True))
            if i % 5 == part
        ]
    found = _fit(asked, right)
    return Choice(found.weights, found.none, len(asked), round(sum(losses) / len(losses), 6))


def _fit(asked: Sequence[Alternatives], right: Sequence[int]) -> Choice:
    import numpy as np
    from scipy.optimize import minimize

    prior = np.array([*_PRIOR.values(), *_NONE_PRIOR.values()])
    spread = np.array([*_SPREAD.values(), *_NONE_SPREAD.values()])
    size, width = len(FEATURES), 1 + max(len(a.candidates) for a in asked)
    inputs = np.zeros((len(asked), width, len(prior)))
    open_ = np.zeros((len(asked), width), bool)
    for i, one in enumerate(asked):
        inputs[i, 0, size:] = one.none
        inputs[i, 1 : 1 + len(one.candidates), :size] = np.reshape(one.candidates, (-1, size))
        open_[i, : 1 + len(one.candidates)] = True
    rows, taken = np.arange(len(asked)), np.asarray(right)

    def loss(weights: Any) -> tuple[float, Any]:
        values = np.where(open_, inputs @ weights, -np.inf)
        values -= values.max(axis=1, keepdims=True)
        shares = np.exp(values)
        shares /= shares.sum(axis=1, keepdims=True)
        away = (weights - prior) / spread
        likelihood = -np.log(np.maximum(shares[rows, taken], 1e-300)).sum()
        slope = np.einsum("ij,ijk->k", shares, inputs) - inputs[rows, taken].sum(axis=0)
        return float(likelihood + 0.5 * away @ away), slope + away / spread

    best = minimize(loss, prior, jac=True, method="L-BFGS-B").x
    return Choice(
        tuple(round(float(w), 6) for w in best[:size]), tuple(round(float(w), 6) for w in best[size:]), len(asked)
    )


def number_tokens(tokenizer: Any) -> tuple[int, ...]:
    """The token of each number from 0 to `MOST`, as it stands after the prompt.

    Raises:
        ModelError: the tokenizer has no token of its own for each.
    """
    ids = tuple(tokenizer(str(number), add_special_tokens=False)["input_ids"][-1] for number in range(MOST + 1))
    if len(set(ids)) != len(ids) or tokenizer.unk_token_id in ids:
        raise ModelError(
            f"{tokenizer.name_or_path}: its tokenizer does not tell the digits apart, which number the candidates; "
            "choose another generator"
        )
    return ids


def _dot(weights: Sequence[float], features: Sequence[float]) -> float:
    return sum(w * x for w, x in zip(weights, features, strict=True))
