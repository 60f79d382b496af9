"""How high the right product stands among the retrieved, query by query, by ir-measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from ragqa.evaluation.scores import Array

# Our names and those of ir-measures (MacAvaney, Macdonald, Ounis 2022, Streamlining Evaluation with ir-measures, ECIR).
RANKING_MEASURES: Final = {
    "recall@1": "R@1",
    "recall@3": "R@3",
    "recall@10": "R@10",
    "mrr@10": "RR@10",
    "ndcg@10": "nDCG@10",
}


def ranked_scores(ranks: Sequence[int | None]) -> Array:
    """Recall@1, @3 and @10, reciprocal rank@10 and nDCG@10 (Järvelin, Kekäläinen 2002) of each query.

    Args:
        ranks: from 0, of the one right product; None where it was not retrieved, which scores 0.

    Returns:
        (n, 5), in the order of `RANKING_MEASURES`.
    """
    import ir_measures

    wanted = {ir_measures.parse_measure(name): column for column, name in enumerate(RANKING_MEASURES.values())}
    relevant = {str(query): {"right": 1} for query in range(len(ranks))}
    run = {str(query): _ranking(rank) for query, rank in enumerate(ranks)}
    table = np.zeros((len(ranks), len(wanted)))
    if ranks:
        for found in ir_measures.iter_calc(list(wanted), relevant, run):
            table[int(found.query_id), wanted[found.measure]] = found.value
    return table


def _ranking(rank: int | None) -> dict[str, float]:
    above = 10 if rank is None else rank
    ranking = {f"wrong {place}": -float(place) for place in range(above)}
    return ranking if rank is None else ranking | {"right": -float(rank)}
