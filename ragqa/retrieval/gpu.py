"""FAISS on an NVIDIA GPU, by `faiss-gpu`: copies of an index, and what to do where it has no room for them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ragqa.errors import first_line
from ragqa.progress import say

if TYPE_CHECKING:
    from ragqa.retrieval.embed import Vectors


def to_gpu(faiss: Any, index: Any, device: str, half: bool = False) -> Any:
    """A copy of an index on a GPU; None, and why, if there can be none.

    Args:
        faiss: the module.
        index: on the CPU.
        device: such as "cuda" or "cuda:1"; for others there is no copy, and nothing is said.
        half: keep whole vectors in float16: for searching alone.
    """
    number = _number(faiss, device)
    if number is None:
        return None
    options = faiss.GpuClonerOptions()
    options.useFloat16 = half
    try:
        return faiss.index_cpu_to_gpu(_resources(faiss), number, index, options)
    except RuntimeError as error:  # no such index on a GPU, or no room
        say(f"FAISS on the CPU ({first_line(error)})")
        return None


def cagra(faiss: Any, read: Callable[[], Vectors], device: str) -> Any:
    """A search graph made on a GPU, as an HNSW index for the CPU; None, and why, if there can be none.

    CAGRA (Ootomo et al. 2024, arXiv 2308.15136) makes in seconds what HNSW takes a millisecond a row for on a CPU. FAISS
    has it where it was built with cuVS.

    Args:
        faiss: the module.
        read: gives (n, dimension) float32, all that the index shall have; not called where there is no such GPU.
        device: see `to_gpu`.
    """
    number = _number(faiss, device)
    if number is None:
        return None
    if not hasattr(faiss, "GpuIndexCagra"):
        say("the graph is made on the CPU: this faiss-gpu was built without cuVS")
        return None
    settings = faiss.GpuIndexCagraConfig()
    settings.device = number
    vectors = read()
    try:
        graph = faiss.GpuIndexCagra(_resources(faiss), vectors.shape[1], faiss.METRIC_INNER_PRODUCT, settings)
        graph.train(vectors)
        return faiss.index_gpu_to_cpu(graph)
    except RuntimeError as error:
        say(f"the graph is made on the CPU ({first_line(error)})")
        return None


def _number(faiss: Any, device: str) -> int | None:
    """Which GPU a device is; None for none, or none that FAISS can use."""
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return None
    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        say("FAISS on the CPU: faiss-gpu is not installed, or sees no GPU (see README.md)")
        return None
    return int(number or 0)


@functools.cache
def _resources(faiss: Any) -> Any:
    """What all copies share; it must live as long as they do."""
    return faiss.StandardGpuResources()
