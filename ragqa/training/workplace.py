"""The two folders of a training: the one it is for, and the work folder beside it.

The work folder ``.NAME.training`` holds checkpoints, and the result until it is whole; then a rename makes it NAME.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ragqa.errors import InputError, RagqaError, StorageError, first_line
from ragqa.files import storage_errors, write_json
from ragqa.folders import readable
from ragqa.json_files import read_json
from ragqa.training.checkpoints import checkpoints, newest_sealed, steps_of

MANIFEST: Final = "manifest.json"
_KEY: Final = "key.json"


def work_folder(out: Path) -> Path:
    """Where the training of `out` is done."""
    return out.absolute().with_name(f".{out.name}.training")


def check_out(out: Path, kind: str, resume: bool, overwrite: bool) -> None:
    """Refuse to write over anything, before time is spent on it.

    Args:
        out: the folder that is to be written.
        kind: what its manifest says it is, where it was written by the same command before.
        resume, overwrite: as the user gave them.

    Raises:
        InputError: `out` is taken, there is nothing to resume, or there is and it was not asked for.
    """
    if not out.name:
        raise InputError(f"{out}: names no folder; give --out a name, such as embedders/mine")
    there = readable(out.absolute())
    if there.exists():
        if not overwrite:
            raise InputError(f"{out}: is there already; choose another --out, or add --overwrite to replace it")
        ours = False
        with contextlib.suppress(OSError, ValueError, AttributeError):
            ours = read_json(there / MANIFEST).get("kind") == kind
        if not ours and (not there.is_dir() or any(there.iterdir())):
            raise InputError(f"{out}: holds something else than a {kind}; choose another --out")
    work = work_folder(out)
    found = newest_sealed(work) if work.is_dir() else None
    if resume and not (work / _KEY).is_file():
        raise InputError(f"{out}: no training to go on with ({work} is not there); leave --resume out")
    if found and not resume and not overwrite:
        raise InputError(
            f"{out}: a training of it was interrupted after {steps_of(found)} steps; add --resume to go on, or "
            "--overwrite to begin anew"
        )


def begin(work: Path, key: Mapping[str, Any], resume: bool) -> Path | None:
    """Empty the work folder, or find the checkpoint to go on from.

    Args:
        work: the work folder, locked.
        key: what must be the same for a checkpoint to be of this training.
        resume: go on.

    Raises:
        InputError: the work folder is of another training.
        StorageError: it cannot be written.
    """
    if resume:
        before: Any = None
        with contextlib.suppress(OSError, ValueError):
            before = read_json(work / _KEY)
        if before != key:
            other = [name for name in key if not isinstance(before, dict) or before.get(name) != key[name]]
            raise InputError(
                f"{work}: is of another training (another {', another '.join(other)}); give the same command with "
                "--resume, or begin anew with --overwrite"
            )
        found = newest_sealed(work)
        with storage_errors(work):
            # One that was half written when the process died would be in the way of its successor.
            for path in checkpoints(work):
                if found is None or steps_of(path) > steps_of(found):
                    shutil.rmtree(path)
        return found
    with storage_errors(work):
        for path in work.iterdir():
            if path.name not in (".lock", ".lock.holder"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_json(work / _KEY, key)
    return None


def leave(work: Path) -> None:
    """Take the work folder of a failed training away, unless it has a checkpoint to go on from."""
    if newest_sealed(work) is None:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def library_writes(path: Path) -> Iterator[None]:
    """Within, another library writes models: its many errors about a full disk become ours.

    Raises:
        StorageError: whatever went wrong.
    """
    try:
        yield
    except RagqaError:
        raise
    except Exception as error:
        free = shutil.disk_usage(path).free / 1e6 if path.exists() else 0
        raise StorageError(
            f"{path}: cannot be written ({first_line(error)}; {free:,.0f} MB free there); free some space and run the "
            "same command again, with --resume if it was training"
        ) from error


def check_space(work: Path, needed: int) -> None:
    """Raise `StorageError` where fewer than `needed` bytes are free."""
    free = shutil.disk_usage(work).free
    if free < needed:
        raise StorageError(
            f"about {needed / 1e6:,.0f} MB are needed in {work.parent}, and {free / 1e6:,.0f} MB are free; free some, or "
            "choose another place with --out"
        )


def fresh(folder: Path) -> Path:
    """`folder`, new and empty."""
    with storage_errors(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    return folder
