"""What a run is going to do and how long that takes, said before it starts."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch

from ragqa.training.batches import Batches, answer_loss, on_device
from ragqa.training.fit import planned_steps
from ragqa.training.lora import adapted_layers, computing, parameters
from ragqa.training.recipe import Recipe
from ragqa.training.tokens import Encoded


@dataclass(frozen=True, slots=True)
class Plan:
    """The size of a run.

    Attributes:
        examples: questions to train on.
        number_questions: further ones of which only the source's number is learnt.
        tokens: of these with their answers, each by itself, in one epoch.
        computed: tokens a packed epoch really computes; padding included where batches are padded.
        answer_tokens: tokens that are learnt, in one epoch.
        steps: optimiser steps.
        batches: in one epoch.
        trained, parameters: how many parameters are trained, and how many there are.
        layers: names of the layers with LoRA matrices.
        packed: whether examples share what they have in common.
        processes: how many share the batches.
        seconds: expected, training and evaluations, measured on one batch.
    """

    examples: int
    number_questions: int
    tokens: int
    computed: int
    answer_tokens: int
    steps: int
    batches: int
    trained: int
    parameters: int
    layers: tuple[str, ...]
    packed: bool
    processes: int
    seconds: float

    def text(self, done: int = 0) -> str:
        """The plan in one line."""
        more = f" and {self.number_questions:,} questions for the number alone" if self.number_questions else ""
        left = self.seconds * (1 - done / self.steps)
        return (
            f"plan: {self.examples:,} examples{more}, {self.tokens:,} tokens ({self.answer_tokens:,} of answers; "
            f"{self.computed:,} computed, {'packed' if self.packed else 'padded'}), {self.steps:,} steps"
            f"{f', {done:,} of them done' if done else ''}"
            f"{f', shared by {self.processes} processes' if self.processes > 1 else ''}; {self.trained:,} of {self.parameters:,} parameters trained "
            f"({', '.join(self.layers)}); about {left / 60:.1f} minutes"
        )


def make_plan(
    model: Any, train: Encoded, batches: Batches, watched: Batches, recipe: Recipe, packed: bool, processes: int = 1
) -> tuple[Plan, bool]:
    """Count, and time one batch of middling size forwards and backwards.

    Args:
        model: with its LoRA matrices, on its device; its gradients are cleared.
        train: the training examples.
        batches, watched: as `make_batches` made them.
        recipe: the hyper-parameters.
        packed: whether they are packed.
        processes: how many share them.

    Returns:
        The plan, and whether some LoRA matrices got no gradient from the batch.
    """
    sizes = [batches.size(i) for i in range(len(batches))]
    middle = sorted(range(len(sizes)), key=lambda i: sizes[i])[len(sizes) // 2]
    model.train()
    seconds, forward, unused = _timed(model, batches[middle])
    steps = planned_steps(batches, recipe)
    a_batch = seconds * sum(sizes) / len(sizes) / max(sizes[middle], 1)
    watching = forward / max(sizes[middle], 1) * sum(watched.size(i) for i in range(len(watched)))
    trained, every = parameters(model)
    a_step = math.ceil(recipe.accumulation / processes) * a_batch
    plan = Plan(
        examples=sum(e.answered for e in train.examples),
        number_questions=sum(not e.answered for e in train.examples),
        tokens=sum(len(e.ids) for e in train.examples),
        computed=sum(sizes),
        answer_tokens=sum(len(e.ids) - e.prompt for e in train.examples),
        steps=steps,
        batches=len(batches),
        trained=trained,
        parameters=every,
        layers=tuple(adapted_layers(model)),
        packed=packed,
        processes=processes,
        seconds=round(steps * a_step + (recipe.evaluations + 1) * watching / processes, 1),
    )
    return plan, unused


def _timed(model: Any, batch: dict[str, Any]) -> tuple[float, float, bool]:
    """Seconds of a batch, forwards and backwards, and forwards alone; the second of two runs. And see `make_plan`."""
    batch = on_device(model.device, batch)
    times, unused = (0.0, 0.0), False
    for _ in range(2):
        started = time.perf_counter()
        with computing(model):
            losses, _ = answer_loss(model, batch)
            loss = (losses * batch["weights"]).mean()
        float(loss.detach())
        forward = time.perf_counter() - started
        loss.backward()
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        times = time.perf_counter() - started, forward
        unused = any(p.requires_grad and p.grad is None for p in model.parameters())
        model.zero_grad()
    return *times, unused
