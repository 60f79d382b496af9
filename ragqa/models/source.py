"""Where a model's files lie: a local folder, the Hub's cache, the Hub."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from ragqa.errors import ModelError, first_line
from ragqa.files import copy_file, sha256_of
from ragqa.folders import readable

_FILES: Final = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
_HUB_ID: Final = re.compile(r"\w[\w.-]*/[\w.-]+(@[\w.-]+)?")
_LEFT_OUT: Final = ("onnx/*", "openvino/*", "original/*", "*/onnx/*")


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
        for path in weight_files(self.folder):
            digest.update(f"{path.relative_to(self.folder).as_posix()}\0{sha256_of(path)}\n".encode())
        return digest.hexdigest()

    @cached_property
    def config_sha256(self) -> str:
        """One SHA-256 over what else decides what the model computes: its configuration, tokenizer and prompts."""
        digest = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            inside = path.relative_to(self.folder)
            if path.is_file() and path.suffix in (".json", ".txt", ".model", ".jinja") and not _is_left_out(inside):
                digest.update(f"{inside.as_posix()}\0{sha256_of(path)}\n".encode())
        return digest.hexdigest()

    def copy_to(self, folder: Path) -> None:
        """Copy the files that loading needs into a new folder; their hash stays the same."""
        for path in sorted(self.folder.rglob("*")):
            inside = path.relative_to(self.folder)
            if path.is_file() and any(fnmatch(path.name, kind) for kind in _FILES) and not _is_left_out(inside):
                copy_file(path, folder / inside)

    def to_dict(self) -> dict[str, str]:
        """What a manifest says of the model; without the folder, which another machine does not have."""
        return {
            "name": self.name,
            "origin": self.origin,
            "revision": self.revision,
            "weights_sha256": self.weights_sha256,
            "config_sha256": self.config_sha256,
        }

    def __str__(self) -> str:
        where = f"{self.origin} {self.revision}".strip()
        return f"{self.name} ({where}, weights {self.weights_sha256[:12]})"


def _is_left_out(inside: Path) -> bool:
    return bool({"onnx", "openvino", "original"} & set(inside.parts[:-1]))


def weight_files(folder: Path) -> list[Path]:
    """The weight files that loading from `folder` may read, sorted."""
    files = sorted(path for path in folder.rglob("*.safetensors") if path.is_file())
    return [path for path in files if not _is_left_out(path.relative_to(folder))]


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form ``owner/name`` of the Hub."""
    return _HUB_ID.fullmatch(name) is not None


def fetch_folder(repository: str) -> Path:
    """All files of a Hub repository, from the cache or the Hub.

    Raises:
        ModelError: there is none, or it cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    name, _, revision = repository.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None))
    except (HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"{repository}: no such folder, and not to be had from the Hub ({first_line(error)})"
        ) from error


def in_folder(name: str, weights: bool = True) -> ModelSource:
    """The model in a local folder; without `weights` these may be missing.

    Raises:
        ModelError: no model, or none in safetensors, is in it.
    """
    folder = readable(Path(name))
    if not (folder / "config.json").exists() and not (folder / "modules.json").exists():
        raise ModelError(f"{name}: no model in this folder (neither config.json nor modules.json)")
    if weights and not weight_files(folder):
        raise ModelError(f"{name}: no .safetensors weights in this folder; ragqa reads no other kind")
    return ModelSource(name, "folder", "", folder)


def on_hub(name: str, weights: bool = True) -> ModelSource | str:
    """The model from the Hub's cache or the Hub itself, with or without weights; otherwise why it is not to be had."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
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
                ignore_patterns=[*_LEFT_OUT, *([] if weights else ["*.safetensors"])],
            )
        )
        whole = weight_files(folder) if weights else (folder / "tokenizer.json").exists()
        return ModelSource(name, "hub", folder.name, folder) if whole else None

    try:
        if cached := fetch(local_only=True):
            return cached
    except HFValidationError:
        return "not a name a model on the Hub can have"
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError):
        pass
    if constants.HF_HUB_OFFLINE:
        return "not in the Hub's cache on this machine, and HF_HUB_OFFLINE is set"
    try:
        lacking = ".safetensors weights" if weights else "tokenizer.json"
        return fetch(local_only=False) or f"the Hub has no {lacking} of it; ragqa reads no other kind"
    except GatedRepoError:
        return "its owner asks for a licence to be accepted first; log in with `hf auth login`"
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return "no such model on the Hub, or it is private"
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        return f"the Hub cannot be reached ({type(error.__cause__ or error).__name__})"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' own bars and notes off the screen while a model is loaded."""
    from transformers.utils import logging as library

    logging: Any = library

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.ERROR)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # The libraries deprecate each other's functions; nobody who answers questions can mend that.
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
