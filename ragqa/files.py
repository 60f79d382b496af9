"""Writing and checking files: the only place where results reach the disk.

Everything that is kept goes through `HashingFile` (size and SHA-256 come with the writing, the file is
flushed to disk when closed) and becomes visible by a rename, so that a reader sees a whole file or none.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from ragqa.errors import StorageError

_CHUNK = 1 << 22
_END = 1 << 16
_UNFIT_PLACE = (
    errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EIO,
)  # fmt: skip


@contextmanager
def storage_errors(path: Path, by: str = "--out") -> Iterator[None]:
    """Turn the operating system's errors about `path` into one clear line.

    Args:
        by: the option or variable that names another place.

    Raises:
        StorageError: the disk is full, the place is read-only or may not be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageError(
                f"no space left to write {path} ({_free(path)} free there); "
                f"free some, or choose another place with {by}, and run the same command again"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StorageError(f"cannot write {path} ({error.strerror}); choose a folder of yours with {by}") from error
        if error.errno in _UNFIT_PLACE:
            raise StorageError(f"cannot write {path} ({error.strerror}); choose another place with {by}") from error
        raise


def _free(path: Path) -> str:
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return f"{shutil.disk_usage(place).free / 1e6:,.0f} MB"


class HashingFile:
    """A new binary file that knows its size and SHA-256, and is on the disk once closed.

    Messages call it `named`, where another name than its own is what the user knows.
    """

    def __init__(self, path: Path, named: Path | None = None) -> None:
        self.path = path
        self.size = 0
        self._named = named or path
        self._digest = hashlib.sha256()
        with storage_errors(self._named):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = path.open("xb")

    @property
    def closed(self) -> bool:
        """Whether the file was closed (asked by Arrow)."""
        return self._file.closed

    @property
    def sha256(self) -> str:
        """SHA-256 of what was written so far, in hexadecimal."""
        return self._digest.hexdigest()

    def write(self, data: Any) -> int:
        """Append `data`, any object with a contiguous buffer; returns its length in bytes."""
        view = memoryview(data).cast("B")
        with storage_errors(self._named):
            self._file.write(view)
        self._digest.update(view)
        self.size += len(view)
        return len(view)

    def tell(self) -> int:
        """Bytes written so far."""
        return self.size

    def flush(self) -> None:
        """Hand buffered bytes to the operating system."""
        with storage_errors(self._named):
            self._file.flush()

    def lock(self) -> None:
        """Say to others, for as long as it is open, that it is being written."""
        try_lock(self._file.fileno())

    def writable(self) -> bool:
        """Always true (asked by Arrow and by text wrappers)."""
        return True

    def readable(self) -> bool:
        """Always false."""
        return False

    def seekable(self) -> bool:
        """Always false: what was written stays as it was hashed."""
        return False

    def close(self) -> None:
        """Flush to disk and close."""
        if self._file.closed:
            return
        with storage_errors(self._named):
            try:
                self._file.flush()
                os.fsync(self._file.fileno())
            finally:
                self._file.close()

    def abandon(self) -> None:
        """Close without a flush to disk: the file is not going to be kept."""
        with contextlib.suppress(OSError):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


@contextmanager
def replacing(path: Path) -> Iterator[HashingFile]:
    """Write a file beside `path` and put it in its place when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        temporary.unlink(missing_ok=True)
        _clean_up(path)
    file = HashingFile(temporary, named=path)
    try:
        with file:
            file.lock()
            yield file
        with storage_errors(path):
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _clean_up(path: Path) -> None:
    """Remove what processes left beside a file that were killed while they wrote it."""
    with contextlib.suppress(OSError):
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            if not _is_alive(left.suffixes[-2].lstrip(".")):
                # It may be of a process on another machine that shares the folder.
                with left.open("rb") as file:
                    dead = try_lock(file.fileno()) is not False
                if dead:
                    left.unlink(missing_ok=True)


def _is_alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except OSError:
        pass
    return True


def try_lock(descriptor: int, shared: bool = False) -> bool | None:
    """Lock an open file for as long as it is open; False if others have it locked, None where there are no such locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems
        return None
    return True


def write_json(path: Path, value: Mapping[str, Any]) -> tuple[int, str]:
    """Write `value` as readable JSON, atomically; returns (size in bytes, SHA-256)."""
    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    with replacing(path) as file:
        file.write(text.encode(errors="backslashreplace"))  # a lone surrogate as JSON escapes it
    return file.size, file.sha256


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    """Write one JSON object a line, atomically; returns the SHA-256."""
    with replacing(path) as file:
        for row in rows:
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode(errors="backslashreplace"))
    return file.sha256


def sync_file(path: Path) -> None:
    """Flush to disk what another program wrote into a file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, where the system can (POSIX)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def ends_sha256(path: Path) -> str:
    """SHA-256 of a file's first and last 64 KiB, where formats have what the rest is read by."""
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(_END))
        file.seek(max(path.stat().st_size - _END, 0))
        digest.update(file.read(_END))
    return digest.hexdigest()


def copy_file(source: Path, target: Path) -> None:
    """Copy a file to a new place and flush it to disk."""
    with source.open("rb") as file, HashingFile(target) as copy:
        while block := file.read(_CHUNK):
            copy.write(block)
