"""What the retrieval benchmark reads and writes."""

import json
from typing import Any

import numpy as np
import pytest

from benchmarks.retrieval import SHOPPERS, _shoppers
from benchmarks.retrieval_report import table

QUERIES: list[dict[str, Any]] = [
    {"id": "1", "query": "lamp", "grades": {"a": 3, "b": 2, "c": 0}},
    {"id": "2", "query": "kettle", "grades": {"b": 3, "c": 1}},
]
IDS = ["a", "b", "c", "d"]


@pytest.mark.parametrize("file", sorted(SHOPPERS.glob("*.jsonl")), ids=lambda file: str(file.stem))
def test_graded_queries_are_whole(file: Any) -> None:
    queries = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert len({q["id"] for q in queries}) == len({q["query"] for q in queries}) == len(queries) >= 40
    for query in queries:
        assert set(query) == {"id", "query", "type", "grades"}
        assert len(query["grades"]) >= 5
        assert set(query["grades"].values()) <= {0, 1, 2, 3}


def test_products_that_nobody_graded_are_passed_over() -> None:
    rankings = {"ragqa": [[3, 0, 1, 2], [1, 2, 3, 0]], "other": [[2, 1, 3, 0], [3, 2, 0, 1]]}
    found = _shoppers(QUERIES, IDS, {name: (lambda _, rows=rows: rows) for name, rows in rankings.items()})
    assert found["methods"]["ragqa"]["ndcg@10"][0] == 1.0
    assert found["methods"]["ragqa"]["suitable@1"][0] == 1.0
    # First c, then b and a; and c, then b.
    log2 = np.log2([2, 3, 4])
    first = (2 / log2[1] + 3 / log2[2]) / (3 / log2[0] + 2 / log2[1])
    second = (1 / log2[0] + 3 / log2[1]) / (3 / log2[0] + 1 / log2[1])
    assert found["methods"]["other"]["ndcg@10"][0] == pytest.approx((first + second) / 2, abs=1e-4)
    assert found["methods"]["other"]["suitable@1"][0] == 0.0
    assert found["methods"]["other"]["ungraded"] == 3 / 8
    assert found["against"]["method"] == "other"


def test_the_table_has_every_method_with_its_interval() -> None:
    scores = {m: [0.5, 0.4, 0.6] for m in ("recall@1", "recall@3", "recall@10", "mrr@10", "ndcg@10")}
    made = {
        "questions": 9,
        "methods": {"ragqa": {"all": scores, "typo": scores}, "dense": {"all": scores, "typo": scores}},
        "against": {k: {"method": "dense", "difference": [0.1, -0.1, 0.2]} for k in ("all", "typo")},
        "ambiguous": {"all": 0.2, "typo": 0.0},
    }
    shop = {"ragqa": {"ndcg@10": [0.7, 0.6, 0.8], "suitable@1": [1.0, 1.0, 1.0], "ungraded": 0.1}}
    shoppers = {"held out": {"queries": 4, "methods": shop, "against": {"method": "x", "difference": [0.0, 0.0, 0.0]}}}
    text = table(
        {
            "machine": {"date": "2026-01-01", "commit": "abc", "machine": "a machine"},
            "versions": {"bm25s": "1"},
            "catalogues": {"shop": {"products": 5, "made": made, "shoppers": shoppers}},
        }
    )
    assert "| ragqa | 0.500 [0.400, 0.600] | 0.500 | 0.500 | 0.500 | 0.500 |" in text
    assert "| *difference* | +0.100 [-0.100, +0.200] (dense) |" in text
    assert "| ragqa | 0.700 [0.600, 0.800] | 1.000 [1.000, 1.000] | 0.100 |" in text
