"""The example's way, whole: index -> questions -> contexts -> tokens -> LoRA -> fit -> an adapter that documents itself."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

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
from ragqa.training.adapt import PACKAGES, Base, about, check_place, load_base, memory_errors, train_adapter
from ragqa.training.checkpoints import copied, packed_files
from ragqa.training.documents import write_documents
from ragqa.training.examples import Examples, make_examples
from ragqa.training.judge import Shown, fit_choice, show, weigh
from ragqa.training.processes import ALONE, Processes, check_alike, joined
from ragqa.training.questions import TEMPLATES as QUESTION_TEMPLATES
from ragqa.training.recipe import Recipe, make_recipe, write_recipe
from ragqa.training.splits import write_split
from ragqa.training.tokens import Encoded, Encoder, encode
from ragqa.versions import installed_versions

KIND: Final = "ragqa adapter"
_SHOWN: Final = 3  # answers before and after, on the card
_TESTED: Final = 8  # prompts to test a merged model with
_AROUND: Final = 4  # tokens of an answer beside its text: number, bracket, end


@dataclass(frozen=True, slots=True)
class _Loaded(Base):
    """The parts of a run."""

    answerer: Answerer
    builder: PromptBuilder
    mode: Mode


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

    Started in several processes (`torchrun`, `accelerate launch`, Ray Train), on one machine or more, these share the
    batches of every step, and all return the manifest. The first alone needs the index, and reads and writes files;
    the others need the base model.

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
        ProcessError: another process of the same training failed or was killed.
    """
    with joined(device) as processes:
        if not processes.first:
            return _help(processes, Path(out), device, dtype)
        manifest = _lead(
            processes, index, Path(out), mode, recipe, questions, templates, embedder, device, dtype, resume, overwrite,
            overrides,
        )  # fmt: skip
        processes.share(manifest)
        return manifest


def _help(processes: Processes, out: Path, device: str, dtype: str) -> dict[str, Any]:
    """Compute a share of a training that the first process leads; see `fine_tune`."""
    base = load_base(processes.share(), device, dtype, processes)
    check_alike(processes, about(base))
    train, watched, files = processes.share()
    with copied(files) as checkpoint, memory_errors():
        train_adapter(base, train, watched, workplace.work_folder(out), checkpoint, processes)
    manifest: dict[str, Any] = processes.share()
    return manifest


def _lead(
    processes: Processes,
    index: str | Path,
    path: Path,
    mode: Mode,
    recipe: Recipe | str | Path | None,
    questions: str | Path | None,
    templates: Sequence[str],
    embedder: str | None,
    device: str,
    dtype: str,
    resume: bool,
    overwrite: bool,
    overrides: Mapping[str, Any],
) -> dict[str, Any]:
    """Do a training, alone or with the help of other processes; see `fine_tune`."""
    started = time.perf_counter()
    if mode not in MODES:
        raise InputError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
    use = make_recipe(recipe, overrides)
    _check_shares(use, processes.count)
    workplace.check_out(path, KIND, resume, overwrite)
    processes.share(use)
    run = load_run(index, use, mode, embedder, device, dtype, processes)
    check_alike(processes, about(run))
    indexed = on_disk(run.answerer.index)
    examples = make_examples(indexed, run.answerer.retriever, use, templates, questions)
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
            copy_file(indexed.folder / CLEANING, finished / CLEANING)
            before = show(Generator(run.model, run.tokenizer), run.builder, examples.asked[:60], mode, use, _SHOWN)
            prepared = time.perf_counter()
            if processes.count > 1:
                processes.share((train, watched, packed_files(checkpoint)))
            with memory_errors():
                model, fitted, plan = train_adapter(run, train, watched, work, checkpoint, processes)
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


def _check_shares(recipe: Recipe, count: int) -> None:
    """Refuse more processes than a step has batches: some would never have one that counts."""
    if count > recipe.accumulation:
        tokens, size = (max(1, n * recipe.accumulation // count) for n in (recipe.batch_tokens, recipe.batch_size))
        raise InputError(
            f"{count} processes cannot share a step of {recipe.accumulation} batches (accumulation); start at most "
            f"{recipe.accumulation}, or cut the step into more batches: --accumulation {count} --batch-tokens {tokens} "
            f"--batch-size {size}"
        )


def load_run(
    index: str | Path,
    recipe: Recipe,
    mode: Mode,
    embedder: str | None,
    device: str,
    dtype: str,
    processes: Processes = ALONE,
) -> _Loaded:
    """Everything that a training works with."""
    check_place(device, dtype)
    answerer = Answerer.from_pretrained(index, embedder=embedder, device=device)
    base = load_base(recipe, device, dtype, processes)
    say(f"base model {base.source}, {models.describe(base.model)}")
    room = getattr(base.model.config.get_text_config(), "max_position_embeddings", None)
    tokens = recipe.context_tokens
    if room is not None and tokens + recipe.max_new_tokens + _AROUND > room:
        raise ModelError(
            f"{base.source.name} reads {room:,} tokens, too few for a context of {tokens:,} and an answer of "
            f"{recipe.max_new_tokens}; lower context_tokens and max_new_tokens, or choose another generator"
        )
    builder = PromptBuilder(base.tokenizer, TEMPLATES[mode], tokens)
    return _Loaded(base.model, base.tokenizer, base.source, recipe, answerer, builder, mode)


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
        "versions": installed_versions(PACKAGES),
    }
