"""What a run is going to do and how long that takes, said before it starts."""

from __future__ import annotations

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
    seconds: float

    def text(self, done: int = 0) -> str:
        """The plan in one line."""
        more = f" and {self.number_questions:,} questions for the number alone" if self.number_questions else ""
        left = self.seconds * (1 - done / self.steps)
        return (
            f"plan: {self.examples:,} examples{more}, {self.tokens:,} tokens ({self.answer_tokens:,} of answers; "
            f"{self.computed:,} computed, {'packed' if self.packed else 'padded'}), {self.steps:,} steps"
            f"{f', {done:,} of them done' if done else ''}; {self.trained:,} of {self.parameters:,} parameters trained "
            f"({', '.join(self.layers)}); about {left / 60:.1f} minutes"
        )


def make_plan(model: Any, train: Encoded, batches: Batches, watched: Batches, recipe: Recipe, packed: bool) -> Plan:
    """Count, and time one batch of middling size forwards and backwards.

    Args:
        model: with its LoRA matrices, on its device; its gradients are cleared.
        train: the training examples.
        batches, watched: as `make_batches` made them.
        recipe: the hyper-parameters.
        packed: whether they are packed.
    """
    sizes = [batches.size(i) for i in range(len(batches))]
    middle = sorted(range(len(sizes)), key=lambda i: sizes[i])[len(sizes) // 2]
    model.train()
    seconds, forward = _timed(model, batches[middle])
    steps = planned_steps(batches, recipe)
    a_batch = seconds * sum(sizes) / len(sizes) / max(sizes[middle], 1)
    watching = forward / max(sizes[middle], 1) * sum(watched.size(i) for i in range(len(watched)))
    trained, every = parameters(model)
    return Plan(
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
        seconds=round(steps * recipe.accumulation * a_batch + (recipe.evaluations + 1) * watching, 1),
    )


def _timed(model: Any, batch: dict[str, Any]) -> tuple[float, float]:
    """Seconds of a batch, forwards and backwards, and forwards alone; the second of two runs."""
    batch = on_device(model.device, batch)
    times = (0.0, 0.0)
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
        model.zero_grad()
    return times
