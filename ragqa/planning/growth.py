"""How a cost grows with the number of titles: sums of known functions, fitted to what was measured at some sizes.

A part of a cost is ``known(n) + sum of coefficient x term(n)``. What is known needs no fit, such as the bytes that FAISS
keeps of a vector; coefficients, none below zero (Lawson and Hanson's non-negative least squares), are fitted to relative
errors, so that a size weighs as much as a hundred times as large a one. How far a fit can be trusted is tried by
leaving each size out and predicting it from the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ragqa.index.recipe import lists_for

Numbers = npt.NDArray[np.float64]

# FAISS keeps up to so many titles of 384 numbers as they are, above it in inverted lists of 8-bit codes ("auto").
EXACT_TITLES: Final = 52_083
_CONFIDENCE: Final = 0.95


def lists(titles: float) -> float:
    """Inverted lists that so many titles get."""
    return float(lists_for(int(titles))) if titles > EXACT_TITLES else 0.0


TERMS: Final[Mapping[str, Callable[[float], float]]] = {
    "1": lambda _: 1.0,
    "n": lambda n: n,
    "sqrt(n)": math.sqrt,
    "n log n": lambda n: n * math.log(max(n, 1.0)),
    "lists^2": lambda n: lists(n) ** 2,
    "n lists": lambda n: n * lists(n),
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A predicted figure and its 95 % prediction interval, in the cost's unit."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Estimate:
        """So many times as much."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True, slots=True)
class Law:
    """How a part of a cost grows.

    Attributes:
        terms: names in `TERMS`; () where all of it is known.
        known: what is known of it without a fit.
    """

    terms: tuple[str, ...] = ()
    known: Callable[[float], float] | None = None


class Fit:
    """A law fitted to what was measured.

    Args:
        law: how it grows.
        titles: the sizes, (s,).
        measured: the cost at each, (s,); sizes where there is none of it, 0, count only where a term is 0, too.
    """

    def __init__(self, law: Law, titles: Sequence[float], measured: Sequence[float]) -> None:
        from scipy.optimize import nnls

        self.law = law
        costs, rows = np.asarray(measured, float), self._rows(titles)
        known = np.array([law.known(n) for n in titles] if law.known else np.zeros(len(titles)))
        there = costs > 0
        design, wanted = rows[there] / costs[there, None], 1 - known[there] / costs[there]
        scale = np.linalg.norm(design, axis=0)
        scale[scale == 0] = 1.0  # a term that no size left has
        self.coefficients: Numbers = nnls(design / scale, wanted)[0] / scale if law.terms else np.zeros(0)
        used = self.coefficients > 0
        left = wanted - design @ self.coefficients
        self.freedom = max(int(there.sum() - used.sum()), 1)
        self.error = float(np.sqrt(left @ left / self.freedom))  # relative
        self._used = used
        self._spread = np.linalg.pinv(design[:, used].T @ design[:, used]) if used.any() else np.zeros((0, 0))

    def at(self, titles: float) -> float:
        """The cost of so many titles."""
        known = self.law.known(titles) if self.law.known else 0.0
        return known + float(self._rows([titles])[0] @ self.coefficients)

    def variance(self, titles: float) -> float:
        """Of a figure that would be measured there, the squared standard error of its prediction."""
        row = self._rows([titles])[0][self._used]
        return self.error**2 * (float(row @ self._spread @ row) + self.at(titles) ** 2)

    def _rows(self, titles: Sequence[float]) -> Numbers:
        return np.array([[TERMS[term](n) for term in self.law.terms] for n in titles], float).reshape(len(titles), -1)


class Growth:
    """A cost that is the sum of parts, each with a law of its own.

    Args:
        laws: part -> its law.
        titles: the sizes, (s,).
        measured: part -> its cost at each size, (s,).
    """

    def __init__(
        self, laws: Mapping[str, Law], titles: Sequence[float], measured: Mapping[str, Sequence[float]]
    ) -> None:
        self._laws, self._titles, self._measured = laws, titles, measured
        self.parts = {part: Fit(law, titles, measured[part]) for part, law in laws.items()}

    def at(self, titles: float, parts: Mapping[str, float] | None = None) -> Estimate:
        """The cost of so many titles.

        Args:
            titles: how many.
            parts: part -> by what it is multiplied; those left out count once.
        """
        from scipy.special import stdtrit

        factors = {part: (parts or {}).get(part, 1.0) for part in self.parts}
        value = sum(factors[part] * fit.at(titles) for part, fit in self.parts.items())
        variances = {part: factors[part] ** 2 * fit.variance(titles) for part, fit in self.parts.items()}
        variance = sum(variances.values())
        if variance == 0:  # nothing is left of it
            return Estimate(value, value, value)
        # Of a sum of independent parts, by Welch and Satterthwaite.
        freedom = variance**2 / sum(one**2 / self.parts[part].freedom for part, one in variances.items())
        far = float(stdtrit(freedom, (1 + _CONFIDENCE) / 2)) * math.sqrt(variance)
        return Estimate(value, max(value - far, 0.0), value + far)

    def left_out(self) -> list[float]:
        """For each size the relative error of its prediction from the other sizes alone, (s,)."""
        errors = []
        for out, titles in enumerate(self._titles):
            kept = [place for place in range(len(self._titles)) if place != out]
            others = [self._titles[place] for place in kept]
            rest = {part: [costs[place] for place in kept] for part, costs in self._measured.items()}
            predicted = Growth(self._laws, others, rest).at(titles).value
            errors.append(predicted / sum(costs[out] for costs in self._measured.values()) - 1)
        return errors
