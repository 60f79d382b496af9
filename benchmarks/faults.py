"""Every write, flush, rename, new or removed name of a block of Python, counted; one of them fails, or kills the process.

What is counted is what Python asks of the system: `os.open` and `open` for writing, each `write` of the file's buffer, `os.fsync`,
renames, exchanged names, new folders, removed files and folders. What C++ libraries write by themselves is not: safetensors'
and `torch.save`'s files are seen as their folder's flush alone.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal
from unittest import mock

Kind = Literal["kill", "EIO", "ENOSPC"]
# Of these a full disk has no part.
_FREEING: Final = ("unlink", "rmdir")
_WRITES: Final = os.O_WRONLY | os.O_RDWR


class Faults:
    """Counts, and lets the operation with the number `at` fail; 0 for none.

    Attributes:
        done: what was asked for so far: the operation and the last part of its path.
    """

    def __init__(self, at: int = 0, kind: Kind = "kill") -> None:
        self.at, self.kind = at, kind
        self.done: list[str] = []
        self._full = False

    def step(self, operation: str, path: Any, partly: Callable[[], Any] | None = None) -> None:
        """Count an operation, and fail if it is its turn; a write that the process is killed in is half done."""
        name = Path(os.fsdecode(path)).name if isinstance(path, str | bytes | os.PathLike) else ""
        self.done.append(f"{operation} {name}".strip())
        if self._full and operation not in _FREEING:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        if len(self.done) != self.at:
            return
        if self.kind == "kill":
            if partly:
                partly()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "ENOSPC":
            if operation in _FREEING:
                return
            self._full = True  # and stays so
            if partly:
                partly()
        number = getattr(errno, self.kind)
        raise OSError(number, os.strerror(number), name)


class _Raw(io.FileIO):
    """A file whose writes are counted."""

    def __init__(self, faults: Faults, path: Any, mode: str) -> None:
        super().__init__(path, mode)
        self._faults, self._path = faults, path

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._faults.step("write", self._path, lambda: super(_Raw, self).write(view[: len(view) // 2]))
        return super().write(view) or 0


@contextmanager
def counted(faults: Faults) -> Iterator[Faults]:
    """Within, the process's operations on files go through `faults`."""
    plain = {
        name: getattr(os, name) for name in ("open", "mkdir", "rename", "replace", "unlink", "remove", "rmdir", "fsync")
    }
    opened = io.open

    def wrapped(name: str, operation: str) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **more: Any) -> Any:
            faults.step(operation, path)
            return plain[name](path, *arguments, **more)

        return call

    def os_open(path: Any, flags: int, *arguments: Any, **more: Any) -> int:
        if flags & _WRITES:
            faults.step("open", path)
        return int(plain["open"](path, flags, *arguments, **more))

    def open_(file: Any, mode: str = "r", buffering: int = -1, *arguments: Any, **more: Any) -> Any:
        if isinstance(file, int) or not set(mode) & set("wax+") or "opener" in more:
            return opened(file, mode, buffering, *arguments, **more)
        faults.step("open", file)
        raw = _Raw(faults, file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffer: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffer
        text = dict(zip(("encoding", "errors", "newline"), arguments, strict=False)) | more
        return io.TextIOWrapper(buffer, **{k: v for k, v in text.items() if k != "closefd"})

    from ragqa import folders

    exchange = folders.exchange

    def exchanged(one: Any, other: Any) -> bool:
        faults.step("exchange", other)
        return exchange(one, other)

    names = {"mkdir": "mkdir", "rename": "rename", "replace": "rename", "unlink": "unlink", "remove": "unlink", "rmdir": "rmdir", "fsync": "fsync"}  # fmt: skip
    patches: list[Any] = [mock.patch.object(os, name, wrapped(name, operation)) for name, operation in names.items()]
    patches += [mock.patch.object(os, "open", os_open), mock.patch.object(io, "open", open_)]
    patches += [mock.patch.object(builtins, "open", open_), mock.patch.object(folders, "exchange", exchanged)]
    for patch in patches:
        patch.start()
    try:
        yield faults
    finally:
        for patch in reversed(patches):
            patch.stop()
