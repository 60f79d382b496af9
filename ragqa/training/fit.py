"""Examples -> a trained adapter, by `transformers.Trainer`.

The Trainer's own loop, checkpoints, schedule and early stopping; ours are the batches (`packs`) and the loss: the
mean over the answers' tokens of a whole optimiser step, each by its weight, with logits formed for these tokens
alone. Several processes share a step's batches (`shares`); its loss, its gradients and the validation loss are those of
one process, but for the order in which numbers are added.
"""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINING_ARGS_NAME

from ragqa.errors import ModelError, StorageError
from ragqa.models.source import quiet
from ragqa.progress import progress_bar
from ragqa.training.batches import Batches, answer_loss
from ragqa.training.checkpoints import rotate, seal, steps_of
from ragqa.training.lora import is_fused
from ragqa.training.processes import ALONE, Processes
from ragqa.training.recipe import Recipe
from ragqa.training.shares import Dealt, SharedBatches
from ragqa.training.workplace import library_writes

# Renamed by transformers 5.2x.
CHECKPOINTING = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in TrainingArguments.__dataclass_fields__
)


@dataclass(frozen=True, slots=True)
class Fitted:
    """How training went.

    Attributes:
        history: what was logged, in order.
        best_step: the step whose checkpoint was kept.
        first_loss, best_loss: validation loss before training, and of that step.
        steps: optimiser steps made; fewer than planned where training stopped early.
        planned: optimiser steps planned.
        resumed_at: the step this process began at.
        seconds: of this process.
    """

    history: tuple[Mapping[str, Any], ...]
    best_step: int
    first_loss: float
    best_loss: float
    steps: int
    planned: int
    resumed_at: int
    seconds: float


class _Loader(DataLoader[Any]):
    """The batches of one process, in the order of the epoch that the Trainer names."""

    def set_epoch(self, epoch: int) -> None:
        dealt: Any = self.batch_sampler
        dealt.set_epoch(epoch)


class _Trainer(Trainer):
    """The Trainer with the batches and the loss described above."""

    def __init__(self, dealt: Dealt, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._dealt = dealt
        self.loss_is_scaled_for_ga = True

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This process's batches; accelerate would deal others out where they cannot be dealt evenly."""
        sampler: Any = self._dealt
        dataset: Any = self.train_dataset
        pin = self.args.dataloader_pin_memory
        return _Loader(dataset, batch_sampler=sampler, collate_fn=self.data_collator, pin_memory=pin)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        torch.manual_seed(inputs.pop("seed"))
        return super().training_step(model, inputs, num_items_in_batch)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        """The sum of the weights of an optimiser step's tokens, in all processes."""
        if not batch_samples:  # transformers 5.0 asks once more at the end of an epoch that was gone on with
            return torch.zeros((), device=device)
        own = torch.stack([batch["weights"].sum() for batch in batch_samples]).sum().to(device)
        found: torch.Tensor = self.accelerator.reduce(own, "sum") if self.accelerator.num_processes > 1 else own
        return found

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        losses, logits = answer_loss(model, inputs)
        # Losses and gradients are averaged over the processes, and here is a part of a sum.
        loss = (losses * inputs["weights"]).sum() / num_items_in_batch * self.accelerator.num_processes
        return (loss, logits) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[None, torch.Tensor, torch.Tensor]:
        """Sums over a batch, (1, 6); `_validation` makes means of them."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            losses, logits = answer_loss(model, inputs)
        weights, numbers = inputs["weights"], inputs["numbers"]
        right = logits.argmax(-1) == inputs["targets"]
        sums = [
            (losses * weights).sum(), weights.sum(), losses.sum(), torch.ones_like(losses).sum(),
            (right & numbers).sum(), numbers.sum(),
        ]  # fmt: skip
        row = torch.stack([value.float() for value in sums])[None]
        return None, row, row

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(str(self.args.output_dir))
        with library_writes(folder):
            limit, self.args.save_total_limit = self.args.save_total_limit, None
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self.args.save_total_limit = limit
            if not self.args.should_save:
                return
            checkpoint = folder / f"checkpoint-{self.state.global_step}"
            # The library's own record of its arguments is a pickle, which nothing reads.
            (checkpoint / TRAINING_ARGS_NAME).unlink(missing_ok=True)
            seal(checkpoint)
            rotate(folder, limit or 1, self.state.best_global_step)

    # What is drawn hangs on a batch's place in the run: a checkpoint has no use for the generators of its processes.
    def _save_rng_state(self, output_dir: str) -> None:
        pass

    def _load_rng_state(self, checkpoint: str | None) -> None:
        pass


def _validation(predictions: Any) -> dict[str, float]:
    weighted, weights, plain, tokens, right, numbers = predictions.predictions.sum(axis=0).tolist()
    found = {"loss": weighted / weights, "token_loss": plain / tokens}
    return found | ({"source_accuracy": right / numbers} if numbers else {})


class _Patience(TrainerCallback):
    """Stops training after so many evaluations without a better loss, counted in what was logged.

    The library's own callback counts by itself, and begins anew when a run is resumed.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop |= out_of_patience(state.log_history, self._patience)


def out_of_patience(history: Sequence[Mapping[str, Any]], patience: int) -> bool:
    """Whether the last `patience` evaluations after the first step brought no better loss; never for 0."""
    losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry and entry["step"]]
    return bool(patience) and len(losses) - 1 - min(range(len(losses)), key=losses.__getitem__, default=0) >= patience


