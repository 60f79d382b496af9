"""Which of the shown candidates an adapter's answer begins with, and how sure that is.

An adapter trained with context begins its answer with the number of its source: ``[2] ...``, ``[0]`` where none of
the candidates is the product asked for. Its training sees the right product at every rank, so its prior is not that
of real questions. A conditional logit (McFadden 1974), fitted on validation questions, joins the model's
log-probability of each number with what the retriever knew: the probability of the best alternative is calibrated
and serves as the answer's confidence.

It is fitted in two steps. What the retriever knew costs nothing to ask, so its weights are learnt on many questions;
the model reads few of them, and two numbers are learnt there with the others held: the weight of its word, and a
shift of "none". All weights at once, on the few, trusted the model too much: on unseen questions about Best Buy
products it lost 8 first candidates that were right for 58 it mended, in two steps 0 for 53.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from ragqa.errors import ModelError
from ragqa.records import Candidate
from ragqa.retrieval.text import coverage, overlap

# Of a candidate. Coverage is the share of the question's words that stand in its title or description; the last
# stands for the first candidate alone.
FEATURES: Final = ("cosine", "overlap", "reverse_overlap", "coverage", "first")
# Of the alternative that none of them fits.
NONE_FEATURES: Final = ("bias", "confidence")
# The weight of the model's log-probabilities, and what is added to "none" where it was asked.
MODEL_FEATURES: Final = ("log_probability", "none")
MOST: Final = 9  # candidates that one digit can number
# Means and standard deviations of the weights' Gaussian priors, in nats a unit of the feature.
_PRIOR: Final = {"cosine": 5.0, "overlap": 5.0, "reverse_overlap": 1.0, "coverage": 5.0, "first": 0.0}
_NONE_PRIOR: Final = {"bias": 4.0, "confidence": -0.5}
_SPREAD: Final = (10.0, 10.0, 10.0, 10.0, 1.0, 4.0, 0.5)
_MODEL_PRIOR: Final = (0.5, 0.0)
_MODEL_SPREAD: Final = (0.5, 2.0)
_LOGIT: Final = 6.0
_LEAST: Final = 20  # questions to fit on
_FOLDS: Final = 5


@dataclass(frozen=True, slots=True)
class Choice:
    """The weights of the conditional logit.

    Attributes:
        weights: one for each of `FEATURES`.
        none: one for each of `NONE_FEATURES`.
        model: one for each of `MODEL_FEATURES`.
        fitted_on: number of questions it was fitted on; 0 for the prior.
        judged: number of them that the model read.
        log_loss, log_loss_without: mean negative log-likelihood in nats on these, each left out of the fit in turn
            (5-fold), with the model's word and without.
    """

    weights: tuple[float, ...] = tuple(_PRIOR.values())
    none: tuple[float, ...] = tuple(_NONE_PRIOR.values())
    model: tuple[float, ...] = _MODEL_PRIOR
    fitted_on: int = 0
    judged: int = 0
    log_loss: float | None = None
    log_loss_without: float | None = None

    def probabilities(self, alternatives: Alternatives) -> list[float]:
        """The probability of each alternative, [0] that of none, then the candidates in their order."""
        values = [_dot(self.none, alternatives.none), *(_dot(self.weights, row) for row in alternatives.candidates)]
        if alternatives.log_probs:
            weight, shift = self.model
            values = [v + weight * told for v, told in zip(values, alternatives.log_probs, strict=True)]
            values[0] += shift
        most = max(values)
        powers = [math.exp(value - most) for value in values]
        return [power / sum(powers) for power in powers]

    def pick(
        self, candidates: Sequence[Candidate], subject: str, confidence: float, log_probs: Sequence[float] = ()
    ) -> tuple[int, float | None]:
        """The place of the likeliest candidate, exact titles before all others, and how likely it is.

        The probability is None for an exact title, of which the retriever is sure. Args: see `alternatives`.
        """
        shares = self.probabilities(alternatives(candidates, subject, confidence, log_probs))[1:]
        best = max(eligible(candidates), key=lambda place: (shares[place], -place))
        return best, None if candidates[best].exact else shares[best]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        names = {"features": FEATURES, "none_features": NONE_FEATURES, "model_features": MODEL_FEATURES}
        return asdict(self) | {name: list(value) for name, value in names.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Choice:
        """What `to_dict` wrote.

        Raises:
            ValueError: it was written for other features.
        """
        read: list[tuple[float, ...]] = []
        for name, features in (("", FEATURES), ("none_", NONE_FEATURES), ("model_", MODEL_FEATURES)):
            if tuple(values[f"{name}features"]) != features:
                raise ValueError("the choice of sources was fitted with other features")
            read.append(tuple(map(float, values[name.rstrip("_") or "weights"])))
            if len(read[-1]) != len(features):
                raise ValueError("the choice of sources has weights missing")
        counts = int(values["fitted_on"]), int(values["judged"])
        return cls(read[0], read[1], read[2], *counts, values["log_loss"], values["log_loss_without"])


@dataclass(frozen=True, slots=True)
class Alternatives:
    """What is known of the alternatives of one question.

    Attributes:
        candidates: `FEATURES` of each candidate, in the order of the prompt.
        none: `NONE_FEATURES`.
        log_probs: the model's log-probability of the number 0 and of each candidate's; empty where it was not asked.
    """

    candidates: tuple[tuple[float, ...], ...]
    none: tuple[float, ...]
    log_probs: tuple[float, ...] = ()


def alternatives(
    candidates: Sequence[Candidate], subject: str, confidence: float, log_probs: Sequence[float] = ()
) -> Alternatives:
    """The features of a question's alternatives.

    Args:
        candidates: those shown, best first.
        subject: what the question names.
        confidence: the retriever's probability that its first candidate is right.
        log_probs: see `Alternatives`.
    """
    rows = tuple(
        (
            c.cosine,
            c.overlap,
            overlap(c.product.title, subject),
            coverage(subject, c.product.title, c.product.description),
            float(rank == 0),
        )
        for rank, c in enumerate(candidates)
    )
    bounded = min(max(confidence, 1e-9), 1 - 1e-9)
    logit = max(-_LOGIT, min(_LOGIT, math.log(bounded / (1 - bounded))))
    return Alternatives(rows, (1.0, logit), tuple(log_probs))


def eligible(candidates: Sequence[Candidate]) -> list[int]:
    """Places of the candidates that may be chosen: those whose exact title was named, or all where there are none."""
    return [place for place, c in enumerate(candidates) if c.exact] or list(range(len(candidates)))


def fit(asked: Sequence[Alternatives], right: Sequence[int]) -> Choice:
    """Fit the weights by maximum a posteriori likelihood; fewer than 20 questions give the prior.

    Args:
        asked: the alternatives of each question; those with log-probabilities teach the model's weights.
        right: for each the right one: 0 for none, else 1 + the candidate's place.
    """
    if len(asked) < _LEAST:
        return Choice()
    judged = [i for i, a in enumerate(asked) if a.log_probs]
    log_losses = []
    for part in range(_FOLDS):
        kept = [i for i in range(len(asked)) if i % _FOLDS != part]
        learnt = _fit([asked[i] for i in kept], [right[i] for i in kept])
        for i in judged:
            if i % _FOLDS == part:
                bare = Alternatives(asked[i].candidates, asked[i].none)
                log_losses.append([-math.log(max(learnt.probabilities(a)[right[i]], 1e-12)) for a in (asked[i], bare)])
    found = _fit(asked, right)
    if not judged:
        return found
    with_model, without = (round(sum(column) / len(judged), 6) for column in zip(*log_losses, strict=True))
    return replace(found, log_loss=with_model, log_loss_without=without)


def _fit(asked: Sequence[Alternatives], right: Sequence[int]) -> Choice:
    import numpy as np

    size, none = len(FEATURES), len(NONE_FEATURES)
    width = 1 + max(len(a.candidates) for a in asked)
    inputs, held = np.zeros((len(asked), width, size + none)), np.full((len(asked), width), -np.inf)
    told = np.zeros((len(asked), width, len(MODEL_FEATURES)))
    for i, one in enumerate(asked):
        here = 1 + len(one.candidates)
        inputs[i, 0, size:] = one.none
        inputs[i, 1:here, :size] = np.reshape(one.candidates, (-1, size))
        held[i, :here] = 0.0
        if one.log_probs:
            told[i, :here, 0], told[i, 0, 1] = one.log_probs, 1.0
    taken, judged = np.asarray(right), [i for i, a in enumerate(asked) if a.log_probs]
    known = _most_likely(inputs, held, taken, [*_PRIOR.values(), *_NONE_PRIOR.values()], _SPREAD)
    model = _MODEL_PRIOR
    if len(judged) >= _LEAST:
        offsets = (held + inputs @ known)[judged]
        model = _most_likely(told[judged], offsets, taken[judged], _MODEL_PRIOR, _MODEL_SPREAD)
    weights, nothing, word = (tuple(round(float(w), 6) for w in part) for part in (known[:size], known[size:], model))
    return Choice(weights, nothing, word, len(asked), len(judged))


def _most_likely(inputs: Any, offsets: Any, taken: Any, prior: Sequence[float], spread: Sequence[float]) -> Any:
    """Weights of a conditional logit, (features,), from inputs (questions, alternatives, features)."""
    import numpy as np
    from scipy.optimize import minimize

    rows, mean, deviation = np.arange(len(taken)), np.array(prior), np.array(spread)

    def loss(weights: Any) -> tuple[float, Any]:
        values = offsets + inputs @ weights
        values -= values.max(axis=1, keepdims=True)
        shares = np.exp(values)
        shares /= shares.sum(axis=1, keepdims=True)
        away = (weights - mean) / deviation
        likelihood = -np.log(np.maximum(shares[rows, taken], 1e-300)).sum()
        slope = np.einsum("ij,ijk->k", shares, inputs) - inputs[rows, taken].sum(axis=0)
        return float(likelihood + 0.5 * away @ away), slope + away / deviation

    return minimize(loss, mean, jac=True, method="L-BFGS-B").x


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
