"""Where a training computes, and in which number format."""

from __future__ import annotations

from ragqa import models
from ragqa.errors import ModelError
from ragqa.index.storage import ProductIndex


def training_device(device: str) -> str:
    """The device to train on.

    Raises:
        ModelError: it is not there, or is one GPU of several, which the Trainer cannot be told.
    """
    place = models.choose_device(device)
    if ":" in place:
        raise ModelError(f"--device {device}: training takes the first GPU it sees; choose it by CUDA_VISIBLE_DEVICES")
    return place


def where_to_compute(device: str, dtype: str) -> tuple[str, bool]:
    """The device, and whether to compute in bfloat16 on it while weights stay float32.

    Raises:
        ModelError: the device is not there, or training cannot use it or the number format.
    """
    place = training_device(device)
    if dtype not in ("auto", "float32", "bfloat16"):
        raise ModelError(f"unknown dtype {dtype!r} for training; accepted are auto, float32 and bfloat16")
    return place, place != "mps" and str(models.choose_dtype(dtype, place)).endswith("bfloat16")


def vectors_dtype(index: ProductIndex, place: str) -> str:
    """The number format the index's vectors were made in, or the nearest that `place` computes in."""
    dtype = str(index.manifest["embedder"].get("dtype", "float32"))
    return "float32" if place == "cpu" and dtype == "float16" else dtype
