"""The steps of `benchmarks.training`, each in a process of its own; the last line of its output is its result."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ragqa import Answerer, Recipe, build_index, models
from ragqa.answerer import ABSTENTIONS
from ragqa.generation.adapter import TEMPLATES
from ragqa.generation.prompt import PromptBuilder
from ragqa.training.batches import answer_loss, make_batches
from ragqa.training.examples import make_examples
from ragqa.training.fit import fit
from ragqa.training.lora import add_lora
from ragqa.training.packs import padded_batch
from ragqa.training.tokens import Encoder, Tokens, encode
from ragqa.training.tree_attention import use_tree_attention

BATCH = 4
# One evaluation at each end; the number of a source weighs as any token, so that all roads have one aim.
RECIPE = Recipe(evaluations=1, number_weight=1.0, number_questions=0, batch_size=8, batch_tokens=768, patience=0)


def index(catalogue: str, out: str) -> dict[str, Any]:
    """Build the index."""
    return {"products": len(build_index(catalogue, out))}


def examples(folder: str, out: str, count: str, questions: str) -> dict[str, Any]:
    """Make the examples, and measure the loss before training."""
    recipe = Recipe(examples=int(count), validation=12, questions_per_context=int(questions), number_questions=0)
    answerer = Answerer.from_pretrained(folder)
    made = make_examples(answerer.index, answerer.retriever, recipe)
    model, tokenizer, _ = models.load_generator(recipe.generator, "cpu", "float32")
    builder = PromptBuilder(tokenizer, TEMPLATES["retrieval"], recipe.context_tokens)
    encoder = Encoder(builder, recipe.max_new_tokens, ABSTENTIONS)
    train, held_out = (encode(contexts, encoder).examples for contexts in (made.train, made.watched))
    Path(out).write_text(json.dumps({"train": _plain(train), "validation": _plain(held_out)}))
    return {
        "catalogue_sha256": answerer.index.manifest["catalogue"]["sha256"],
        "examples": len(train),
        "tokens": sum(len(e.ids) for e in train),
        "answer_tokens": sum(len(e.ids) - e.prompt for e in train),
        "first_loss": _loss(model, tokenizer, held_out),
    }


def ragqa(data: str, out: str, dtype: str) -> dict[str, Any]:
    """This project's road."""
    train, held_out = _read(data)
    model, tokenizer, _ = models.load_generator(RECIPE.generator, "cpu", dtype)
    torch.manual_seed(0)
    adapted = add_lora(model, RECIPE)
    use_tree_attention(model)
    batches = make_batches(train, adapted, tokenizer, RECIPE, packed=True)
    watched = make_batches(held_out[:2], adapted, tokenizer, RECIPE, packed=True)
    tokens = [pack.tokens for pack in batches.items]
    with _steps() as steps:
        fit(adapted, batches, watched, sum(tokens), RECIPE, Path(out), None)
    return _measured(adapted, tokenizer, held_out, steps, sum(tokens))


def stock(data: str, out: str, dtype: str) -> dict[str, Any]:
    """`Trainer` and `peft` as their documentation shows them: padded to the longest, labels everywhere."""
    from peft import LoraConfig, get_peft_model
    from transformers import DataCollatorForLanguageModeling, Trainer

    train, held_out = _read(data)
    model, tokenizer, _ = models.load_generator(RECIPE.generator, "cpu", dtype)
    tokenizer.padding_side = "right"
    torch.manual_seed(0)
    adapted: Any = get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
    )
    trainer = Trainer(
        model=adapted,
        args=_arguments(out, dtype),
        train_dataset=[{"input_ids": list(e.ids)} for e in train],  # type: ignore[arg-type]
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )
    with _steps() as steps:
        trainer.train()
    return _measured(adapted, tokenizer, held_out, steps, sum(len(e.ids) for e in train))


