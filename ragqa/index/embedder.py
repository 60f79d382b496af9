"""The encoder that an index was built with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ragqa import models
from ragqa.errors import IndexMismatchError, ModelError
from ragqa.index.storage import ProductIndex


def own_embedder(
    index: ProductIndex, folder: Path, embedder: str | None, device: str = "auto", dtype: str = "auto"
) -> tuple[Any, models.ModelSource]:
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
        model, source = models.load_embedder(embedder or wanted["name"], device, dtype)
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
    return model, source
