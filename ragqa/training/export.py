"""An adapter -> a model's folder for servers that know none: safetensors for vLLM, GGUF for llama.cpp and Ollama."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal, get_args

from ragqa import models
from ragqa.errors import InputError, ModelError
from ragqa.files import HashingFile, copy_file, sha256_of
from ragqa.folders import replace_folder
from ragqa.generation.adapter import MANIFEST, Adapter, base_name, read_adapter
from ragqa.index.lock import writing_lock
from ragqa.models.gguf import load_gguf
from ragqa.models.source import weight_files
from ragqa.progress import say
from ragqa.training import workplace
from ragqa.training.documents import open_to_readers, write_manifest
from ragqa.training.gguf_file import DTYPES as GGUF_DTYPES
from ragqa.training.gguf_file import check_writable, write_gguf
from ragqa.training.merge import KIND, agreement, answered, merge, prompt_ids, read_prompts

Format = Literal["safetensors", "gguf"]
# The first is the default. Trained weights are far from the largest that float16 holds, and it keeps three bits more of
# them than bfloat16 in as many bytes; llama.cpp computes in it on every machine.
DTYPES: Final[dict[Format, tuple[str, ...]]] = {
    "safetensors": ("float32", "bfloat16", "float16"),
    "gguf": GGUF_DTYPES,
}
MODEL: Final = "model.gguf"
MODELFILE: Final = "Modelfile"
# These may lose answers; how many is told.
_LOSSY: Final = ("q8_0",)
# Of the context that Ollama keeps: rounded up to that many tokens.
_STEP: Final = 1024
_COPIED: Final = (".json", ".jsonl", ".txt", ".jinja", ".model")


def export(
    adapter: str | Path,
    out: str | Path,
    *,
    format: Format = "safetensors",  # noqa: A002  (the name of the option)
    dtype: str | None = None,
    generator: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the model that an adapter makes of its base, for a server; checked to answer the adapter's test prompts alike.

    Args:
        adapter: a folder that `ragqa.fine_tune` wrote or, for "gguf", one that `ragqa.merge` wrote.
        out: the folder for the model; it appears whole or not at all.
        format: "safetensors": what `ragqa.merge` writes. "gguf": the model in one file, an Ollama Modelfile, tokenizer,
            configuration and manifest. Either folder can be named as an adapter where a server is asked.
        dtype: number format of the weights; None takes the first of those in `DTYPES`. Of "q8_0", which is smaller than what
            was trained, the answers that stay the same are counted; with others all must.
        generator: where the base model lies now; None takes it by its name.
        device: "auto", "cpu", "cuda" or "mps", for the check.
        overwrite: replace a merged model in `out`.

    Returns:
        The manifest; ``manifest["gguf"]`` and ``manifest["merged"]`` say how the checks went.

    Raises:
        InputError: `adapter` is no such folder, `out` is taken, or there is no such format.
        ModelError: the model cannot be written as GGUF, or what was written answers differently.
        StorageError, BusyError: `out` cannot be written, or another process is writing there.
    """
    if format not in get_args(Format):
        raise InputError(f"unknown format {format!r}; accepted are {', '.join(get_args(Format))}")
    chosen = dtype or DTYPES[format][0]
    if chosen not in DTYPES[format]:
        raise InputError(f"{format} is not written in {chosen!r}; accepted are {', '.join(DTYPES[format])}")
    folder = Path(adapter)
    trained = read_adapter(folder)
    if format == "safetensors":
        if trained and trained.merged:
            raise InputError(f"{adapter}: is a merged model already, ready to be served: vllm serve {adapter}")
        return merge(adapter, out, generator=generator, device=device, dtype=chosen, overwrite=overwrite)
    if trained is None:
        raise InputError(f"{adapter}: holds neither an adapter that ragqa.fine_tune wrote nor a merged model")
    return _export_gguf(trained, Path(out), chosen, generator, device, overwrite)


