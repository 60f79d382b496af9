"""A folder with a model of Llama's kind, and one with its adapter -> a `LlamaReader`, without the general way's imports."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open

from ragqa.models.llama import LlamaConfig, LlamaReader
from ragqa.models.source import weight_files

_FORMATS: Final = (torch.float32, torch.bfloat16)
# What an adapter's configuration has to say, where it says it, for the sum of the weights to be all that there is to it.
_PLAIN: Final[Mapping[str, tuple[Any, ...]]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "fan_in_fan_out": (False,),
    "use_dora": (False,),
    "modules_to_save": (None, []),
    "rank_pattern": ({},),
    "alpha_pattern": ({},),
    "target_parameters": (None, []),
    "layer_replication": (None,),
    "trainable_token_indices": (None,),
    "lora_bias": (False,),
}
_PREFIX: Final = "base_model.model."
# Names of weights that say nothing that the configuration does not.
_MORE: Final = "rotary_emb.inv_freq"


def read_llama(folder: Path, dtype: torch.dtype, adapter: str | None = None) -> LlamaReader | None:
    """The model in a folder; None where it, or the adapter, is of a kind that is not read here.

    Args:
        folder: with configuration and safetensors.
        dtype: the format to compute in.
        adapter: a folder with a LoRA adapter (peft), which is merged into the weights; the sum is made in float32.
    """
    if dtype not in _FORMATS:
        return None
    try:
        with ExitStack() as opened:
            config = configuration(folder)
            if config is None:
                return None
            weights = _Weights(folder, opened)
            if adapter is not None and not weights.take(Path(adapter), opened):
                return None
            reader = LlamaReader(lambda name: weights.get(name, dtype), weights.has, config)
            return None if weights.left() - ({"lm_head.weight"} if config.tied else set()) else reader
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, SafetensorError):
        return None  # the general way says what is wrong with it


def configuration(folder: Path) -> LlamaConfig | None:
    """The form of the model in a folder; None where it is of a kind that is not read here.

    What is not said is as `transformers` has it for these kinds.

    Raises:
        OSError, ValueError, TypeError, KeyError: it cannot be read, or says too little.
    """
    said = json.loads((folder / "config.json").read_text("utf-8"))
    rope = said.get("rope_parameters") or said.get("rope_scaling") or {}
    theta = rope.get("rope_theta", said.get("rope_theta"))
    # A window slides where it is said to; of Mistral's also where nothing is said.
    slides = {"llama": False, "mistral": said.get("sliding_window", 1) is not None}
    slides["qwen2"] = bool(said.get("use_sliding_window", False))
    if (
        slides.get(said["model_type"], True)
        or said.get("hidden_act", "silu") != "silu"
        or rope.get("rope_type", rope.get("type", "default")) != "default"
        or theta is None
        or rope.get("partial_rotary_factor", said.get("partial_rotary_factor")) not in (None, 1, 1.0)
        or said.get("quantization_config")
    ):
        return None
    heads = int(said["num_attention_heads"])
    written, ends = folder / "generation_config.json", said.get("eos_token_id")
    if written.is_file():
        ends = json.loads(written.read_text("utf-8")).get("eos_token_id", ends)
    return LlamaConfig(
        layers=int(said["num_hidden_layers"]),
        heads=heads,
        size=int(said.get("head_dim") or int(said["hidden_size"]) // heads),
        shared=int(said.get("num_key_value_heads") or heads),
        vocab_size=int(said["vocab_size"]),
        max_position_embeddings=int(said["max_position_embeddings"]),
        eps=float(said["rms_norm_eps"]),
        theta=float(theta),
        tied=bool(said.get("tie_word_embeddings", False)),
        ends=() if ends is None else (ends,) if isinstance(ends, int) else tuple(map(int, ends)),
    )


class _Weights:
    """Weights by name, each read when it is asked for, with what an adapter adds to it."""

    def __init__(self, folder: Path, opened: ExitStack) -> None:
        self._files = _tensors(weight_files(folder), opened)
        self._added: dict[str, Any] = {}
        self._scale = 0.0
        self._taken: set[str] = set()

    def take(self, adapter: Path, opened: ExitStack) -> bool:
        """Add an adapter's weights; returns whether they are all that it has."""
        said = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
        if any(said.get(name, kinds[0]) not in kinds for name, kinds in _PLAIN.items()):
            return False
        rank = int(said["r"])
        self._scale = float(said["lora_alpha"]) / (math.sqrt(rank) if said.get("use_rslora") else rank)
        self._added = _tensors([adapter / "adapter_model.safetensors"], opened)
        ends = (".lora_A.weight", ".lora_B.weight")
        known = (name.endswith(ends) and f"{_base(name)}.weight" in self._files for name in self._added)
        return bool(self._added) and all(known)

    def has(self, name: str) -> bool:
        """Whether there are weights of that name."""
        return name in self._files

    def get(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """The weights of that name, in a format."""
        weight: torch.Tensor = self._files[name].get_tensor(name)
        self._taken.add(name)
        below, above = (f"{_PREFIX}{name.removesuffix('.weight')}.lora_{side}.weight" for side in "AB")
        if below not in self._added:
            return weight.to(dtype)
        pair = (self._added[one].get_tensor(one).float() for one in (above, below))
        self._taken |= {above, below}
        whole = weight.float() + self._scale * torch.matmul(*pair)
        if not bool(whole.isfinite().all()):
            raise ValueError(f"{name}: the adapter makes it infinite")
        return whole.to(dtype)

    def left(self) -> set[str]:
        """Names of weights that were not asked for."""
        return {name for name in {*self._files, *self._added} - self._taken if not name.endswith(_MORE)}


def _base(name: str) -> str:
    return name.removeprefix(_PREFIX).rsplit(".lora_", 1)[0]


def _tensors(paths: list[Path], opened: ExitStack) -> dict[str, Any]:
    """By name the file that holds it."""
    found: dict[str, Any] = {}
    for path in paths:
        file = opened.enter_context(safe_open(str(path), "pt"))
        found |= dict.fromkeys(file.keys(), file)
    return found
