"""A saved Answerer: one folder with everything that answering needs."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from ragqa import models
from ragqa.errors import IndexDamagedError, IndexMismatchError, IndexNotFoundError, InputError
from ragqa.files import HashingFile, copy_folder, replace_folder, storage_errors, write_json
from ragqa.generation.prompt import PromptTemplate
from ragqa.index.storage import CURRENT, MANIFEST, ProductIndex
from ragqa.json_files import UNREADABLE, read_json
from ragqa.settings import AnswerSettings

SAVED: Final = "answerer.json"
_FORMAT: Final = 1


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
    if path.exists() and not (path / SAVED).exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path}: holds something else than a saved Answerer; choose an empty folder")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            generation = index.folder
            if not (generation / MANIFEST).exists():
                raise IndexNotFoundError(f"{generation}: was replaced since it was opened; open the index anew")
            copy_folder(generation, new / "index" / generation.name)
            with HashingFile(new / "index" / CURRENT) as file:
                file.write(f"{generation.name}\n".encode())
            embedder.copy_to(new / "embedder")
            generator.copy_to(new / "generator")
            if adapter:
                copy_folder(adapter, new / "adapter")
            if reranker:
                reranker.copy_to(new / "reranker")
            write_json(
                new / SAVED,
                {
                    "format_version": _FORMAT,
                    "embedder": embedder.to_dict(),
                    "generator": generator.to_dict(),
                    "adapter": bool(adapter),
                    "reranker": reranker.to_dict() if reranker else None,
                    "prompt": asdict(template),
                    "settings": settings.to_dict(),
                },
            )
            new.chmod(0o755)
            replace_folder(new, path)
        finally:
            shutil.rmtree(new, ignore_errors=True)


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
    except UNREADABLE as error:
        raise IndexDamagedError(f"{file}: not a saved Answerer; save it anew with save_pretrained") from error
    if version != _FORMAT:
        raise IndexMismatchError(f"{file}: saved in format {version!r}; this ragqa reads format {_FORMAT}")
    return dict(saved)


def push(folder: Path, repo_id: str, private: bool, token: str | None) -> str:
    """Upload a saved Answerer as a model repository of the Hub; gives the commit's address."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    commit = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Save a ragqa Answerer")
    return str(commit.commit_url)
