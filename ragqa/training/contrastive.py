"""Contrastive training of a sentence encoder, by sentence-transformers' own trainer.

The loss is the multiple negatives ranking loss (Henderson et al. 2017, arXiv 1705.00652; van den Oord et al. 2018,
arXiv 1807.03748): each subject is to be nearer to its title than to all other titles of its batch, the mined hard
negatives included. Importing this module imports torch; import it where it is used.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.base.sampler import DefaultBatchSampler, NoDuplicatesBatchSampler
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from ragqa import models
from ragqa.errors import InputError
from ragqa.progress import progress_bar
from ragqa.retrieval.text import fold
from ragqa.training.batches import on_device
from ragqa.training.checkpoints import seal
from ragqa.training.pairs import Pair, RetrieverTrainingSettings

Measure = Callable[[SentenceTransformer], dict[str, float]]


def batches(pairs: Sequence[Pair], size: int, generator: torch.Generator, seed: int) -> DefaultBatchSampler:
    """Full batches of pairs that share neither question nor group, so that no right title is another's negative."""
    keys = Dataset.from_dict(
        {
            "subject": [fold(pair.subject) or pair.subject for pair in pairs],
            "group": [f"group/{pair.group}" for pair in pairs],
            "negative": [f"group/{pair.negative_group}" for pair in pairs],
        }
    )
    return NoDuplicatesBatchSampler(keys, batch_size=size, drop_last=True, generator=generator, seed=seed)


