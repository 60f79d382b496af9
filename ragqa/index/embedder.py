"""The encoder that an index was built with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ragqa import models
from ragqa.errors import IndexMismatchError, ModelError
from ragqa.index.storage import SearchIndex
from ragqa.retrieval.bert import read_bert
from ragqa.retrieval.embed import SentenceEmbedder


def own_embedder(
    index: SearchIndex, folder: str | Path, embedder: str | None, device: str = "auto", dtype: str = "auto"
) -> tuple[SentenceEmbedder, models.ModelSource]:
    """Load the encoder that built the index.

    Args:
        index: the index.
        folder: its folder, for messages.
        embedder: where the encoder lies now; None takes it by its name.
        device, dtype: where and in which number format to compute.

    Raises:
        ModelError: it cannot be found.
        IndexMismatchError: what was found is another one.
    """
    wanted = index.manifest["embedder"]
    try:
        quickly = _read(wanted, embedder or wanted["name"], device, dtype)
        if quickly:
            encoder, source = quickly
        else:
            model, source = models.load_embedder(embedder or wanted["name"], device, dtype)
            encoder = SentenceEmbedder(model)
    except ModelError as error:
        raise ModelError(
            f"{error} (the embedder {folder} was built with; if it moved, name it with --embedder)"
        ) from error
    for what in ("weights", "config"):
        has = getattr(source, f"{what}_sha256")
        if has != wanted[f"{what}_sha256"]:
            raise IndexMismatchError(
                f"{folder} was built with the embedder {wanted['name']} ({what} {wanted[f'{what}_sha256'][:12]}), but "
                f"{source} was found ({what} {has[:12]}); name the right one with --embedder, or build the index anew"
            )
    return encoder, source


def _read(
    wanted: Mapping[str, Any], name: str, device: str, dtype: str
) -> tuple[SentenceEmbedder, models.ModelSource] | None:
    """The encoder from its files alone, if it was found to be one of that kind when the index was built."""
    place = models.choose_device(device)
    if place != "cpu" or not wanted.get("fused"):
        return None
    source = models.find_model(name)
    bert = read_bert(source.folder, models.choose_dtype(dtype, place))
    return (SentenceEmbedder(bert), source) if bert else None
