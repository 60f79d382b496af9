"""A base model -> the same with a trained adapter: what every process of a training does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from ragqa import models
from ragqa.errors import ModelError
from ragqa.progress import say
from ragqa.training import workplace
from ragqa.training.checkpoints import steps_of
from ragqa.training.device import training_device
from ragqa.training.processes import ALONE, Processes, own_device
from ragqa.training.recipe import Recipe
from ragqa.training.tokens import Encoded
from ragqa.versions import installed_versions

PACKAGES: Final = ("transformers", "peft", "torch", "accelerate", "safetensors", "numpy")


@dataclass(frozen=True, slots=True)
class Base:
    """What is trained, and how."""

    model: Any
    tokenizer: Any
    source: models.ModelSource
    recipe: Recipe


def check_place(device: str, dtype: str) -> str:
    """The device to train on, which must take the number format."""
    place = training_device(device)
    if place != "cuda" and str(models.choose_dtype(dtype, place)).endswith("float16") and dtype == "float16":
        raise ModelError(f"--dtype float16: gradients in float16 need a GPU; on {place} choose float32 or bfloat16")
    return place


def load_base(recipe: Recipe, device: str, dtype: str, processes: Processes) -> Base:
    """The base model, on this process's device."""
    place = own_device(check_place(device, dtype), processes)
    return Base(*models.load_generator(recipe.generator, place, dtype), recipe)


def about(base: Base) -> dict[str, Any]:
    """What must be the same in all processes of a training."""
    return {
        "base model": base.source.weights_sha256,
        "device": base.model.device.type,
        "number format": models.dtype_name(base.model),
        "version of a package": installed_versions(PACKAGES),
    }


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Within, too little memory on the device is told with what helps."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelError(
            "the device has too little memory for this run; lower batch_tokens or context_tokens, or turn on "
            "gradient_checkpointing"
        ) from error


def train_adapter(
    run: Base, train: Encoded, watched: Encoded, work: Path, checkpoint: Path | None, processes: Processes = ALONE
) -> tuple[Any, Any, dict[str, Any]]:
    """Add LoRA, say the plan, fit; returns the model with its best weights, how it went, and the plan.

    In other processes than the first the weights are the last ones, and how it went is None.
    """
    from transformers import set_seed

    from ragqa.training.batches import make_batches, packs_agree
    from ragqa.training.fit import CHECKPOINTING, fit
    from ragqa.training.lora import add_lora
    from ragqa.training.plan import make_plan
    from ragqa.training.tree_attention import use_tree_attention

    recipe = run.recipe
    set_seed(recipe.training_seed)
    model = add_lora(run.model, recipe)
    if processes.first:
        workplace.check_space(work, 20 * 4 * sum(p.numel() for p in model.parameters() if p.requires_grad))
    if recipe.gradient_checkpointing:
        getattr(model, f"{CHECKPOINTING}_enable")()
    packed = recipe.packing and not model.config.is_encoder_decoder
    before = model.config._attn_implementation
    # Recomputed layers do not know which pack they are of.
    if packed and model.device.type == "cpu" and before == "sdpa" and not recipe.gradient_checkpointing:
        use_tree_attention(model.get_base_model())
    if packed and not processes.once(lambda: packs_agree(model, run.tokenizer, train.examples)):
        say("this model does not compute packed examples as it does single ones; batches are padded")
        model.get_base_model().set_attn_implementation(before)
        packed = False
    batches, watching = (
        make_batches(encoded.examples, model, run.tokenizer, recipe, packed) for encoded in (train, watched)
    )
    plan, unused = make_plan(model, train, batches, watching, recipe, packed, processes.count)
    say(plan.text(steps_of(checkpoint) if checkpoint else 0))
    fitted = fit(model, batches, watching, plan.computed, recipe, work, checkpoint, processes, unused)
    return model.eval(), fitted, asdict(plan)
