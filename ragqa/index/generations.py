"""Generations of an index: which one is live, held while it is read, made live in one step, removed when nobody needs it.

``CURRENT`` names the live generation and the SHA-256 of its manifest, which has those of all parts: from that one line
everything is vouched for. A reader holds a shared lock on the manifest of its generation as long as it has it open; a
writer removes no generation that is held.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from ragqa.errors import IndexDamagedError, IndexNotFoundError, InputError
from ragqa.files import ends_sha256, replacing, storage_errors, sync_folder, try_lock, write_json

CURRENT: Final = "CURRENT"
MANIFEST: Final = "manifest.json"
_SHA256_LENGTH: Final = 64
_LONGEST: Final = 1024  # bytes of the pointer that are read


class Live(NamedTuple):
    """The live generation.

    Attributes:
        folder: where it is.
        sha256: of its manifest; None where an earlier ragqa wrote the index, which did not keep it.
    """

    folder: Path
    sha256: str | None


class Hold:
    """What keeps a generation from being removed, as long as it is referred to; a forked child holds on by itself."""

    def __init__(self, descriptor: int) -> None:
        weakref.finalize(self, _close, descriptor)

    @classmethod
    def take(cls, generation: Path) -> Self | None:
        """Hold a generation; None if it is not there, or being removed."""
        path = generation / MANIFEST
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            return None
        hold = cls(descriptor)
        if try_lock(descriptor, shared=True) is False:
            return None
        try:  # the file may have been removed before it was locked
            return hold if os.path.samestat(os.fstat(descriptor), path.stat()) else None
        except OSError:
            return None


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)


def read_current(path: Path) -> Live:
    """What the pointer of the index at `path` says.

    Raises:
        IndexNotFoundError: there is no finished index.
        IndexDamagedError: it names nothing that is there.
        InputError: it is an address, not a folder.
    """
    if address := re.match(r"[a-z][a-z0-9+]+:/", str(path)):
        # It is not repeated: it may hold a password.
        raise InputError(f"an index folder is needed here, and no address that begins with {address[0]}")
    build = f"build it: python -m ragqa.build_index CATALOGUE --out {path}"
    if not path.is_dir():
        raise IndexNotFoundError(f"{path}: no such index; {build}")
    try:
        with (path / CURRENT).open("rb") as file:
            words = file.read(_LONGEST).decode("utf-8").split()
    except (OSError, UnicodeDecodeError):
        hint = (
            "its build was not finished; run the same build_index command again"
            if (path / ".partial").exists()
            else build
        )
        raise IndexNotFoundError(f"{path}: no finished index in this folder; {hint}") from None
    name, sha256 = (*words, "", "")[:2]
    if not _is_generation(name) or not (path / name).is_dir():
        raise IndexDamagedError(f"{path}: {CURRENT} names {name[:40]!r}, which is not there; {build}")
    if len(words) > 2 or (sha256 and len(sha256) != _SHA256_LENGTH):
        raise IndexDamagedError(f"{path / CURRENT}: changed since it was written; {build}")
    return Live(path / name, sha256 or None)


def live_generation(path: Path) -> Path:
    """The folder of the live generation of the index at `path`.

    Raises:
        IndexNotFoundError, IndexDamagedError: see `read_current`.
    """
    return read_current(path).folder


def hold_live(path: Path) -> tuple[Live, Hold | None]:
    """The live generation, held; without a hold where it has no manifest.

    Raises:
        IndexNotFoundError, IndexDamagedError: see `read_current`.
    """
    live = read_current(path)
    while True:
        if hold := Hold.take(live.folder):
            return live, hold
        before, live = live, read_current(path)
        if live == before:
            return live, None


def write_current(path: Path, generation: str, manifest_sha256: str) -> None:
    """Make a generation of the index at `path` the live one."""
    with replacing(path / CURRENT) as file:
        file.write(f"{generation} {manifest_sha256}\n".encode())


def _is_generation(name: str) -> bool:
    return 7 <= len(name) <= 100 and name[0] == "g" and name[1:].isascii() and name[1:].isdigit()


def next_generation(path: Path) -> Path:
    """The folder the next generation will have; not made yet."""
    numbers = [int(p.name[1:]) for p in path.iterdir() if _is_generation(p.name)]
    return path / f"g{max(numbers, default=0) + 1:06d}"


def publish(path: Path, finished: Path, manifest: Mapping[str, Any]) -> Path:
    """Make a finished folder the live generation; remove others that no reader holds, but for the one that was live before.

    Args:
        path: the index folder.
        finished: a folder in `path` that holds all parts, each flushed to disk.
        manifest: written into it last, with a hash of both ends of each part.
    """
    generation = next_generation(path)
    kept = {generation.name}
    with contextlib.suppress(IndexNotFoundError, IndexDamagedError):
        kept.add(live_generation(path).name)
    with storage_errors(path):
        parts = {
            name: {**part, "ends_sha256": ends_sha256(finished / name)}
            for name, part in manifest.get("parts", {}).items()
        }
        _, sha256 = write_json(finished / MANIFEST, {**manifest, "parts": parts})
        finished.rename(generation)
        sync_folder(path)
        write_current(path, generation.name, sha256)
        sync_folder(path.absolute().parent)
    for folder in path.iterdir():
        if _is_generation(folder.name) and folder.name not in kept:
            _remove(folder)
    return generation


def _remove(generation: Path) -> None:
    """Remove a generation, unless a reader holds it; one that is held, a later write removes."""
    try:
        descriptor = os.open(generation / MANIFEST, os.O_RDONLY)
    except OSError:  # it has no manifest: nobody can open it
        shutil.rmtree(generation, ignore_errors=True)
        return
    try:
        if try_lock(descriptor) is not False:
            shutil.rmtree(generation, ignore_errors=True)
    finally:
        os.close(descriptor)