class _Progress(TrainerCallback):
    """The bar: steps, loss, tokens a second, time left."""

    def __init__(self, bar: Any, tokens_a_step: float) -> None:
        self._bar, self._tokens, self._started, self._begun = bar, tokens_a_step, time.perf_counter(), 0
        self._shown: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.total, self._begun = state.max_steps, state.global_step
        self._bar.update(state.global_step)
        self._bar.unpause()
        self._started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        rate = self._tokens * (state.global_step - self._begun) / (time.perf_counter() - self._started)
        self._bar.set_postfix(self._shown | {"tokens/s": f"{rate:,.0f}"}, refresh=False)
        self._bar.update(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        for key, name in {"loss": "loss", "eval_loss": "validation"}.items():
            if key in (logs or {}):
                self._shown[name] = f"{logs[key]:.3f}"


def fit(
    model: Any,
    train: Batches,
    validation: Batches,
    tokens: int,
    recipe: Recipe,
    folder: Path,
    checkpoint: Path | None,
    processes: Processes = ALONE,
    unused: bool = False,
) -> Fitted | None:
    """Train the model's adapter; in the first process it ends with the weights of the best evaluation.

    Args:
        model: with LoRA matrices, on its device.
        train, validation: batches.
        tokens: that an epoch computes; for the rate on the screen.
        recipe: the hyper-parameters.
        folder: for checkpoints.
        checkpoint: one to go on from, or a copy of it.
        processes: all that train together.
        unused: whether some LoRA matrices take no part in the loss.

    Returns:
        How it went; None in other processes than the first.

    Raises:
        StorageError: a checkpoint cannot be written, or the best one is gone.
        ModelError: training diverged.
    """
    started = time.perf_counter()
    steps = planned_steps(train, recipe)
    every = max(1, math.ceil(steps / recipe.evaluations))
    place = model.device.type
    make: Any = TrainingArguments
    arguments = make(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=math.ceil(recipe.accumulation / processes.count),
        num_train_epochs=recipe.epochs,
        max_steps=steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=math.ceil(recipe.warmup * steps),
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        **{CHECKPOINTING: recipe.gradient_checkpointing},
        bf16=model.dtype == torch.bfloat16 and not is_fused(model),
        fp16=model.dtype == torch.float16,
        eval_strategy="steps",
        eval_steps=every,
        eval_on_start=checkpoint is None,  # once: another would count against the patience
        save_strategy="steps",
        save_steps=every,
        save_total_limit=recipe.save_total_limit,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_strategy="steps",
        logging_steps=max(1, steps // 100),
        seed=recipe.training_seed,
        data_seed=recipe.training_seed,
        use_cpu=place == "cpu",
        dataloader_pin_memory=place == "cuda",
        remove_unused_columns=False,
        label_names=["targets"],
        ddp_find_unused_parameters=unused,
        ddp_broadcast_buffers=False,
        report_to="none",
        disable_tqdm=True,
    )
    if place == "cuda":
        arguments._n_gpu = 1  # batches are one sequence, which DataParallel cannot part
    with progress_bar("training", steps, "steps") as bar, quiet():
        sizes = [train.size(i) for i in range(len(train))]
        trainer = _Trainer(
            Dealt(
                len(train),
                recipe.accumulation,
                sizes.index(min(sizes)),
                recipe.training_seed,
                processes.number,
                processes.count,
            ),
            model=model,
            args=arguments,
            data_collator=lambda items: items[0],
            train_dataset=SharedBatches(train),
            eval_dataset=validation,
            compute_metrics=_validation,
            callbacks=[_Progress(bar, tokens / len(train) * recipe.accumulation), _Patience(recipe.patience)],
        )
        for speaks in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(speaks)
        if checkpoint is not None:
            trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        state = trainer.state
        # A run that was killed after its last step is not trained further.
        if state.global_step < steps and not out_of_patience(state.log_history, recipe.patience):
            try:
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            except pickle.UnpicklingError as error:  # the library reads numbers alone (weights_only)
                raise StorageError(
                    f"{checkpoint}: holds something else than numbers; begin anew with --overwrite"
                ) from error
    if not processes.first:
        return None
    state = trainer.state
    losses = {int(e["step"]): float(e["eval_loss"]) for e in state.log_history if "eval_loss" in e}
    best = int(state.best_global_step or state.global_step)
    if not math.isfinite(losses[best]):
        raise ModelError(
            f"training diverged: the validation loss at step {best} is {losses[best]}; lower learning_rate, or compute in "
            "float32 or bfloat16 (--dtype)"
        )
    _load_best(model, folder / f"checkpoint-{best}")
    return Fitted(
        tuple(state.log_history),
        best,
        losses[min(losses)],
        losses[best],
        state.global_step,
        steps,
        steps_of(checkpoint) if checkpoint else 0,
        round(time.perf_counter() - started, 3),
    )


def _load_best(model: Any, checkpoint: Path) -> None:
    """Give the model the adapter of a checkpoint."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    file = checkpoint / "adapter_model.safetensors"
    if not file.is_file():
        raise StorageError(f"{file}: the best checkpoint is gone; begin anew with --overwrite")
    set_peft_model_state_dict(model, load_file(str(file), device=str(model.device)))


def planned_steps(train: Batches, recipe: Recipe) -> int:
    """How many optimiser steps a run makes, if it does not stop early."""
    if recipe.steps:
        return recipe.steps
    per_epoch = math.ceil(len(train) / recipe.accumulation)
    return max(1, math.ceil(recipe.epochs * per_epoch))
