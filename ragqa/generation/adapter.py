"""What an adapter's folder says about how it was trained, so that it is asked the same way.

``manifest.json`` stands beside the LoRA weights, and in a merged model's folder. An adapter without one (another
program's) is asked as the base model is, and writes freely.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from ragqa.errors import ModelError
from ragqa.folders import readable
from ragqa.generation.choice import Choice
from ragqa.generation.prompt import NUMBERED, PromptTemplate
from ragqa.json_files import UNREADABLE, read_json
from ragqa.models import DEFAULT_GENERATOR, ModelSource, is_hub_id
from ragqa.seals import FILES, changed_file, is_sealed, listed
from ragqa.settings import AnswerSettings

Mode = Literal["plain", "retrieval"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
MANIFEST: Final = "manifest.json"
FORMAT_VERSION: Final = 2
# What the manifest of an adapter or a merged model vouches for: all that is read when it is asked, or merged.
KEPT: Final = ("*.safetensors", "*.gguf", "*.json", "prompts.jsonl", "*.txt", "*.model", "*.jinja")
TEMPLATES: Final[Mapping[Mode, PromptTemplate]] = {"plain": PromptTemplate(), "retrieval": NUMBERED}


@dataclass(frozen=True, slots=True)
class Adapter:
    """How an adapter, or a model it was merged into, wants to be asked.

    Attributes:
        folder: where it lies.
        mode: "plain": the question alone; "retrieval": the question with numbered candidates.
        context_products, context_tokens, max_new_tokens: as it was trained; see `AnswerSettings`.
        choice: how its source is chosen.
        merged: the folder holds a whole model, not an adapter.
        base: the base model as its `ModelSource` described it.
        files: size and SHA-256 of its files, by name; none where an earlier ragqa wrote it.
    """

    folder: Path
    mode: Mode
    context_products: int
    context_tokens: int
    max_new_tokens: int
    choice: Choice
    merged: bool
    base: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]

    @property
    def template(self) -> PromptTemplate:
        """The wording it was trained with."""
        return TEMPLATES[self.mode]

    def check_base(self, source: ModelSource) -> None:
        """Refuse another base model than the one it was trained on.

        Raises:
            ModelError: the weights, or what goes with them, differ.
        """
        for what in ("weights", "config"):
            had, has = self.base[f"{what}_sha256"], getattr(source, f"{what}_sha256")
            if had != has:
                raise ModelError(
                    f"{self.folder} was trained on {self.base['name']} ({what} {had[:12]}), but {source} was found "
                    f"({what} {has[:12]}); name the right base model with --generator, or train the adapter anew"
                )

    def check_files(self) -> None:
        """Refuse files that are not those the manifest was written for; called once they were read, it vouches for that.

        Raises:
            ModelError: one is damaged, or was replaced since the manifest was read.
        """
        if wrong := changed_file(self.folder, self.files):
            raise ModelError(f"{wrong}; if it was trained or merged anew meanwhile, open it anew, else train it anew")


def base_name(name: str) -> str:
    """A base model's name as documents give it: its Hub id, or the last part of its folder."""
    return name if is_hub_id(name) and not Path(name).exists() else Path(name).name


def read_adapter(folder: str | Path) -> Adapter | None:
    """What the adapter or merged model in `folder` says of itself; None if it is not one of ragqa's.

    Raises:
        ModelError: the manifest is damaged, of another format, or the prompt template has changed since.
    """
    path = readable(Path(folder)) / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = read_json(path)
        if manifest["kind"] not in ("ragqa adapter", "ragqa merged model"):
            return None
        if manifest["format_version"] != FORMAT_VERSION:
            raise ModelError(
                f"{folder}: adapter format {manifest['format_version']!r}, this ragqa reads format {FORMAT_VERSION}; "
                "train it anew with python -m ragqa.fine_tune"
            )
        if not is_sealed(manifest):
            raise ModelError(f"{path}: changed since it was written; train it anew with python -m ragqa.fine_tune")
        base = manifest["base"]
        {base["name"], base["weights_sha256"][:12], base["config_sha256"][:12]}
        adapter = Adapter(
            path.parent,
            manifest["mode"],
            int(manifest["context"]["products"]),
            int(manifest["context"]["tokens"]),
            int(manifest["context"]["max_new_tokens"]),
            Choice.from_dict(manifest["choice"]),
            manifest["kind"] == "ragqa merged model",
            base,
            listed(manifest.get(FILES, {})),
        )
        fingerprint = TEMPLATES[adapter.mode].fingerprint()
        trained_with, version = manifest["prompt"]["fingerprint"], manifest["prompt"]["version"]
    except UNREADABLE as error:
        raise ModelError(f"{path}: not a readable manifest of an adapter; train it anew") from error
    if trained_with != fingerprint:
        raise ModelError(
            f"{folder}: was trained with prompt template {version} ({str(trained_with)[:12]}), this ragqa asks with "
            f"template {adapter.template.version} ({fingerprint[:12]}); train it anew with python -m ragqa.fine_tune"
        )
    return adapter


def as_trained(trained: Adapter | None) -> AnswerSettings:
    """How questions are answered with an adapter; the defaults without one."""
    if trained is None:
        return AnswerSettings()
    return AnswerSettings(
        context_products=trained.context_products,
        context_tokens=trained.context_tokens,
        max_new_tokens=trained.max_new_tokens,
    )


def base_of(adapter: str | None) -> str:
    """The base model that an adapter of ragqa's was trained on; the default for others."""
    trained = read_adapter(adapter) if adapter else None
    return str(trained.base["name"]) if trained else DEFAULT_GENERATOR