def trl(data: str, out: str, dtype: str) -> dict[str, Any]:
    """TRL's `SFTTrainer`, loss on the completion alone."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    train, held_out = _read(data)
    model, tokenizer, _ = models.load_generator(RECIPE.generator, "cpu", dtype)
    tokenizer.padding_side = "right"
    torch.manual_seed(0)
    rows = [
        {"input_ids": list(e.ids), "completion_mask": [0] * e.prompt + [1] * (len(e.ids) - e.prompt)} for e in train
    ]
    common = _arguments(out, dtype).to_dict()
    kept = (
        "output_dir", "per_device_train_batch_size", "num_train_epochs", "learning_rate", "lr_scheduler_type",
        "warmup_steps", "logging_strategy", "save_strategy", "report_to", "disable_tqdm", "use_cpu", "bf16", "seed",
    )  # fmt: skip
    # Its own default recomputes activations, which the other roads do not.
    arguments = SFTConfig(
        **{k: common[k] for k in kept}, completion_only_loss=True, max_length=None, gradient_checkpointing=False
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear"),
    )
    with _steps() as steps:
        trainer.train()
    return _measured(trainer.model, tokenizer, held_out, steps, sum(len(e.ids) for e in train))


def profile(data: str, dtype: str) -> dict[str, Any]:
    """Where the time of ragqa's step goes."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    train, _ = _read(data)
    model, tokenizer, _ = models.load_generator(RECIPE.generator, "cpu", dtype)
    adapted = add_lora(model, RECIPE)
    use_tree_attention(model)
    batches = make_batches(train, adapted, tokenizer, RECIPE, packed=True)
    largest = sorted(range(len(batches)), key=batches.size)[-4:]

    def step(number: int) -> None:
        losses, _ = answer_loss(adapted, batches[number])
        losses.mean().backward()

    step(largest[0])
    with profiler(activities=[ProfilerActivity.CPU]) as found:
        for number in largest[1:]:
            step(number)
    groups = {
        "multiplications of weights": ("aten::mm", "aten::addmm", "aten::addmm_", "aten::linear"),
        "attention": (
            "aten::bmm",
            "aten::_softmax",
            "aten::_softmax_backward_data",
            "_Attention",
            "_AttentionBackward",
        ),
    }
    total = sum(event.self_cpu_time_total for event in found.key_averages())
    shares = {
        name: sum(e.self_cpu_time_total for e in found.key_averages() if e.key in keys) / total
        for name, keys in groups.items()
    }
    return {"dtype": dtype, "shares": shares | {"all else, element by element": 1 - sum(shares.values())}}


def _arguments(out: str, dtype: str) -> Any:
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=out,
        per_device_train_batch_size=BATCH,
        num_train_epochs=1,
        learning_rate=RECIPE.learning_rate,
        lr_scheduler_type=RECIPE.schedule,
        warmup_steps=0.1,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        bf16=dtype == "bfloat16",
        seed=0,
    )


class _steps:  # noqa: N801  (used as a function)
    """Within, the seconds of every optimiser step of a Trainer."""

    def __enter__(self) -> list[float]:
        from transformers import Trainer

        self.seconds: list[float] = []
        self._fetch, last = Trainer.get_batch_samples, [0.0]
        fetch, seconds = self._fetch, self.seconds

        def timed(trainer: Any, *arguments: Any) -> Any:
            now = time.perf_counter()
            if last[0]:
                seconds.append(now - last[0])
            last[0] = now
            return fetch(trainer, *arguments)

        Trainer.get_batch_samples = timed  # type: ignore[method-assign]
        return self.seconds

    def __exit__(self, *_: object) -> None:
        from transformers import Trainer

        Trainer.get_batch_samples = self._fetch  # type: ignore[method-assign]


def _measured(model: Any, tokenizer: Any, held_out: list[Tokens], steps: list[float], tokens: int) -> dict[str, Any]:
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    # The first step warms up caches, and the last is cut short by what follows it.
    timed = steps[1:]
    a_step = tokens / (len(steps) + 1)
    return {
        "tokens_per_second": a_step * len(timed) / sum(timed),
        "step_rates": [round(a_step / seconds, 1) for seconds in timed],
        "steps": len(steps) + 1,
        "peak_mb": peak,
        "loss": _loss(model.float(), tokenizer, held_out),
    }


@torch.no_grad()
def _loss(model: Any, tokenizer: Any, held_out: list[Tokens]) -> float:
    model.eval()
    losses = [answer_loss(model, padded_batch([e], tokenizer.pad_token_id))[0] for e in held_out]
    return float(torch.cat(losses).mean())


def _plain(made: list[Tokens]) -> list[Any]:
    return [[e.ids, e.prompt, e.numbered] for e in made]


def _read(data: str) -> tuple[list[Tokens], list[Tokens]]:
    read = json.loads(Path(data).read_text())
    train, held_out = ([Tokens(tuple(i), p, n) for i, p, n in read[part]] for part in ("train", "validation"))
    return train, held_out


if __name__ == "__main__":
    steps: dict[str, Callable[..., dict[str, Any]]] = {
        f.__name__: f for f in (index, examples, ragqa, stock, trl, profile)
    }
    print(json.dumps(steps[sys.argv[1]](*sys.argv[2:])))
