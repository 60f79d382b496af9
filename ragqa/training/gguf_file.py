"""A model's folder -> one GGUF file, the format of llama.cpp and Ollama."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, MODEL_ARCH, GGMLQuantizationType, GGUFWriter, LlamaFileType, get_tensor_name_map
from gguf.constants import GGML_QUANT_VERSION
from gguf.quants import quantize
from safetensors import safe_open

from ragqa import models
from ragqa.errors import ModelError
from ragqa.models.source import weight_files
from ragqa.training.gguf_vocabulary import CONVERTER, parting, write_vocabulary

_ARCHITECTURES: Final = {"llama": MODEL_ARCH.LLAMA, "qwen2": MODEL_ARCH.QWEN2, "qwen3": MODEL_ARCH.QWEN3}
_TYPES: Final = {
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
DTYPES: Final = tuple(_TYPES)


def check_writable(source: models.ModelSource) -> None:
    """Refuse a model that `write_gguf` cannot write; its weights are not looked at.

    Raises:
        ModelError: its architecture, or its tokenizer, is none that is known here.
    """
    config = models.load_configuration(source)
    kind = config.model_type
    other = ""
    if kind not in _ARCHITECTURES:
        other = f"is a {kind} model, none of {', '.join(_ARCHITECTURES)}"
    else:
        rope = _rope(config)
        if rope.get("rope_type", "default") != "default" or rope.get("partial_rotary_factor", 1.0) != 1.0:
            other = f"has rotary positions of another kind than the plain one ({rope.get('rope_type')})"
        elif getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False):
            other = "has biases that such models have not as a rule"
        elif config.hidden_act != "silu":
            other = f"computes with {config.hidden_act}, not silu"
        elif any(of_layer != "full_attention" for of_layer in getattr(config, "layer_types", None) or ()):
            other = "has layers that see a part of the text alone"
    if other:
        raise ModelError(
            f"{source.name}: {other}, so ragqa cannot write it as GGUF; export it with --format safetensors and convert "
            f"that folder with {CONVERTER}"
        )
    parting(models.load_tokenizer(source), source.name)


def write_gguf(source: models.ModelSource, file: Path, dtype: str, title: str) -> None:
    """Write a model as GGUF.

    Matrices are written in `dtype`, vectors (norms and biases) in float32. Llama's query and key rows are put in the order
    in which ggml turns them: neighbours are a pair, not the rows half a head apart.

    Args:
        source: the model, in safetensors.
        file: the new file.
        dtype: one of `DTYPES`. "q8_0" is 8 bits a weight with a scale for each 32; rows that are no multiple of 32 are f16.
        title: what servers say of the model.

    Raises:
        ModelError: see `check_writable`; or a weight has no place in such a file, or is too large for `dtype`.
        OSError: it cannot be written.
    """
    check_writable(source)
    config: Any = models.load_configuration(source)
    names = get_tensor_name_map(_ARCHITECTURES[config.model_type], config.num_hidden_layers)
    wanted, kind = _TYPES[dtype]
    writer = GGUFWriter(file, _ARCHITECTURES[config.model_type].name.lower())
    try:
        _write_shape(writer, config)
        writer.add_name(title)
        writer.add_file_type(kind)
        writer.add_quantization_version(GGML_QUANT_VERSION)
        write_vocabulary(writer, models.load_tokenizer(source), config.vocab_size, source.name)
        # Twice: a file begins with its table, and no more than one weight is held at a time.
        for own, shape, _ in _weights(source.folder):
            place = names.get_name(own, try_suffixes=(".weight", ".bias"))
            if place is None:
                raise ModelError(f"{source.name}: GGUF has no place for {own} of a {config.model_type} model")
            held = _type(shape, wanted)
            block, size = GGML_QUANT_SIZES[held]
            writer.add_tensor_info(place, shape, np.dtype(np.float32), shape.numel() // block * size, held)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for own, shape, weight in _weights(source.folder):
            values = weight[:].float()
            if config.model_type == "llama" and ".self_attn." in own and ("q_proj" in own or "k_proj" in own):
                heads = config.num_attention_heads if "q_proj" in own else config.num_key_value_heads
                values = values.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
            held = _type(shape, wanted)
            if held is GGMLQuantizationType.F16 and float(values.abs().max()) > torch.finfo(torch.float16).max:
                raise ModelError(f"{source.name}: {own} has weights that are too large for f16; choose --dtype bf16")
            writer.write_tensor_data(quantize(values.contiguous().numpy(), held))
    finally:
        writer.close()


def _write_shape(writer: GGUFWriter, config: Any) -> None:
    """Write what the model's layers are like."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float(_rope(config)["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _rope(config: Any) -> dict[str, Any]:
    return dict(config.rope_parameters)


def _weights(folder: Path) -> Iterator[tuple[str, torch.Size, Any]]:
    """The name of each weight in a folder, its shape, and what gives it when it is sliced."""
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as held:
            for own in held.keys():  # noqa: SIM118  (it is no mapping)
                weight = held.get_slice(own)
                yield own, torch.Size(weight.get_shape()), weight


def _type(shape: torch.Size, wanted: GGMLQuantizationType) -> GGMLQuantizationType:
    if len(shape) == 1:
        return GGMLQuantizationType.F32
    return GGMLQuantizationType.F16 if shape[-1] % GGML_QUANT_SIZES[wanted][0] else wanted
