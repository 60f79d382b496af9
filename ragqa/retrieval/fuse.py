"""Several kinds of evidence -> one order of candidates.

Two ways. *weighted*, the default, adds what is known of a candidate: the cosine similarity of its title, the share of
the question's words in its title or description (rare ones weigh more), the share of the question's trigrams in its title,
which forgives typing errors, and that of the title's trigrams in the question, which prefers the plainer of two titles
that fit. *reciprocal-rank* (Cormack, Clarke, Büttcher 2009) adds 1 / (60 + rank) over the lists of the dense and the
lexical search: it needs no comparable scores and knows nothing of how much better the first is than the second.

The weights are the same for every catalogue. They were chosen among 144 settings by the mean of recall@1 on questions
made from titles and descriptions and of nDCG@10 on shoppers' queries graded by hand, over two catalogues
(benchmarks/README.md, "Retrieval"). Weights fitted to a catalogue's own made-up questions find 1 % more of those and rank
shoppers' queries worse than no fusion at all: such questions share their words with a title, real ones need not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

# Of cosine, coverage, overlap and reverse overlap.
WEIGHTS: Final = (1.0, 1.0, 0.5, 0.25)
_SUM: Final = sum(WEIGHTS)
_RANK: Final = 60  # the paper's constant

Scores = npt.NDArray[np.float32]


def weighted(evidence: tuple[float, float, float, float]) -> float:
    """The weighted mean of a candidate's cosine, coverage, overlap and reverse overlap, at most 1."""
    (one, two, three, four), (cosine, coverage, forth, back) = WEIGHTS, evidence
    return (one * cosine + two * coverage + three * forth + four * back) / _SUM


def reciprocal_rank(rankings: Sequence[Sequence[int]], rows: Sequence[int]) -> Scores:
    """Scores of rows by their places in several rankings, (len(rows),), 1 for a row that is the first of all."""
    total = np.zeros(len(rows), np.float32)
    for ranking in rankings:
        rank = {row: place for place, row in enumerate(ranking, 1)}
        total += np.array([1 / (_RANK + rank[row]) if row in rank else 0.0 for row in rows], np.float32)
    return total * np.float32((_RANK + 1) / max(len(rankings), 1))
