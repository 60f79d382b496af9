"""Sourced answers over product catalogues.

>>> from ragqa import Answerer
>>> answerer = Answerer.from_pretrained("indexes/demo")              # doctest: +SKIP
>>> answerer.ask("What is the description of ...?").sources[0].title  # doctest: +SKIP

The names below are loaded when first used: ``import ragqa`` itself imports neither torch nor any other
large package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Answer": "ragqa.records",
    "AnswerStream": "ragqa.streams",
    "Answerer": "ragqa.answerer",
    "AnswerSettings": "ragqa.settings",
    "CleaningReport": "ragqa.catalogue.clean",
    "CleaningSettings": "ragqa.settings",
    "Plan": "ragqa.planning.records",
    "PlanSettings": "ragqa.planning.records",
    "Product": "ragqa.records",
    "RagqaError": "ragqa.errors",
    "RayEngine": "ragqa.cluster.engine",
    "Recipe": "ragqa.training.recipe",
    "ReadOptions": "ragqa.catalogue.columns",
    "RetrieverTrainingSettings": "ragqa.training.pairs",
    "Server": "ragqa.generation.server",
    "Source": "ragqa.records",
    "Span": "ragqa.records",
    "build_index": "ragqa.index.build",
    "build_milvus": "ragqa.milvus.build",
    "export": "ragqa.training.export",
    "fine_tune_retriever": "ragqa.training.embedder",
    "fine_tune": "ragqa.training.fine_tune",
    "merge": "ragqa.training.merge",
    "open_index": "ragqa.index.storage",
    "plan": "ragqa.planning.plan",
    "prepare": "ragqa.catalogue.export",
    "update_index": "ragqa.index.update",
}

__all__ = [
    "Answer",
    "AnswerSettings",
    "AnswerStream",
    "Answerer",
    "CleaningReport",
    "CleaningSettings",
    "Plan",
    "PlanSettings",
    "Product",
    "RagqaError",
    "RayEngine",
    "ReadOptions",
    "Recipe",
    "RetrieverTrainingSettings",
    "Server",
    "Source",
    "Span",
    "build_index",
    "build_milvus",
    "export",
    "fine_tune",
    "fine_tune_retriever",
    "merge",
    "open_index",
    "plan",
    "prepare",
    "update_index",
]

if TYPE_CHECKING:
    from ragqa.answerer import Answerer
    from ragqa.catalogue.clean import CleaningReport
    from ragqa.catalogue.columns import ReadOptions
    from ragqa.catalogue.export import prepare
    from ragqa.cluster.engine import RayEngine
    from ragqa.errors import RagqaError
    from ragqa.generation.server import Server
    from ragqa.index.build import build_index
    from ragqa.index.storage import open_index
    from ragqa.index.update import update_index
    from ragqa.milvus.build import build_milvus
    from ragqa.planning.plan import plan
    from ragqa.planning.records import Plan, PlanSettings
    from ragqa.records import Answer, Product, Source, Span
    from ragqa.settings import AnswerSettings, CleaningSettings
    from ragqa.streams import AnswerStream
    from ragqa.training.embedder import fine_tune_retriever
    from ragqa.training.export import export
    from ragqa.training.fine_tune import fine_tune
    from ragqa.training.merge import merge
    from ragqa.training.pairs import RetrieverTrainingSettings
    from ragqa.training.recipe import Recipe


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
