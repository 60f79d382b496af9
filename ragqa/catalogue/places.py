"""Where a catalogue's files lie: a path of this machine, or a URL of an object store, by fsspec."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO, Final, cast

from ragqa.errors import CatalogueError, MissingDependencyError, first_line

_READ_AT_ONCE: Final = 1 << 20


def place(name: str) -> Path:
    """The path of a file or folder; that of a URL such as ``s3://bucket/folder`` is used as one of this machine is.

    Raises:
        CatalogueError: there is no such kind of URL.
        MissingDependencyError: what reads it is not installed.
    """
    if "://" not in name:
        return Path(name)
    try:
        from upath import UPath
    except ImportError as error:
        raise MissingDependencyError(
            f'{name}: a URL is read by universal-pathlib, which is not installed: pip install "ragqa[ray]"'
        ) from error
    try:
        path = UPath(name)
        _ = path.fs  # where the kind's own package is imported
    except ImportError as error:
        raise MissingDependencyError(
            f"{name}: the package that reads this kind of URL is not installed ({first_line(error)})"
        ) from error
    except Exception as error:
        raise CatalogueError(
            f"{name}: not a URL that fsspec reads ({first_line(error)}); a path, or s3://, gs://, abfs:// or another of "
            "fsspec's is accepted"
        ) from error
    return cast(Path, path)


def opened(path: Path) -> BinaryIO:
    """A file, opened to be read."""
    file = path.open("rb")
    # What fsspec opens does not bound the length of a line that it reads.
    return file if isinstance(path, Path) else cast(BinaryIO, io.BufferedReader(file, _READ_AT_ONCE))
