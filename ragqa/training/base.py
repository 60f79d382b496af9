"""The encoder a training begins with, and where it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ragqa import models
from ragqa.errors import IndexMismatchError, ModelError
from ragqa.index.storage import ProductIndex


def where_to_compute(device: str, dtype: str) -> tuple[str, bool]:
    """The device, and whether to compute in bfloat16 on it.

    Raises:
        ModelError: the device is not there, or training cannot use it or the number format.
    """
    place = models.choose_device(device)
    if ":" in place:
        raise ModelError(f"--device {device}: training takes the first GPU it sees; choose it by CUDA_VISIBLE_DEVICES")
    if dtype not in ("auto", "float32", "bfloat16"):
        raise ModelError(f"unknown dtype {dtype!r} for training; accepted are auto, float32 and bfloat16")
    return place, place != "mps" and str(models.choose_dtype(dtype, place)).endswith("bfloat16")


def own_embedder(index: ProductIndex, folder: Path, embedder: str | None, place: str) -> tuple[Any, models.ModelSource]:
    """The encoder that built the index, in the number format its vectors were made in.

    Args:
        index: the index.
        folder: its folder, for messages.
        embedder: where the encoder lies now; None takes it by its name.
        place: the device.

    Raises:
        ModelError: it cannot be found.
        IndexMismatchError: what was found is another one.
    """
    wanted = index.manifest["embedder"]
    dtype = wanted.get("dtype", "float32")
    if place == "cpu" and dtype == "float16":
        dtype = "float32"  # not computed in there
    try:
        model, source = models.load_embedder(embedder or wanted["name"], place, dtype)
    except ModelError as error:
        raise ModelError(
            f"{error} (the embedder {folder} was built with; if it moved, name it with --embedder)"
        ) from error
    for what in ("weights", "config"):
        if getattr(source, f"{what}_sha256") != wanted[f"{what}_sha256"]:
            raise IndexMismatchError(
                f"{folder} was built with the embedder {wanted['name']} ({what} {wanted[f'{what}_sha256'][:12]}), but "
                f"{source} was found; name the right one with --embedder, or build the index anew"
            )
    return model, source
