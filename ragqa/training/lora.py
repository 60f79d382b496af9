"""A base model -> the same with LoRA matrices (Hu et al. 2022, arXiv 2106.09685), through peft."""

from __future__ import annotations

import contextlib
import re
from types import MethodType
from typing import Any

import torch

from ragqa.errors import InputError, ModelError, first_line
from ragqa.models.source import quiet
from ragqa.training.recipe import Recipe


def add_lora(model: Any, recipe: Recipe) -> Any:
    """`model` with LoRA matrices in float32 on its linear layers, everything else frozen.

    The layers are `recipe.target_modules`, or all linear layers but the output head, which fits every architecture:
    Llama, Mistral, Qwen, Gemma, T5 and BART by their `Linear`, GPT-2 by its `Conv1D`.

    Raises:
        InputError: none of the model's layers has one of the names.
        ModelError: peft cannot adapt the model.
    """
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers.pytorch_utils import Conv1D

    names = [name for name, _ in model.named_modules()]
    missing = [t for t in recipe.target_modules if not any(n == t or n.endswith(f".{t}") for n in names)]
    if missing:
        endings = sorted({n.rsplit(".", 1)[-1] for n, m in model.named_modules() if not list(m.children())})
        raise InputError(f"target_modules: the model has no {', '.join(missing)}; its layers are {', '.join(endings)}")
    config = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM,
        r=recipe.rank,
        lora_alpha=recipe.alpha,  # type: ignore[arg-type]
        lora_dropout=recipe.dropout,
        target_modules=list(recipe.target_modules) or "all-linear",
        use_dora=recipe.dora,
        use_rslora=recipe.rslora,
        # GPT-2's layers keep their weights transposed.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    try:
        with quiet():
            adapted = get_peft_model(model, config)
    except (ValueError, TypeError) as error:
        raise ModelError(f"no LoRA adapter can be made for this model ({first_line(error)})") from error
    _fuse(adapted, recipe)
    return adapted


def computing(model: Any) -> Any:
    """The context to compute in: mixed precision where LoRA layers do not convert their matrices themselves."""
    if is_fused(model) or model.dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(model.device.type, model.dtype)


def is_fused(model: Any) -> bool:
    """Whether all LoRA layers of the model are computed by `_Fused`."""
    from peft.tuners.lora import LoraLayer

    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    return bool(layers) and all("forward" in vars(layer) for layer in layers)


class _Fused(torch.autograd.Function):
    """``x W' + b + s (x A') B'`` with A and B in float32 and the rest in x's number format.

    The same as peft's layer, which makes six temporaries of the output's size where this makes one, and as many again
    backwards; on a CPU those cost more than the multiplications. No gradient for W and b, which are frozen.
    """

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, a: Any, b: Any, scale: float) -> Any:
        # x (..., in), weight (out, in), a (rank, in), b (out, rank)
        rows, a, b = x.reshape(-1, x.shape[-1]), a.to(x.dtype), b.to(x.dtype)
        out = rows @ weight.t() if bias is None else torch.addmm(bias, rows, weight.t())
        low = rows @ a.t()
        out.addmm_(low, b.t(), alpha=scale)
        ctx.save_for_backward(rows, low, weight, a, b)
        ctx.scale, ctx.shape = scale, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        rows, low, weight, a, b = ctx.saved_tensors
        grad = gradients[0].reshape(-1, gradients[0].shape[-1])
        grad_low = (grad @ b).mul_(ctx.scale)
        grad_a, grad_b = (grad_low.t() @ rows).float(), (grad.t() @ low).float().mul_(ctx.scale)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad @ weight).addmm_(grad_low, a).view(ctx.shape)
        return grad_x, None, None, grad_a, grad_b, None


def _fuse(model: Any, recipe: Recipe) -> None:
    """Compute LoRA layers by `_Fused`, all or none; with dropout, DoRA or float16 they stay peft's."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.layer import Linear

    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    plain = all(type(layer) is Linear and layer.get_base_layer().weight.dtype.is_floating_point for layer in layers)
    # In float16 gradients need scaling, which comes with mixed precision; that and fused layers do not mix.
    if recipe.dropout or recipe.dora or not plain or model.dtype == torch.float16:
        return
    for layer in layers:
        layer.forward = MethodType(_fused_forward, layer)


def _fused_forward(layer: Any, x: Any, *_: Any, **__: Any) -> Any:
    base, (name,) = layer.get_base_layer(), layer.active_adapters
    weight = base.weight.t() if layer.fan_in_fan_out else base.weight
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    return _Fused.apply(x, weight, base.bias, a, b, layer.scaling[name])  # type: ignore[no-untyped-call]


def adapted_layers(model: Any) -> list[str]:
    """Names of the layers with LoRA matrices, each once, numbers of blocks left out."""
    found = {name.split(".lora_A")[0].rsplit(".", 1)[-1] for name, _ in model.named_parameters() if ".lora_A" in name}
    return sorted(re.sub(r"\d+", "N", name) for name in found)


def parameters(model: Any) -> tuple[int, int]:
    """How many parameters are trained, and how many there are."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return trained, sum(p.numel() for p in model.parameters())
