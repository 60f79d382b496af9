"""Whole folders: flushed to disk with all that is in them, and put in the place of others in one step.

A folder that other programs write into is made beside its place. `replace_folder` flushes every file and every folder's
entries, and then exchanges the two names, so that at no moment there is none. Where a file system cannot exchange names,
two renames have to do: between them `readable` finds the old folder.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ragqa.files import copy_file, storage_errors, sync_file, sync_folder

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
_RENAME_SWAP: Final = 2  # the same on macOS, where it is `renamex_np`
_CANNOT: Final = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


def copy_folder(source: Path, target: Path) -> None:
    """Copy all files of a folder to a new place and flush them to disk."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            copy_file(path, target / path.relative_to(source))


def sync_tree(folder: Path) -> None:
    """Flush a folder to disk with all files and folders in it, whoever wrote them; entries after what they name.

    Raises:
        StorageError: the disk is full or fails.
    """
    with storage_errors(folder):
        for place, _, files in os.walk(folder, topdown=False):
            for name in files:
                sync_file(Path(place, name))
            sync_folder(Path(place))


def replace_folder(new: Path, target: Path) -> None:
    """Flush a finished folder to disk and put it in its place; what was there before is there until then, and then removed.

    Raises:
        StorageError: the place cannot be written; what was there before is there.
    """
    old = _old(target)
    with storage_errors(target):
        sync_tree(new)
        recover(target)
        if not target.exists():
            new.rename(target)
        elif exchange(new, target):
            old = new
        else:
            target.rename(old)
            try:
                new.rename(target)
            except BaseException:
                old.rename(target)
                raise
        sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(target: Path) -> None:
    """Put back what a writer that was killed between two renames left aside, and clean up after one killed a little later."""
    old = _old(target)
    if old.exists():
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(target)


def readable(target: Path) -> Path:
    """Where a folder's whole content lies: `target`, or beside it where a writer is, or was killed, between two renames."""
    return _old(target) if not target.exists() and target.name and _old(target).is_dir() else target


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two files or folders in one step; False where the system or the file system cannot."""
    call = _exchanger()
    if call is None:
        return False
    if call(os.fsencode(one), os.fsencode(other)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(other))


@functools.cache
def _exchanger() -> Callable[[bytes, bytes], int] | None:
    """The system's call that exchanges two names; None for none."""
    try:
        library: Any = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            swap = library.renamex_np
            return lambda one, other: int(swap(one, other, _RENAME_SWAP))
        rename = library.renameat2
    except (OSError, AttributeError, TypeError):
        return None
    return lambda one, other: int(rename(_AT_FDCWD, one, _AT_FDCWD, other, _RENAME_EXCHANGE))
