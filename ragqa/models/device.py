"""Where and in which number format to compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ragqa.errors import ModelError

if TYPE_CHECKING:
    import torch


def choose_device(device: str = "auto") -> str:
    """The device to compute on: "auto" takes a GPU where there is one.

    Raises:
        ModelError: the device is unknown, or not on this machine.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not number.isdigit()):
        raise ModelError(f"unknown device {device!r}; accepted are auto, cpu, cuda, cuda:N and mps")
    if kind == "cuda" and (not torch.cuda.is_available() or int(number or 0) >= torch.cuda.device_count()):
        raise ModelError(
            f"device {device!r} is not on this machine (torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices); use --device cpu, or install a CUDA build of torch"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ModelError("device 'mps' is not on this machine; use --device cpu")
    return device


def choose_dtype(dtype: str, device: str) -> torch.dtype:
    """The number format to compute in.

    "auto" is bfloat16 where the processor or GPU computes in it (AVX512-BF16, AMX; Ampere and later),
    float16 on older GPUs, float32 elsewhere.

    Raises:
        ModelError: another name than auto, float32, bfloat16 or float16.
    """
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype != "auto":
        if dtype not in known:
            raise ModelError(f"unknown dtype {dtype!r}; accepted are auto, {', '.join(known)}")
        return known[dtype]
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device == "cpu" and _cpu_has_bfloat16():
        return torch.bfloat16
    return torch.float32


def _cpu_has_bfloat16() -> bool:
    import torch

    # Private names in torch 2.x; where one is gone, float32 is right everywhere.
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and bool(check()) for check in checks)


def dtype_name(model: Any) -> str:
    """The number format of a model's matrix products, such as "bfloat16"."""
    formats = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    return str(min(formats, key=lambda kind: kind.itemsize)).removeprefix("torch.")


def describe(model: Any) -> str:
    """Where a model computes and in which number format, for the screen."""
    return f"{model.device}, {dtype_name(model)}"
