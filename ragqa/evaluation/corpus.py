"""BLEU and chrF of many answers at once, from sufficient statistics that can be summed over any selection of answers.

Both are sacrebleu's with its defaults, on its scale from 0 to 100. They are no means over answers; an interval needs
the score of thousands of selections, which is a sum of rows and a formula.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np

from ragqa.evaluation.scores import Array, Measure, Texts

CorpusMetric = Literal["bleu", "chrf"]
_POST: Final = "As in Post (2018), A Call for Clarity in Reporting BLEU Scores, WMT."
CORPUS_MEASURES: Final = (
    Measure(
        "bleu",
        "BLEU",
        f"Papineni, Roukos, Ward, Zhu (2002). BLEU: a Method for Automatic Evaluation of Machine Translation. ACL. {_POST}",
        "Precision of runs of one to four tokens over all answers, with a penalty for brevity; 0 to 100.",
    ),
    Measure(
        "chrf",
        "chrF",
        f"Popović (2015). chrF: character n-gram F-score for automatic MT evaluation. WMT. {_POST}",
        "F2 of runs of one to six characters over all answers; 0 to 100.",
    ),
)


def statistics(metric: CorpusMetric, predictions: Texts, references: Texts) -> Array:
    """Sufficient statistics of each answer; their sum over answers is what `corpus_score` wants.

    An answer that is missing or empty adds the length of its reference and nothing that matches.

    Returns:
        (n, 10) for BLEU: lengths of answer and reference in tokens, matches by order, answer's n-grams by order;
        (n, 18) for chrF: answer's n-grams, reference's n-grams, matches, for each order in turn.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    scorer: Any = BLEU() if metric == "bleu" else CHRF()
    places: dict[str, list[int]] = {}
    for place, reference in enumerate(references):
        places.setdefault(reference or "", []).append(place)
    rows = np.zeros((len(predictions), 10 if metric == "bleu" else 18))
    # What sacrebleu's own significance tests resample, but with each reference taken apart once for all its answers.
    for reference, here in places.items():
        (right,) = scorer._cache_references([[reference]])
        for place in here:
            answer = scorer._preprocess_segment(predictions[place] or "")
            rows[place] = scorer._compute_segment_statistics(answer, right)
    return rows


def corpus_score(metric: CorpusMetric, sums: Array) -> Array:
    """The score, from 0 to 100, of each row of summed statistics: (..., 10 or 18) to (...)."""
    return _bleu(sums) if metric == "bleu" else _chrf(sums)


def _bleu(sums: Array) -> Array:
    length, wanted, matched, total = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:10]
    # sacrebleu's "exp" smoothing: the k-th order without a match counts as 1 / 2^k of a match.
    smoothed = np.where(matched > 0, matched, 0.5 ** np.cumsum(matched == 0, axis=-1))
    precision = np.exp(np.log(smoothed / np.maximum(total, 1)).mean(axis=-1))
    brevity = np.exp(np.minimum(0.0, 1 - wanted / np.maximum(length, 1)))
    scored = (matched > 0).any(axis=-1) & (total > 0).all(axis=-1)
    return np.where(scored, 100 * brevity * precision, 0.0)


def _chrf(sums: Array, beta: float = 2.0) -> Array:
    answer, right, matched = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]
    counted = (answer > 0) & (right > 0)
    orders = np.maximum(counted.sum(axis=-1), 1)
    precision = np.divide(matched, answer, out=np.zeros_like(matched), where=counted).sum(axis=-1) / orders
    recall = np.divide(matched, right, out=np.zeros_like(matched), where=counted).sum(axis=-1) / orders
    below = beta**2 * precision + recall
    both = (1 + beta**2) * precision * recall
    score: Array = 100 * np.divide(both, below, out=np.zeros_like(below), where=below > 0)
    return score
