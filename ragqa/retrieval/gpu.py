"""FAISS on an NVIDIA GPU, by `faiss-gpu`: copies of an index, and what to do where it has no room for them."""

from __future__ import annotations

import functools
from typing import Any

from ragqa.errors import first_line
from ragqa.progress import say


def to_gpu(faiss: Any, index: Any, device: str, half: bool = False) -> Any:
    """A copy of an index on a GPU; None, and why, if there can be none.

    Args:
        faiss: the module.
        index: on the CPU.
        device: such as "cuda" or "cuda:1"; for others there is no copy, and nothing is said.
        half: keep whole vectors in float16: for searching alone.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return None
    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        say("FAISS on the CPU: faiss-gpu is not installed, or sees no GPU (see README.md)")
        return None
    options = faiss.GpuClonerOptions()
    options.useFloat16 = half
    try:
        return faiss.index_cpu_to_gpu(_resources(faiss), int(number or 0), index, options)
    except RuntimeError as error:  # no such index on a GPU, or no room
        say(f"FAISS on the CPU ({first_line(error)})")
        return None


@functools.cache
def _resources(faiss: Any) -> Any:
    """What all copies share; it must live as long as they do."""
    return faiss.StandardGpuResources()
