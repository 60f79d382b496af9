"""A made-up result with its analysis, in the form that runs and statistics have."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

LABELS = {
    "copy": "retrieve and return",
    "copy_bm25": "retrieve and return, BM25",
    "base": "base model",
    "base_context": "base + retrieved",
    "plain": "plain fine-tuned",
    "plain_context": "plain fine-tuned + retrieved",
    "retrieval_context": "retrieval-conditioned + retrieved",
    "retrieval_gold": "retrieval-conditioned + the right product given",
    "retrieval": "retrieval-conditioned without context",
    "retrieval_written": "retrieval-conditioned + retrieved, written freely",
    "choice_without_model": "choice without the model",
}
LEVELS = dict(zip(LABELS, [0.9, 0.7, 0.1, 0.5, 0.2, 0.4, 0.93, 0.99, 0.15, 0.8, 0.91], strict=True))
METRICS = ["exact_match", "precision", "recall", "f1", "rouge1", "rouge2", "rougeL", "grounded", "right_product"]
KINDS = ["exact", "partial", "typo", "reordered", "clue", "absent", "nonsense"]
RANKS = ["rank:1", "rank:2-3", "rank:4-10", "rank:none"]
Made = dict[str, Any]


def made(
    seed: int = 0,
    arms: Sequence[str] = tuple(LABELS),
    sets: Sequence[str] = ("unseen", "seen"),
    kinds: Sequence[str] = tuple(KINDS),
    seeds: Sequence[int] = (0,),
    questions: int = 12,
) -> tuple[Made, Made]:
    """A raw result and an analysis whose figures are all different; `questions` for each kind and set."""
    chance = random.Random(seed)
    raw = _raw(chance, arms, sets, kinds, seeds, questions)
    return raw, _analysis(chance, raw)


def _raw(
    chance: random.Random,
    arms: Sequence[str],
    sets: Sequence[str],
    kinds: Sequence[str],
    seeds: Sequence[int],
    each: int,
) -> Made:
    asked = [_question(chance, name, kind, i) for name in sets for kind in kinds for i in range(each)]
    weights = {"name": "SmolLM2-135M-Instruct", "weights_sha256": "ab" * 32}
    recipe = {"learning_rate": 0.0003, "rank": 16, "epochs": 2.0}
    return {
        "format_version": 1,
        "catalogue": {"name": "corner-shop", "file": "catalogue.jsonl.gz", "sha256": "cd" * 32, "rows": 987, "products": 876},
        "profile": {"name": "quick", "examples": 1000, "seeds": list(seeds)},
        "setup": {
            "commit": "0123abcd", "date": "2026-11-23", "machine": "2 cores, AMD EPYC", "python": "3.11.7", "device": "cpu",
            "dtype": "bfloat16", "versions": {"torch": "2.9.1", "faiss-cpu": "1.12.0"}, "base": weights,
            "embedder": {"name": "all-MiniLM-L6-v2", "weights_sha256": "ef" * 32},
            "index": {"megabytes": 37.3, "content_sha256": "01" * 32},
            "split": {"train": 500, "validation": 90, "unseen": 190, "absent": 96, "groups": 700},
            "recipes": {"plain": recipe, "retrieval": recipe | {"learning_rate": 0.0005}},
            "answer_tokens": 80, "min_confidence": 0.5,
        },
        "stages": [{"name": "index", "seconds": 61.2, "reused": False, "peak_mb": 884},
                   {"name": "train plain", "seconds": 733.0, "reused": True, "peak_mb": 2101}],
        "training": [
            {"mode": mode, "seed": s, "seconds": 700.5 + s, "total_seconds": 760.0, "peak_mb": 2100.0, "history": _history(chance)}
            for mode in ("plain", "retrieval") for s in seeds
        ],
        "questions": asked,
        "arms": {arm: _arm(chance, arm, asked, seeds) for arm in arms},
        "curve": [
            {"mode": mode, "examples": count, "seed": 0, "arm": mode, "questions": [0],
             "answers": [_answer(chance, LEVELS["plain"], asked[0])]}
            for mode in ("plain", "retrieval") for count in (125, 250, 500, 1000)
        ],
    }  # fmt: skip


def _history(chance: random.Random) -> list[Made]:
    return [
        {"step": step, "examples": 33 * step, "loss": 0.9 / (step + 1), "eval_loss": 0.8 / (step / 10 + 1) + chance.random() / 50
         if step % 10 == 0 else None}
        for step in range(0, 31, 5)
    ]  # fmt: skip


def _question(chance: random.Random, name: str, kind: str, i: int) -> Made:
    product = None if kind in ("absent", "nonsense") else f"p{name}{kind}{i}"
    words = " ".join(chance.choices("lantern kettle rope tent stove mug boots scarf".split(), k=12))
    rank = chance.choice([0, 0, 0, 1, 4, None]) if product else None
    return {
        "set": name, "kind": kind, "product_id": product, "ambiguous": bool(product) and chance.random() < 0.2, "rank": rank,
        "bm25_rank": rank, "text": f"What about the Zanzibar{name}{kind}{i}?", "reference": f"Reference{i} {words}" if product else "",
    }  # fmt: skip


def _arm(chance: random.Random, arm: str, asked: Sequence[Made], seeds: Sequence[int]) -> Made:
    trained = arm.split("_")[0] if arm.startswith(("plain", "retrieval")) else "none"
    context = "gold" if arm.endswith("gold") else "none" if arm in ("base", "plain", "retrieval") else "retrieved"
    return {
        "label": LABELS[arm], "about": f"What {LABELS[arm]} does.", "context": context, "training": trained,
        "generator": not arm.startswith("c"), "extra": arm in ("retrieval_written", "choice_without_model"),
        "runs": [
            {"seed": s, "answers": [_answer(chance, LEVELS[arm], question) for question in asked], "peak_mb": 900.0}
            for s in (seeds if trained != "none" else [None])
        ],
    }  # fmt: skip


def _answer(chance: random.Random, level: float, question: Made) -> Made:
    words = [word for word in question["reference"].split() if chance.random() < level] or ["nothing"]
    return {
        "text": " ".join([*words, f"Answerword{chance.randrange(10**6)}"]), "source": question["product_id"], "confidence": level,
        "abstains": question["product_id"] is None, "seconds": 0.012,
    }  # fmt: skip


def _groups(raw: Made, name: str) -> Iterator[tuple[str, int]]:
    asked = [q for q in raw["questions"] if q["set"] == name and q["product_id"]]
    yield "all", len(asked)
    for kind in KINDS:
        if count := sum(q["kind"] == kind for q in asked):
            yield f"kind:{kind}", count
    yield "one_product", sum(not q["ambiguous"] for q in asked)
    yield "several", sum(q["ambiguous"] for q in asked)
    for place, group in enumerate(RANKS):
        yield group, max(1, len(asked) // (place + 2))


def _estimate(chance: random.Random, level: float, top: float = 1.0) -> Made:
    """A mean that no other has, and an interval around it."""
    mean = min(max(level * top + (chance.random() - 0.5) * 0.02 * top, 0.001), 0.999 * top)
    return {"mean": mean, "low": max(0.0, mean - 0.03 * top), "high": min(top, mean + 0.02 * top)}


def _analysis(chance: random.Random, raw: Made) -> Made:
    arms, sets = list(raw["arms"]), sorted({q["set"] for q in raw["questions"]}, reverse=True)
    places = [(name, group, n) for name in sets for group, n in _groups(raw, name)]
    cells = [
        {"arm": arm, "set": name, "group": group, "metric": metric, "n": n, "products": n - n // 4, **_estimate(chance, LEVELS[arm])}
        for arm in arms for name, group, n in places for metric in METRICS
    ]  # fmt: skip
    against = [(arm, "copy") for arm in arms if arm != "copy" and "copy" in arms]
    against += [
        ("retrieval_context", arm)
        for arm in ("plain", "base_context", "plain_context", "choice_without_model")
        if arm in arms
    ]
    at = {(c["arm"], c["set"], c["group"], c["metric"]): c["mean"] for c in cells}
    pairs = [
        _pair(chance, at, arm, other, name, group, metric, n)
        for arm, other in against if arm in arms for name, group, n in places for metric in ("f1", "exact_match")
        if group == "all" or other == "copy"
    ]  # fmt: skip
    retrieval = [
        {"retriever": one, "set": name, "group": group, "metric": metric, "n": n, "products": n, **_estimate(chance, level)}
        for one, level in (("ragqa", 0.95), ("bm25", 0.7)) for name, group, n in places if not group.startswith("rank")
        for metric in ("recall@1", "recall@3", "recall@10", "mrr@10", "ndcg@10")
    ]  # fmt: skip
    knowing = [arm for arm in arms if arm in ("copy", "retrieval_context", "choice_without_model")]
    trained = [arm for arm in arms if raw["arms"][arm]["training"] != "none"]
    return {
        "metrics": [
            {"name": m, "label": {"f1": "F1", "exact_match": "exact match"}.get(m, m.replace("_", " ")), "about": f"About {m}.",
             "cite": "Rajpurkar et al. 2016, https://aclanthology.org/D16-1264."} for m in METRICS
        ],
        "cells": cells,
        "pairs": pairs,
        "corpus": [
            {"arm": arm, "set": name, "group": "all", "metric": metric, "n": 9, "products": 9, **_estimate(chance, LEVELS[arm], 100)}
            for arm in arms for name in sets for metric in ("bleu", "chrf")
        ],
        "retrieval": retrieval,
        "abstention": [
            {"arm": arm, "set": name, "threshold": 0.5, "n": 90, "without": 20, "precision": _estimate(chance, 0.8),
             "recall": _estimate(chance, 0.7), "auroc": _estimate(chance, 0.9), "aurc": None,
             "curve": [[k / 40, 0.3 * (k / 40) ** 2 + chance.random() / 90] for k in range(1, 41)]}
            for arm in knowing for name in sets
        ],
        "cost": [
            {"arm": arm, "median_ms": 12 + 400 * raw["arms"][arm]["generator"] + chance.random() * 50, "p95_ms": 700.0,
             "answers_per_second": 2.5, "peak_mb": 1234.0, "training_seconds": 765.0 if arm in trained else None} for arm in arms
        ],
        "curve": [
            {"mode": mode, "arm": arm, "examples": count, "metric": metric, "n": 60, "products": 55,
             **_estimate(chance, level * count / 1000)}
            for mode, arm, level in (("plain", "plain", 0.2), ("retrieval", "retrieval_context", 0.93)) if arm in arms
            for count in (125, 250, 500, 1000) for metric in ("f1", "exact_match")
        ],
        "seeds": [
            {"arm": arm, "set": name, "metric": "f1", "seeds": len(raw["profile"]["seeds"]), "mean": 0.5, "deviation": 0.01,
             "lowest": 0.49, "highest": 0.51} for arm in trained for name in sets
        ] if len(raw["profile"]["seeds"]) > 1 else [],
        "ceiling": [{"set": name, "shown": _estimate(chance, 0.97), "unambiguous": _estimate(chance, 0.8)} for name in sets],
    }  # fmt: skip


def _pair(
    chance: random.Random,
    at: dict[tuple[str, ...], float],
    arm: str,
    other: str,
    name: str,
    group: str,
    metric: str,
    n: int,
) -> Made:
    difference = at[arm, name, group, metric] - at[other, name, group, metric]
    far = difference / 0.02
    return {
        "arm": arm, "against": other, "set": name, "group": group, "metric": metric, "n": n, "products": n - n // 4,
        "difference": difference, "low": difference - 0.02, "high": difference + 0.02,
        "p": 0.0001 if abs(far) > 1 else 0.4, "p_holm": 0.002 if abs(far) > 1 else 0.8, "effect": far / 10,
        "won": chance.randrange(n + 1), "lost": chance.randrange(n + 1), "needed": 3217,
    }  # fmt: skip


def set_pair(analysis: Made, against: str, group: str, low: float, high: float, arm: str = "retrieval_context") -> None:
    """Make a difference of F1 on unseen products what a test needs; the corrected p follows from the interval."""
    for pair in analysis["pairs"]:
        if (pair["arm"], pair["against"], pair["set"], pair["group"], pair["metric"]) == (
            arm,
            against,
            "unseen",
            group,
            "f1",
        ):
            clear = low > 0 or high < 0
            pair.update(
                low=low,
                high=high,
                difference=(low + high) / 2,
                p=0.0001 if clear else 0.4,
                p_holm=0.002 if clear else 0.8,
            )
            return
    raise KeyError((arm, against, group))