def _export_gguf(
    trained: Adapter, path: Path, dtype: str, generator: str | None, device: str, overwrite: bool
) -> dict[str, Any]:
    folder = trained.folder
    prompts = read_prompts(folder)
    workplace.check_out(path, KIND, resume=False, overwrite=overwrite)
    base = str(folder) if trained.merged else generator or str(trained.base["name"])
    check_writable(models.find_model(base, weights=trained.merged))  # told before time is spent
    work = workplace.work_folder(path)
    with writing_lock(work):
        try:
            merged = folder
            if not trained.merged:
                merged = work / "merged"
                merge(folder, merged, generator=generator, device=device, overwrite=True)
            # Alone at first: see `load_gguf`.
            file = workplace.fresh(work / "new") / MODEL
            workplace.check_space(work, sum(weights.stat().st_size for weights in weight_files(merged)))
            say(f"writing {dtype} weights")
            with workplace.library_writes(file.parent):
                source = models.ModelSource(str(folder), "folder", "", merged)
                write_gguf(source, file, dtype, f"{base_name(str(trained.base['name']))}, {path.name}")
            same, apart = _checked(source, file, prompts, device)
            if same < len(prompts) and dtype not in _LOSSY:
                raise ModelError(
                    f"{path}: not written, the model in {dtype} answers {len(prompts) - same} of {len(prompts)} test prompts "
                    "otherwise than the merged one"
                    + ("; choose --dtype f32" if dtype != "f32" else f" (log-probabilities differ by {apart:.2g})")
                )
            for one in sorted(merged.iterdir()):
                if one.suffix in _COPIED and one.name != MANIFEST and not one.name.endswith(".index.json"):
                    copy_file(one, file.with_name(one.name))
            with HashingFile(file.with_name(MODELFILE)) as text:
                text.write(_modelfile(trained, merged).encode())
            manifest: dict[str, Any] = json.loads((merged / MANIFEST).read_text("utf-8")) | {
                "gguf": {
                    "dtype": dtype,
                    "bytes": file.stat().st_size,
                    "sha256": sha256_of(file),
                    "prompts": len(prompts),
                    "same_answers": same,
                    "largest_log_prob_difference": apart,
                },
            }
            open_to_readers(file.parent)
            manifest = write_manifest(file.parent, manifest)
            replace_folder(file.parent, path.absolute())
        finally:
            workplace.leave(work)
    return manifest


def _checked(source: models.ModelSource, file: Path, prompts: list[str], device: str) -> tuple[int, float]:
    """How many prompts the model in a file answers as the merged one, and by how much log-probabilities differ.

    Raises:
        ModelError: it reads them as other tokens.
    """
    model, tokenizer, _ = models.load_generator(str(source.folder), device, "float32")
    before, ids = answered(model, tokenizer, prompts), prompt_ids(tokenizer, prompts)
    del model
    again, reread = load_gguf(file, device)
    if prompt_ids(reread, prompts) != ids or reread.eos_token_id != tokenizer.eos_token_id:
        raise ModelError(
            f"{source.name}: its tokenizer and the one written as GGUF read the test prompts as different tokens; export it with "
            "--format safetensors"
        )
    return agreement(before, answered(again, reread, prompts))


def _modelfile(trained: Adapter, merged: Path) -> str:
    """What Ollama is told of the model."""
    config = models.load_configuration(models.find_model(str(merged)))
    needed = -(-(trained.context_tokens + trained.max_new_tokens + 1) // _STEP) * _STEP
    return f"""\
# ragqa sends whole prompts, with the control tokens of the chat template in them: nothing is put around them.
FROM ./{MODEL}
TEMPLATE \"\"\"{{{{ .Prompt }}}}\"\"\"
# Ollama takes these from here, and only a part of them from a request: the likeliest token, none being favoured.
PARAMETER temperature 0
PARAMETER top_k 0
PARAMETER top_p 1.0
PARAMETER min_p 0.0
PARAMETER repeat_penalty 1.0
# Prompts of {trained.context_tokens:,} tokens and answers of {trained.max_new_tokens:,}.
PARAMETER num_ctx {min(needed, config.max_position_embeddings)}
"""
