"""What responses say, and how the OpenAPI document describes it."""

from __future__ import annotations

from typing import Any, Final

from ragqa.records import Answer, Candidate, Retrieval


def answered(answer: Answer, prompt: bool = False) -> dict[str, Any]:
    """An answer as JSON; with what the generator was given, if that was asked for."""
    return answer.to_dict(prompt)


def searched(found: Retrieval, top_k: int) -> dict[str, Any]:
    """What was found for a question, as JSON."""
    return {
        "question": found.question.text,
        "language": found.question.language,
        "confidence": round(found.confidence, 4),
        "several": len(found.fitting) > 1,
        "candidates": [_candidate(one) for one in found.candidates[:top_k]],
    }


def _candidate(one: Candidate) -> dict[str, Any]:
    return {
        "id": one.product.id,
        "title": one.product.title,
        "description": one.product.description,
        "score": round(one.score, 4),
        "cosine": round(one.cosine, 4),
        "overlap": round(one.overlap, 4),
        "coverage": round(one.coverage, 4),
        "exact": one.exact,
    }


def documented(schema: dict[str, Any], example: Any) -> dict[str, Any]:
    """A response of JSON in the OpenAPI document."""
    return {"description": "OK", "content": {"application/json": {"schema": schema, "example": example}}}


def _object(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


_TEXT: Final = {"type": "string"}
_FLAG: Final = {"type": "boolean"}
_WHOLE: Final = {"type": "integer", "minimum": 0}
_SHARE: Final = {"type": "number", "minimum": 0, "maximum": 1}
_MAYBE: Final = {"anyOf": [_TEXT, {"type": "null"}]}
_MAYBE_WHOLE: Final = {"anyOf": [_WHOLE, {"type": "null"}]}

SOURCE: Final = _object(
    {"id": _TEXT, "title": _TEXT, "description": _TEXT, "score": _SHARE, "exact": _FLAG, "cited": _FLAG}
)
SPAN: Final = _object(
    {
        "start": _WHOLE,
        "stop": _WHOLE,
        "source": _MAYBE,
        "source_start": _MAYBE_WHOLE,
        "source_stop": _MAYBE_WHOLE,
        "probability": {"anyOf": [_SHARE, {"type": "null"}]},
    }
)
CANDIDATES: Final = {
    "type": "array",
    "items": _object(
        {
            "id": _TEXT,
            "title": _TEXT,
            "description": _TEXT,
            "score": _SHARE,
            "cosine": {"type": "number"},
            "overlap": {"type": "number"},
            "coverage": {"type": "number"},
            "exact": _FLAG,
        }
    ),
}
ANSWER: Final = _object(
    {
        "question": _TEXT,
        "text": _TEXT,
        "sources": {"type": "array", "items": SOURCE},
        "abstained": _FLAG,
        "several": _FLAG,
        "confidence": _SHARE,
        "language": {"enum": ["en", "pt", "es"]},
        "timings": {
            "type": "object",
            "description": "seconds: queue, retrieve, load, generate, and total since the question came",
            "additionalProperties": {"type": "number", "minimum": 0},
        },
        "prompt": _TEXT,
        "spans": {"type": "array", "items": SPAN},
        "shortened": _FLAG,
        "grounded": _SHARE,
        "candidates": CANDIDATES,
    },
    optional=("prompt", "candidates"),
)
ASKED: Final = {"anyOf": [ANSWER, _object({"answers": {"type": "array", "items": ANSWER}})]}
SEARCHED: Final = _object(
    {
        "question": _TEXT,
        "language": {"enum": ["en", "pt", "es"]},
        "confidence": _SHARE,
        "several": _FLAG,
        "candidates": CANDIDATES,
    }
)
PRODUCT: Final = _object({"id": _TEXT, "title": _TEXT, "description": _TEXT})

# One of a stream's events; its data are JSON.
EVENT: Final = _object({"event": _TEXT, "data": _TEXT}, optional=("event",))

PRODUCT_EXAMPLE: Final = {
    "id": "RQ5QHDUNTN",
    "title": "Lumen Trail Headlamp LT-350",
    "description": "Our all-round headlamp: 350 lumens on high.",
}
EXAMPLE: Final = {
    "question": "What is the description of the Lumen headlamp LT-350?",
    "text": "Our all-round headlamp: 350 lumens on high.",
    "sources": [{**PRODUCT_EXAMPLE, "score": 0.8807, "exact": False, "cited": True}],
    "abstained": False,
    "several": False,
    "confidence": 0.6817,
    "language": "en",
    "timings": {"queue": 0.0001, "retrieve": 0.009, "generate": 0.37, "total": 0.38},
    "spans": [
        {"start": 0, "stop": 43, "source": "RQ5QHDUNTN", "source_start": 0, "source_stop": 43, "probability": None}
    ],
    "shortened": False,
    "grounded": 1.0,
}
SEARCH_EXAMPLE: Final = {
    "question": "lumen headlamp",
    "language": "en",
    "confidence": 0.2145,
    "several": True,
    "candidates": [
        {**PRODUCT_EXAMPLE, "score": 0.7521, "cosine": 0.781, "overlap": 0.9231, "coverage": 1.0, "exact": False}
    ],
}
ABOUT_EXAMPLE: Final = {
    "ragqa": "0.1.0",
    "index": {"name": "demo", "products": 320, "generation": "g000001"},
    "embedder": "sentence-transformers/all-MiniLM-L6-v2",
    "generator": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "adapter": None,
    "reranker": None,
    "defaults": {"top_k": 5, "decoding": "auto"},
    "limits": {"max_questions": 64, "timeout": 30.0},
}
