from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

# Answers and what they should have been: like product texts, in English and Portuguese, and what a model may leave out.
PAIRS: list[tuple[str | None, str | None]] = [
    ("The lamp gives 350 lumens, and a red night light.", "A lamp gives 350 lumens and a red night-light!"),
    ("Rede de dormir em algodão, azul, 2,40 m.", "Rede de dormir casal em algodão azul com varandas de crochê."),
    ("Rede de dormir casal em algodão azul.", "rede de dormir casal em algodão azul"),
    ("Weighs 92 g; charges by USB-C.", "Our headlamp weighs 92 g, charges by USB-C and is rain-proof to IPX6."),
    ("the the the lamp lamp", "the lamp the lamp"),
    ("Não há descrição.", "Guarda-chuva automático, à prova de vento, 8 varetas."),
    ("completely other words", "Flamenco skirt in red, with two ruffles"),
    ("coração", "corac o"),
    ("", "An empty answer to this."),
    (None, "No answer to this at all."),
    ("An answer without a reference", ""),
    ("An answer without a reference", None),
    ("", ""),
    ("The", "a an"),
    ("... !", "?"),
]


@pytest.fixture(scope="session")
def pairs() -> list[tuple[str | None, str | None]]:
    return list(PAIRS)


@pytest.fixture(scope="session")
def make_raw() -> Callable[..., dict[str, Any]]:
    """A small raw result: arms are right to the given share, products have two questions."""

    def make(arms: dict[str, float], n: int = 40, runs: int = 1, seed: int = 0) -> dict[str, Any]:
        random_ = random.Random(seed)
        vocabulary = [f"word{i}" for i in range(200)]
        texts = [" ".join(random_.choices(vocabulary, k=12)) for _ in range(n)]
        kinds = ["exact", "partial", "typo"]
        questions = [
            {
                "set": "seen" if i % 2 else "unseen",
                "kind": kinds[i % 3],
                "product_id": f"p{i // 4 * 2 + i % 2}",
                "ambiguous": i % 5 == 0,
                "rank": [0, 0, 1, 4, None][i % 5],
                "bm25_rank": [0, 2, None][i % 3],
                "text": "q",
                "reference": texts[i // 4 * 2 + i % 2],
            }
            for i in range(n)
        ]
        questions += [
            {
                "set": "seen" if i % 2 else "unseen",
                "kind": "absent",
                "product_id": None,
                "ambiguous": False,
                "rank": None,
                "bm25_rank": None,
                "text": "q",
                "reference": "",
            }
            for i in range(n // 5)
        ]

        def answer(question: dict[str, Any], share: float) -> dict[str, Any]:
            right = question["product_id"] is not None and random_.random() < share
            return {
                "text": question["reference"] if right else " ".join(random_.choices(vocabulary, k=9)),
                "source": question["product_id"] if right else "p0",
                "confidence": round(random_.random() / 2 + right / 2, 1),
                "abstains": not right and random_.random() < 0.5,
                "seconds": 0.25,
            }

        return {
            "setup": {"min_confidence": 0.5},
            "questions": questions,
            "training": [{"mode": "retrieval", "seed": s, "seconds": 5.0, "total_seconds": 6.0 + s} for s in range(2)],
            "arms": {
                name: {
                    "training": "retrieval" if name.startswith("retrieval") else "none",
                    "runs": [
                        {"seed": run, "peak_mb": 100.0 + run, "answers": [answer(q, share) for q in questions]}
                        for run in range(runs)
                    ],
                }
                for name, share in arms.items()
            },
            "curve": [
                {
                    "mode": "retrieval",
                    "examples": examples,
                    "seed": s,
                    "arm": "retrieval_context",
                    "questions": [0, 1, 2, 3, n],
                    "answers": [answer(questions[i], 0.5) for i in (0, 1, 2, 3, n)],
                }
                for examples in (10, 100)
                for s in (0, 1)
            ],
        }

    return make
