"""What the service says of itself: names, never paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import ragqa
from ragqa.generation.adapter import base_name
from ragqa.index.storage import ProductIndex
from ragqa.serving.service import Service

_TOLD: Final = ("max_queue", "max_questions", "max_body", "timeout", "rate", "burst", "max_batch")


def about(service: Service) -> dict[str, Any]:
    """Versions, index, models, default settings and limits.

    Raises:
        Problem: 503, not loaded yet.
    """
    live = service.live
    answerer = live.answerer
    index = answerer.index
    limits = service.limits.to_dict()
    names = {
        role: None if name is None else base_name(name)
        for role, name in (
            ("embedder", index.manifest["embedder"]["name"]),
            ("generator", answerer.generator_name),
            ("adapter", answerer.adapter_name),
            ("reranker", answerer.reranker_name),
        )
    }
    folder = index.folder.resolve().parent if isinstance(index, ProductIndex) else Path(index.place.partition("?")[0])
    return {
        "ragqa": ragqa.__version__,
        "index": {
            "name": folder.parent.name if folder.name == "index" and folder.parent.name else folder.name,
            "products": len(index),
            "generation": live.name,
        },
        **names,
        "defaults": answerer.settings.to_dict(),
        "limits": {name: limits[name] for name in _TOLD},
    }
