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
        encoder, source = load_described(wanted, embedder or wanted["name"], device, dtype)
    except ModelError as error:
        raise ModelError(
            f"{error} (the embedder {folder} was built with; if it moved, name it with --embedder)"
        ) from error
    if differing := difference(source, wanted):
        what, has, want = differing
        raise IndexMismatchError(
            f"{folder} was built with the embedder {wanted['name']} ({what} {want}), but "
            f"{source} was found ({what} {has}); name the right one with --embedder, or build the index anew"
        )
    return encoder, source


def load_described(
    wanted: Mapping[str, Any], name: str, device: str, dtype: str
) -> tuple[SentenceEmbedder, models.ModelSource]:
    """Load an encoder that a manifest describes, in the quickest way that it allows.

    Raises:
        ModelError: it cannot be found.
    """
    if quickly := _read(wanted, name, device, dtype):
        return quickly
    model, source = models.load_embedder(name, device, dtype)
    return SentenceEmbedder(model), source


def difference(source: models.ModelSource, wanted: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """In what a model is another than the manifest's, and the beginnings of both hashes; None if it is the same."""
    for what in ("weights", "config"):
        has, want = getattr(source, f"{what}_sha256"), wanted[f"{what}_sha256"]
        if has != want:
            return what, has[:12], want[:12]
    return None


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
