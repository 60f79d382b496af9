"""A saved Answerer: one folder with everything that answering needs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

from ragqa import models
from ragqa.errors import IndexDamagedError, IndexMismatchError, IndexNotFoundError, InputError
from ragqa.files import sha256_of, storage_errors, write_json
from ragqa.folders import copy_folder, replace_folder
from ragqa.generation.adapter import KEPT, as_trained, read_adapter
from ragqa.generation.prompt import PromptTemplate
from ragqa.index.generations import MANIFEST, write_current
from ragqa.index.lock import writing_lock
from ragqa.index.storage import ProductIndex, check_parts, read_manifest
from ragqa.json_files import UNREADABLE, read_json
from ragqa.seals import changed_file, digest, file_parts, is_sealed, listed, sealed
from ragqa.settings import AnswerSettings

SAVED: Final = "answerer.json"
_FORMAT: Final = 1
_HASHES: Final = ("weights_sha256", "config_sha256")


def save(
    path: Path,
    index: ProductIndex,
    embedder: models.ModelSource,
    generator: models.ModelSource,
    adapter: Path | None,
    reranker: models.ModelSource | None,
    template: PromptTemplate,
    settings: AnswerSettings,
) -> None:
    """Write the folder, whole or not at all; a saved Answerer that was there before is replaced.

    Raises:
        InputError: the folder holds something else.
        StorageError: it cannot be written.
    """
    work = path.with_name(f".{path.name}.saving")
    if path.exists() and not (path / SAVED).exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path}: holds something else than a saved Answerer; choose an empty folder")
    with storage_errors(path), writing_lock(work):
        try:
            new = work / "new"
            shutil.rmtree(new, ignore_errors=True)
            _copy_index(index, new / "index")
            for name, source in (("embedder", embedder), ("generator", generator), ("reranker", reranker)):
                if source:
                    _copy_model(source, new / name)
            if adapter:
                copy_folder(adapter, new / "adapter")
                if trained := read_adapter(new / "adapter"):
                    trained.check_files()
            write_json(
                new / SAVED,
                sealed(
                    {
                        "format_version": _FORMAT,
                        "index": digest(index.manifest),
                        "embedder": embedder.to_dict(),
                        "generator": generator.to_dict(),
                        "adapter": bool(adapter),
                        "adapter_files": file_parts(new / "adapter", KEPT) if adapter else {},
                        "reranker": reranker.to_dict() if reranker else None,
                        "prompt": asdict(template),
                        "settings": settings.to_dict(),
                    }
                ),
            )
            replace_folder(new, path)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _copy_index(index: ProductIndex, folder: Path) -> None:
    generation = index.folder
    if not (generation / MANIFEST).exists():
        raise IndexNotFoundError(f"{generation}: was replaced since it was opened; open the index anew")
    copy = folder / generation.name
    copy_folder(generation, copy)
    # What was damaged, or is another's, must not be carried over beside a pointer that vouches for it.
    if read_manifest(copy) != index.manifest:
        raise IndexDamagedError(f"{generation / MANIFEST}: changed since it was opened; open the index anew")
    check_parts(copy, index.manifest["parts"], "full")
    write_current(folder, generation.name, sha256_of(copy / MANIFEST))


def _copy_model(source: models.ModelSource, folder: Path) -> None:
    source.copy_to(folder)
    check_source(replace(source, folder=folder), source.to_dict(), f"{source.folder}: changed while it was copied")


@dataclass(frozen=True, slots=True)
class Saved:
    """What of an opened Answerer comes from a saved folder, as it was when it was saved.

    The folder may be replaced between the opening and the first use of a model in it; then nothing is taken that does not
    belong together.

    Attributes:
        index: SHA-256 of its manifest.
        generator, reranker: as their `ModelSource` described them; None where another one was named, or there is none.
        adapter: size and SHA-256 of the adapter's files.
    """

    index: str | None = None
    generator: Mapping[str, Any] | None = None
    reranker: Mapping[str, Any] | None = None
    adapter: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, saved: Mapping[str, Any], generator: str | None, adapter: str | None, reranker: str | None) -> Self:
        """What `read_saved` gave, but for what is named in its place."""
        return cls(
            saved.get("index"),
            None if generator else saved["generator"],
            None if reranker else saved.get("reranker"),
            {} if adapter else saved.get("adapter_files", {}),
        )

    def check_index(self, index: ProductIndex) -> None:
        """Refuse what was opened as index if it is not what was saved.

        Raises:
            IndexDamagedError: it is not.
        """
        if self.index and digest(index.manifest) != self.index:
            raise IndexDamagedError(f"{index.folder}: not the index that was saved; open it anew, or save it anew")

    def check_generator(self, source: models.ModelSource, adapter: str | None) -> None:
        """Refuse what was loaded as generator and adapter if it is not what was saved.

        Raises:
            IndexDamagedError: it is not.
        """
        if self.generator:
            check_source(
                source, self.generator, f"{source.folder}: changed since it was saved, or replaced since it was opened"
            )
        if adapter and (wrong := changed_file(Path(adapter), self.adapter)):
            raise IndexDamagedError(f"{wrong}; open it anew, or save it anew with save_pretrained")

    def check_reranker(self, source: models.ModelSource) -> None:
        """The same for the reranker."""
        if self.reranker:
            check_source(
                source, self.reranker, f"{source.folder}: changed since it was saved, or replaced since it was opened"
            )


def check_source(source: models.ModelSource, wanted: Mapping[str, Any], wrong: str) -> None:
    """Refuse another model than the one that is described.

    Raises:
        IndexDamagedError: the weights, or what goes with them, differ; with the message `wrong`.
    """
    for what in _HASHES:
        if getattr(source, what) != wanted[what]:
            raise IndexDamagedError(
                f"{wrong} ({what.removesuffix('_sha256')} {getattr(source, what)[:12]}); save it anew"
            )


def read_saved(file: Path) -> dict[str, Any]:
    """What `save` wrote about the folder.

    Raises:
        IndexDamagedError: it cannot be read.
        IndexMismatchError: it has another format.
    """
    try:
        saved = read_json(file)
        version = saved["format_version"]
        saved["settings"].items()
        for name in ("generator", "reranker"):
            model = saved.get(name)
            if name == "generator" or model is not None:
                {str(model[of]) for of in _HASHES}
        listed(saved.get("adapter_files", {}))
        whole = is_sealed(saved)
    except UNREADABLE as error:
        raise IndexDamagedError(f"{file}: not a saved Answerer; save it anew with save_pretrained") from error
    if version != _FORMAT:
        raise IndexMismatchError(f"{file}: saved in format {version!r}; this ragqa reads format {_FORMAT}")
    if not whole:
        raise IndexDamagedError(f"{file}: changed since it was written; save it anew with save_pretrained")
    return dict(saved)


# Generator, adapter, embedder, reranker.
Named = tuple[str | None, str | None, str | None, str | None]


def from_saved(
    folder: Path,
    generator: str | None,
    adapter: str | None,
    embedder: str | None,
    reranker: str | None,
    settings: AnswerSettings | None,
) -> tuple[Saved, Named, AnswerSettings]:
    """What a saved folder has in the place of what is not named, and how its questions are answered.

    Raises:
        IndexDamagedError, IndexMismatchError: see `read_saved`.
        ModelError: an adapter that is named cannot be read.
        InputError: the settings cannot be.
    """
    saved = read_saved(folder / SAVED)
    if adapter or generator:
        # Another one is asked as it was trained, not as the saved one was.
        trained = as_trained(read_adapter(adapter or str(generator))).to_dict()
        saved["settings"] |= {k: trained[k] for k in ("context_products", "context_tokens", "max_new_tokens")}
    vouched = Saved.of(saved, generator, adapter, reranker)
    named = (
        generator or str(folder / "generator"),
        adapter or (str(folder / "adapter") if saved.get("adapter") else None),
        embedder or str(folder / "embedder"),
        reranker or (str(folder / "reranker") if saved.get("reranker") else None),
    )
    return vouched, named, settings or AnswerSettings.from_dict(saved["settings"])


def push(folder: Path, repo_id: str, private: bool, token: str | None) -> str:
    """Upload a saved Answerer as a model repository of the Hub; gives the commit's address."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    commit = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Save a ragqa Answerer")
    return str(commit.commit_url)
