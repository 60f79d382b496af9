"""The example's way, whole: index -> questions -> contexts -> tokens -> LoRA -> fit -> an adapter that documents itself."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from ragqa import models
from ragqa.answerer import ABSTENTIONS, Answerer
from ragqa.errors import InputError, ModelError, ProductIndexError
from ragqa.files import copy_file, sha256_of, write_json
from ragqa.folders import replace_folder
from ragqa.generation.adapter import FORMAT_VERSION, MODES, TEMPLATES, Mode, base_name
from ragqa.generation.choice import Choice
from ragqa.generation.generator import Generator
from ragqa.generation.prompt import PromptBuilder
from ragqa.index.lock import writing_lock
from ragqa.index.storage import CLEANING, on_disk
from ragqa.progress import say
from ragqa.training import workplace
from ragqa.training.checkpoints import steps_of
from ragqa.training.device import training_device
from ragqa.training.documents import write_documents
from ragqa.training.examples import Examples, make_examples
from ragqa.training.judge import Shown, fit_choice, show, weigh
from ragqa.training.questions import TEMPLATES as QUESTION_TEMPLATES
from ragqa.training.recipe import Recipe, make_recipe, write_recipe
from ragqa.training.splits import write_split
from ragqa.training.tokens import Encoded, Encoder, encode
from ragqa.versions import installed_versions

KIND: Final = "ragqa adapter"
_PACKAGES: Final = ("transformers", "peft", "torch", "accelerate", "safetensors", "numpy")
_SHOWN: Final = 3  # answers before and after, on the card
_TESTED: Final = 8  # prompts to test a merged model with
_AROUND: Final = 4  # tokens of an answer beside its text: number, bracket, end


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The parts of a run."""

    answerer: Answerer
    model: Any
    tokenizer: Any
    source: models.ModelSource
    builder: PromptBuilder
    mode: Mode
    recipe: Recipe


