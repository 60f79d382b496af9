"""Checkpoints that can be trusted: a folder counts once a file with the hashes of all others stands in it.

A checkpoint is written by another library, file by file, straight into its final folder; a process that is killed in
between leaves a folder that looks like a checkpoint. So the seal is written last, and what has none, or differs from
it, is never resumed from.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ragqa.files import sha256_of, storage_errors, sync_folder, write_json
from ragqa.folders import sync_tree
from ragqa.json_files import read_json

SEAL: Final = "sealed.json"
_PREFIX: Final = "checkpoint-"


def seal(folder: Path) -> None:
    """Flush all files of a finished checkpoint to disk and write their hashes beside them.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    with storage_errors(folder):
        sync_tree(folder)
        write_json(folder / SEAL, {"sha256": _hashes(folder)})
        sync_folder(folder.parent)


def checkpoints(work: Path) -> list[Path]:
    """All checkpoint folders in `work`, whole or not, by their steps."""
    found = [path for path in work.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, key=steps_of)


def newest_sealed(work: Path) -> Path | None:
    """The checkpoint of the most steps in `work` that is whole; None if there is none."""
    for path in reversed(checkpoints(work)):
        try:
            sealed = read_json(path / SEAL)
            if isinstance(sealed, dict) and sealed.get("sha256") == _hashes(path):
                return path
        except (OSError, ValueError):
            continue
    return None


def rotate(work: Path, limit: int, best: int | None) -> None:
    """Remove the oldest checkpoints in `work` beyond so many; the newest and the one with `best` steps always stay.

    To be called once the newest is sealed: before, an older one may be the only one that is whole.
    """
    found = checkpoints(work)
    old = [path for path in found[:-1] if steps_of(path) != best]
    for path in old[: max(len(found) - limit, 0)]:
        shutil.rmtree(path, ignore_errors=True)


def steps_of(checkpoint: Path) -> int:
    """How many steps a checkpoint has behind it."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def packed_files(checkpoint: Path | None) -> tuple[str, dict[str, bytes]] | None:
    """A checkpoint's name and files, for a process that may not see its folder."""
    if checkpoint is None:
        return None
    return checkpoint.name, {path.relative_to(checkpoint).as_posix(): path.read_bytes() for path in _files(checkpoint)}


@contextmanager
def copied(packed: tuple[str, Mapping[str, bytes]] | None) -> Iterator[Path | None]:
    """A copy of a checkpoint, from `packed_files`, in a folder that goes at the end."""
    if packed is None:
        yield None
        return
    name, files = packed
    with tempfile.TemporaryDirectory(prefix="ragqa-") as place:
        for file, content in files.items():
            path = Path(place, name, file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        yield Path(place, name)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)


def _hashes(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in _files(folder)}