class ContrastiveTrainer(SentenceTransformerTrainer):
    """The library's trainer, with batches by group, checkpoints without a card, and nothing that asks the Hub."""

    def __init__(self, pairs: Sequence[Pair], **arguments: Any) -> None:
        self._pairs = pairs
        columns = {
            "anchor": [pair.subject for pair in pairs],
            "positive": [pair.title for pair in pairs],
            "negative": [pair.negative for pair in pairs],
        }
        super().__init__(train_dataset=Dataset.from_dict(columns), **arguments)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """None: the card is ragqa's own; the library's computes examples with a bar of its own."""

    def get_batch_sampler(
        self,
        dataset: Any,  # noqa: ARG002
        batch_size: int,
        drop_last: bool,  # noqa: ARG002
        valid_label_columns: list[str] | None = None,  # noqa: ARG002
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> DefaultBatchSampler:
        """See `batches`."""
        return batches(self._pairs, batch_size, generator or torch.Generator(), seed)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ARG002
        self.model.save_pretrained(output_dir or str(self.args.output_dir), create_model_card=False)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:  # noqa: ARG002
        loaded, _ = models.load_embedder(resume_from_checkpoint, "cpu", "float32")
        self.model.load_state_dict(loaded.state_dict())


class _Progress(TrainerCallback):
    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self._bar.update(state.global_step)
        self._bar.unpause()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self._bar.update(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        shown = {"loss": "loss", "eval_mrr": "validation MRR"}
        values = {shown[name]: f"{value:.3f}" for name, value in (logs or {}).items() if name in shown}
        if values:
            self._bar.set_postfix(values, refresh=False)


class _Seal(TrainerCallback):
    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class _Evaluator(BaseEvaluator):
    """Calls `measure` in the number format of training."""

    def __init__(self, measure: Measure, bfloat16: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.greater_is_better, self.primary_metric = True, "choice"
        self._measure, self._bfloat16 = measure, bfloat16

    def __call__(self, model: Any, *_: Any, **__: Any) -> dict[str, float]:
        with _computing(model, self._bfloat16):
            return dict(self._measure(model))


def _computing(model: Any, bfloat16: bool) -> Any:
    return torch.autocast(model.device.type, torch.bfloat16) if bfloat16 else nullcontext()


def seconds_a_step(model: SentenceTransformer, pairs: Sequence[Pair], size: int, bfloat16: bool) -> float:
    """The time one step takes here, tried on the first pairs without changing the model."""
    texts = [text for pair in pairs[:size] for text in (pair.subject, pair.title, pair.negative)]
    model.eval()  # no dropout, so that nothing random is used up
    started = 0.0
    for _ in range(2):  # the first time, buffers are made
        started = time.perf_counter()
        features = on_device(model.device, model.preprocess(texts))
        with _computing(model, bfloat16):
            loss = model(features)["sentence_embedding"].float().square().sum()
        loss.backward()
        model.zero_grad(set_to_none=True)
    return time.perf_counter() - started


def train(
    model: SentenceTransformer,
    pairs: Sequence[Pair],
    settings: RetrieverTrainingSettings,
    measure: Measure,
    work: Path,
    bfloat16: bool,
    checkpoint: Path | None = None,
) -> TrainerState:
    """Train `model` in place; it has the weights of the best evaluation in the end.

    Args:
        model: in float32, on the device to train on.
        pairs: what to train on.
        settings: how.
        measure: gives the model's figures on validation questions; the highest "choice" is the best checkpoint.
        work: where checkpoints go.
        bfloat16: compute in bfloat16, the weights stay float32.
        checkpoint: a sealed checkpoint to go on from.

    Returns:
        What was done: steps, the best of them, the course of loss and figures.

    Raises:
        InputError: the pairs' groups are too few for one full batch.
    """
    if not any(True for _ in batches(pairs, settings.batch_size, torch.Generator(), settings.seed)):
        raise InputError(
            f"{len(pairs)} training pairs are about too few products for a batch of {settings.batch_size}; "
            "lower --batch-size"
        )
    kind = model.device.type
    prompts = {name: prompt for name, prompt in _prompts(model).items() if prompt}
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(work),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=max(1, settings.steps // 10),
        weight_decay=0.01,
        max_grad_norm=1.0,
        bf16=bfloat16,
        use_cpu=kind == "cpu",
        eval_strategy="steps",
        eval_steps=settings.evaluate_every,
        save_strategy="steps",
        save_steps=settings.evaluate_every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_choice",
        greater_is_better=True,
        logging_steps=max(1, settings.steps // 50),
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        prompts=prompts or None,
        seed=settings.seed,
    )
    # Several GPUs would be used through DataParallel, which splits the batch that negatives are taken from.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    with _library_log_off(), progress_bar("training", settings.steps, "steps") as bar:
        trainer = ContrastiveTrainer(
            pairs,
            model=model,
            args=arguments,
            loss=MultipleNegativesRankingLoss(model, scale=settings.scale),
            evaluator=_Evaluator(measure, bfloat16),
            callbacks=[EarlyStoppingCallback(settings.patience), _Seal(), _Progress(bar)],
        )
        trainer.remove_callback(PrinterCallback)
        ended = _ended(checkpoint, settings)
        if ended is None:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        elif ended.best_model_checkpoint:
            trainer._load_from_checkpoint(ended.best_model_checkpoint)
    model.eval()
    return ended or trainer.state


@contextmanager
def _library_log_off() -> Iterator[None]:
    """Keep off the screen what nobody can act upon, such as that an epoch of a small catalogue repeats a few pairs."""
    log = logging.getLogger("sentence_transformers")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _ended(checkpoint: Path | None, settings: RetrieverTrainingSettings) -> TrainerState | None:
    """The state in a checkpoint after which there was nothing left to train; the trainer would take one step more."""
    if checkpoint is None:
        return None
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    stopping = state.stateful_callbacks["EarlyStoppingCallback"]["attributes"]["early_stopping_patience_counter"]
    return state if state.global_step >= settings.steps or stopping >= settings.patience else None


def _prompts(model: SentenceTransformer) -> dict[str, str | None]:
    """The prompts that `encode_query` and `encode_document` put before their texts, by column."""
    title = next((model.prompts[name] for name in ("document", "passage", "corpus") if name in model.prompts), None)
    return {"anchor": model.prompts.get("query"), "positive": title, "negative": title}