def fine_tune(
    index: str | Path,
    out: str | Path,
    *,
    mode: Mode = "retrieval",
    recipe: Recipe | str | Path | None = None,
    questions: str | Path | None = None,
    templates: Sequence[str] = QUESTION_TEMPLATES,
    embedder: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    **overrides: Any,
) -> dict[str, Any]:
    """Fine-tune a generator with LoRA on questions about an index's products.

    Args:
        index: the index folder.
        out: the folder for the adapter; it appears whole or not at all.
        mode: "plain": question -> description; "retrieval": question and retrieved candidates -> the number of the
            right one and its description (RAFT, Zhang et al. 2024, arXiv 2403.10131).
        recipe: hyper-parameters, or a TOML file of them.
        questions: a file of questions of your own to train on, see `ragqa.training.questions.read_questions`.
        templates: questions with ``{subject}`` in them, in place of the built-in ones.
        embedder: where the index's encoder lies now; None takes it by its name.
        device: "auto", "cpu", "cuda" or "mps".
        dtype: number format of the base model; the LoRA matrices are float32.
        resume: go on from the last checkpoint of the same run.
        overwrite: replace an adapter in `out`, and give up an unfinished run.
        overrides: fields of the recipe, such as ``epochs=2``.

    Returns:
        The manifest, as it stands in ``manifest.json``.

    Raises:
        InputError: a recipe's fields, too few products, `out` is taken, nothing or something else to resume.
        IndexNotFoundError, IndexMismatchError, IndexDamagedError: the index cannot be used.
        ModelError: the base model cannot be used, has no room for the context, or the device is not there.
        StorageError, BusyError: `out` cannot be written, or another process is training there.
    """
    started, path = time.perf_counter(), Path(out)
    if mode not in MODES:
        raise InputError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
    use = make_recipe(recipe, overrides)
    workplace.check_out(path, KIND, resume, overwrite)
    run = load_run(index, use, mode, embedder, device, dtype)
    searched = on_disk(run.answerer.index)
    examples = make_examples(searched, run.answerer.retriever, use, templates, questions)
    train, watched = encode_examples(run, examples)
    key = _key(run, templates, questions)
    work = workplace.work_folder(path)
    with writing_lock(work):
        try:
            if path.exists() and not overwrite:
                raise InputError(f"{path}: was made by another process meanwhile; choose another --out")
            checkpoint = workplace.begin(work, key, resume)
            finished = workplace.fresh(work / "new")
            # Now, since a rebuilt index does not keep its old generations for ever.
            copy_file(searched.folder / CLEANING, finished / CLEANING)
            before = show(Generator(run.model, run.tokenizer), run.builder, examples.asked[:60], mode, use, _SHOWN)
            prepared = time.perf_counter()
            try:
                model, fitted, plan = train_adapter(run, train, watched, work, checkpoint)
            except torch.OutOfMemoryError as error:
                raise ModelError(
                    "the device has too little memory for this run; lower batch_tokens or context_tokens, or turn on "
                    "gradient_checkpointing"
                ) from error
            trained = time.perf_counter()
            generator, choice = Generator(model, run.tokenizer), Choice()
            if mode == "retrieval":
                choice = fit_choice(weigh(generator, run.builder, examples.asked, use.judged))
                generator = Generator(model, run.tokenizer, choice)
            after = show(generator, run.builder, examples.asked[:60], mode, use, _SHOWN)
            with workplace.library_writes(finished):
                model.save_pretrained(str(finished))
                (finished / "README.md").unlink(missing_ok=True)
            _name_base(finished / "adapter_config.json", base_name(run.source.name))
            split = write_split(examples.split, examples.products, finished / "split")
            write_recipe(use, finished / "recipe.toml")
            ended = time.perf_counter()
            manifest = key | {
                "kind": KIND,
                "format_version": FORMAT_VERSION,
                "mode": mode,
                "base": run.source.to_dict(),
                "context": {
                    "products": use.products, "tokens": run.builder.max_tokens, "max_new_tokens": use.max_new_tokens
                },
                "choice": choice.to_dict(),
                "seed": use.seed,
                "data": {name: file["sha256"] for name, file in split["files"].items()},
                "examples": plan["examples"],
                "number_questions": plan["number_questions"],
                "abstaining": sum(c.answered and c.gold is None for c in examples.train),
                "dropped": dict(train.dropped),
                "plan": plan,
                "trained": {k: v for k, v in asdict(fitted).items() if k != "history"},
                "weights_sha256": sha256_of(finished / "adapter_model.safetensors"),
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "seconds": {
                    "prepare": round(prepared - started, 1),
                    "train": round(trained - prepared, 1),
                    "choice": round(ended - trained, 1),
                    "total": round(ended - started, 1),
                },
            }  # fmt: skip
            manifest = write_documents(
                finished, path.name, manifest, fitted.history, _pairs(before, after), _prompts(run, examples)
            )
            replace_folder(finished, path.absolute())
            shutil.rmtree(work, ignore_errors=True)
        except BaseException:
            workplace.leave(work)
            raise
    return manifest


def load_run(index: str | Path, recipe: Recipe, mode: Mode, embedder: str | None, device: str, dtype: str) -> _Loaded:
    """Everything that a training works with."""
    place = training_device(device)
    if place != "cuda" and str(models.choose_dtype(dtype, place)).endswith("float16") and dtype == "float16":
        raise ModelError(f"--dtype float16: gradients in float16 need a GPU; on {place} choose float32 or bfloat16")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("fine_tune trains in one process; run it without torchrun or accelerate launch")
    answerer = Answerer.from_pretrained(index, embedder=embedder, device=device)
    model, tokenizer, source = models.load_generator(recipe.generator, device, dtype)
    say(f"base model {source}, {models.describe(model)}")
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    tokens = recipe.context_tokens
    if room is not None and tokens + recipe.max_new_tokens + _AROUND > room:
        raise ModelError(
            f"{source.name} reads {room:,} tokens, too few for a context of {tokens:,} and an answer of "
            f"{recipe.max_new_tokens}; lower context_tokens and max_new_tokens, or choose another generator"
        )
    return _Loaded(answerer, model, tokenizer, source, PromptBuilder(tokenizer, TEMPLATES[mode], tokens), mode, recipe)


def encode_examples(run: _Loaded, examples: Examples) -> tuple[Encoded, Encoded]:
    """What is trained on and what is watched, as tokens."""
    encoder = Encoder(run.builder, run.recipe.max_new_tokens, ABSTENTIONS)
    by_id = None
    if run.mode == "plain":
        by_id = {product.id: product for product in examples.products}
    train, watched = (encode(contexts, encoder, by_id) for contexts in (examples.train, examples.watched))
    for encoded, name in ((train, "train"), (watched, "validation")):
        if not encoded.examples:
            raise InputError(f"{run.answerer.index.place}: no {name} questions can be made from its products")
    for reason, count in train.dropped.items():
        say(f"{count:,} training questions left out: {reason}")
    made = sum(e.answered for e in train.examples) + sum(train.dropped.values())
    if made < run.recipe.examples:
        say(f"only {made:,} of {run.recipe.examples:,} training questions could be made")
    return train, watched


