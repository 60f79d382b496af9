"""One writer a folder: a lock that names its holder and falls with it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ragqa.errors import BusyError
from ragqa.files import storage_errors


@contextmanager
def writing_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system releases it when the process ends, however it ends.

    Raises:
        BusyError: another process holds it.
        StorageError: the folder cannot be written.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock, holder = FileLock(folder / ".lock", timeout=0), folder / ".lock.holder"
        try:
            lock.acquire()
        except Timeout:
            who = "another process"
            with suppress(OSError):
                who = holder.read_text().strip() or who
            raise BusyError(f"{folder}: {who} is writing there; wait for it to end, or choose another --out") from None
        try:
            # For a message alone: where it cannot be written, the lock holds no less.
            with suppress(OSError):
                holder.write_text(f"process {os.getpid()} (since {time.strftime('%Y-%m-%d %H:%M:%S')})\n")
            yield
        finally:
            with suppress(OSError):
                holder.unlink(missing_ok=True)
            lock.release()
