"""What a manifest vouches for: the files beside it, by size and SHA-256, and itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

from ragqa.files import sha256_of

FILES: Final = "files"
SELF: Final = "manifest_sha256"


def file_part(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    return {"size": path.stat().st_size, "sha256": sha256_of(path)}


def file_parts(folder: Path, kinds: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of the files that lie in a folder and whose names fit one of these patterns, by name."""
    wanted = tuple(kinds)
    return {
        path.name: file_part(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and any(fnmatch(path.name, kind) for kind in wanted)
    }


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with its own SHA-256 in it."""
    rest = {name: value for name, value in manifest.items() if name != SELF}
    return rest | {SELF: digest(rest)}


def is_sealed(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest is as it was sealed; one without a seal, as an earlier ragqa wrote them, is taken as it is."""
    rest = {name: value for name, value in manifest.items() if name != SELF}
    return SELF not in manifest or manifest[SELF] == digest(rest)


def listed(parts: Any) -> dict[str, dict[str, Any]]:
    """What a manifest that anybody may have written says of the files beside it, as `file_parts` gives it.

    Raises:
        ValueError: a name is no file's in the same folder.
        TypeError, KeyError, AttributeError: it says something else.
    """
    found = {str(name): {"size": int(part["size"]), "sha256": str(part["sha256"])} for name, part in parts.items()}
    if wrong := [name for name in found if not name or Path(name).name != name or "\0" in name]:
        raise ValueError(f"{wrong[0]!r} is no file beside the manifest")
    return found


def changed_file(folder: Path, parts: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The first of the files that is missing or another than it was, and how; None if all are the same."""
    for name, part in parts.items():
        path = folder / name
        if not path.is_file():
            return f"{path}: missing"
        if (size := path.stat().st_size) != part["size"]:
            return f"{path}: {size:,} bytes where the manifest says {part['size']:,}"
        if sha256_of(path) != part["sha256"]:
            return f"{path}: its content changed since it was written"
    return None


def digest(value: Any) -> str:
    """SHA-256 of a JSON-ready value."""
    # As JSON reads it back: what is no JSON key or number of Python's is written alike before and after.
    text = json.dumps(json.loads(json.dumps(value)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