def train_adapter(
    run: _Loaded, train: Encoded, watched: Encoded, work: Path, checkpoint: Path | None
) -> tuple[Any, Any, dict[str, Any]]:
    """Add LoRA, say the plan, fit; returns the model with its best weights, how it went, and the plan."""
    from transformers import set_seed

    from ragqa.training.batches import make_batches, packs_agree
    from ragqa.training.fit import CHECKPOINTING, fit
    from ragqa.training.lora import add_lora
    from ragqa.training.plan import make_plan
    from ragqa.training.tree_attention import use_tree_attention

    recipe = run.recipe
    set_seed(recipe.training_seed)
    model = add_lora(run.model, recipe)
    workplace.check_space(work, 20 * 4 * sum(p.numel() for p in model.parameters() if p.requires_grad))
    if recipe.gradient_checkpointing:
        getattr(model, f"{CHECKPOINTING}_enable")()
    packed = recipe.packing and not model.config.is_encoder_decoder
    before = model.config._attn_implementation
    # Recomputed layers do not know which pack they are of.
    if packed and model.device.type == "cpu" and before == "sdpa" and not recipe.gradient_checkpointing:
        use_tree_attention(model.get_base_model())
    if packed and not packs_agree(model, run.tokenizer, train.examples):
        say("this model does not compute packed examples as it does single ones; batches are padded")
        model.get_base_model().set_attn_implementation(before)
        packed = False
    batches, watching = (
        make_batches(encoded.examples, model, run.tokenizer, recipe, packed) for encoded in (train, watched)
    )
    plan = make_plan(model, train, batches, watching, recipe, packed)
    say(plan.text(steps_of(checkpoint) if checkpoint else 0))
    fitted = fit(model, batches, watching, plan.computed, recipe, work, checkpoint)
    return model.eval(), fitted, asdict(plan)


def _pairs(before: Sequence[Shown], after: Sequence[Shown]) -> list[tuple[Shown, str]]:
    return [(old, new.answer) for old, new in zip(before, after, strict=True)]


def _name_base(file: Path, name: str) -> None:
    """Let the adapter's own configuration name its base model, not the folder of this machine where it lies."""
    write_json(file, json.loads(file.read_text("utf-8")) | {"base_model_name_or_path": name})


def _prompts(run: _Loaded, examples: Examples) -> list[str]:
    """Prompts on which a merged model is compared with the adapter."""
    shown = [(c.question, c.candidates if run.mode == "retrieval" else ()) for c in examples.asked[:_TESTED]]
    return [run.builder.build(question, candidates).text for question, candidates in shown]


def _key(run: _Loaded, templates: Sequence[str], questions: str | Path | None) -> dict[str, Any]:
    """What a run depends on: the same gives the same adapter on one machine's CPU."""
    manifest = run.answerer.index.manifest
    if "content_sha256" not in manifest:
        raise ProductIndexError(f"{run.answerer.index.place}: its manifest has no content hash; build the index anew")
    template = TEMPLATES[run.mode]
    catalogue: Mapping[str, Any] = manifest.get("catalogue") or {}
    return {
        "mode": run.mode,
        "recipe": {k: list(v) if isinstance(v, tuple) else v for k, v in run.recipe.to_dict().items()},
        "base_sha256": run.source.weights_sha256,
        "index": {
            # Folders of this machine are nobody else's business.
            "catalogue": Path(str(catalogue.get("name", ""))).name,
            "content_sha256": manifest["content_sha256"],
            "products": len(run.answerer.index),
        },
        "prompt": {"version": template.version, "fingerprint": template.fingerprint()},
        "templates_sha256": hashlib.sha256("\n".join(templates).encode()).hexdigest(),
        "questions_sha256": sha256_of(Path(questions)) if questions is not None else None,
        "device": run.model.device.type,
        "dtype": models.dtype_name(run.model),
        "versions": installed_versions(_PACKAGES),
    }
