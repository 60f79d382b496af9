"""An adapter and its base model -> one model that answers as they did, for servers that know no adapters."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch

from ragqa import models
from ragqa.errors import InputError, ModelError
from ragqa.files import copy_file
from ragqa.folders import replace_folder
from ragqa.generation.adapter import MANIFEST, read_adapter
from ragqa.generation.generator import Generator
from ragqa.index.lock import writing_lock
from ragqa.models.source import quiet
from ragqa.progress import say
from ragqa.training import workplace
from ragqa.training.documents import PROMPTS, open_to_readers, write_manifest

KIND: Final = "ragqa merged model"
_NEW_TOKENS: Final = 48


def merge(
    adapter: str | Path,
    out: str | Path,
    *,
    generator: str | None = None,
    device: str = "auto",
    dtype: str = "float32",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Merge an adapter into its base model, and check that the result answers the adapter's own test prompts alike.

    Args:
        adapter: a folder that `ragqa.fine_tune` wrote.
        out: the folder for the merged model; it appears whole or not at all.
        generator: where the base model lies now; None takes it by its name.
        device: "auto", "cpu", "cuda" or "mps".
        dtype: number format of the merged weights. The sum is made in float32; in 16 bits it is rounded.
        overwrite: replace a merged model in `out`.

    Returns:
        The manifest; ``manifest["merged"]`` says how the check went.

    Raises:
        InputError: `adapter` holds no adapter of ragqa's, or `out` is taken.
        ModelError: another base model was found, or the merged model answers differently.
        StorageError, BusyError: `out` cannot be written, or another process is writing there.
    """
    folder, path = Path(adapter), Path(out)
    trained = read_adapter(folder)
    if trained is None or trained.merged:
        raise InputError(f"{adapter}: holds no adapter that ragqa.fine_tune wrote")
    prompts = read_prompts(folder)
    workplace.check_out(path, KIND, resume=False, overwrite=overwrite)
    name = generator or str(trained.base["name"])
    model, tokenizer, source = models.load_generator(name, device, "float32", adapter=str(folder))
    trained.check_base(source)
    before = answered(model, tokenizer, prompts)
    work = workplace.work_folder(path)
    with writing_lock(work):
        try:
            finished = workplace.fresh(work / "new")
            workplace.check_space(work, 5 * sum(p.numel() for p in model.parameters()))
            adapted: Any = model
            plain = adapted.merge_and_unload(safe_merge=True).to(models.choose_dtype(dtype, str(model.device)))
            with quiet(), workplace.library_writes(finished):
                plain.save_pretrained(str(finished))
                tokenizer.save_pretrained(str(finished))
            del model, adapted, plain
            again, reloaded, _ = models.load_generator(str(finished), device, dtype)
            same, apart = agreement(before, answered(again, reloaded, prompts))
            if same < len(prompts):
                raise ModelError(
                    f"{path}: not written, the merged model in {dtype} answers {len(prompts) - same} of {len(prompts)} "
                    "test prompts otherwise than the adapter"
                    + ("; merge in float32" if dtype != "float32" else f" (log-probabilities differ by {apart:.2g})")
                )
            manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8")) | {
                "kind": KIND,
                "merged": {
                    "dtype": dtype,
                    "prompts": len(prompts),
                    "same_answers": same,
                    "largest_log_prob_difference": apart,
                    "adapter_sha256": models.ModelSource("", "folder", "", folder).weights_sha256,
                    "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                },
            }
            copy_file(folder / PROMPTS, finished / PROMPTS)
            open_to_readers(finished)
            manifest = write_manifest(finished, manifest)
            replace_folder(finished, path.absolute())
        finally:
            workplace.leave(work)
    return manifest


def read_prompts(folder: Path) -> list[str]:
    """The prompts on which a model is compared with what it was made from, as fine-tune wrote them beside the adapter.

    Raises:
        InputError: they are not there.
    """
    path = folder / PROMPTS
    try:
        return [json.loads(line)["prompt"] for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read; the adapter's test prompts are needed to check the result"
        ) from error


Answered = tuple[list[int], torch.Tensor]


def answered(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[Answered]:
    """For each prompt the tokens of the greedy answer, and the log-probabilities of its first token, (vocabulary,)."""
    generator = Generator(model, tokenizer)
    return [generator.greedy(ids, _NEW_TOKENS) for ids in prompt_ids(tokenizer, prompts)]


def prompt_ids(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    """The tokens of prompts."""
    return [list(tokenizer(prompt, add_special_tokens=not tokenizer.chat_template)["input_ids"]) for prompt in prompts]


def agreement(before: Sequence[Answered], after: Sequence[Answered]) -> tuple[int, float]:
    """How many answers are the same, and by how much the first token's log-probabilities differ at most; says so."""
    same = sum(old == new for (old, _), (new, _) in zip(before, after, strict=True))
    apart = max((float((x - y).abs().max()) for (_, x), (_, y) in zip(before, after, strict=True)), default=0.0)
    say(f"{same} of {len(before)} answers are the same; log-probabilities differ by {apart:.2g} at most")
    return same, apart
