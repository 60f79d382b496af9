"""Stages of a long comparison: each in a process of its own, kept under a key of its inputs, done once.

A stage's folder is named for the hash of what it depends on, so other inputs never meet an old result; what it keeps
inside lets it go on where it was killed. In a process of its own its peak memory is its own, and is given back.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ragqa.errors import StorageError
from ragqa.files import storage_errors, write_json
from ragqa.progress import is_shown, say, show_progress
from ragqa.versions import setting

_DONE: Final = "stage.json"

Work = Callable[[Path, Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Done:
    """A stage that is done.

    Attributes:
        result: what its work gave.
        folder: of the stage.
        seconds: of the process that finished it.
        peak_mb: of that process, resident.
        commit: of the source tree that it was done with, "" outside of one.
        reused: it was there already.
    """

    name: str
    result: dict[str, Any]
    folder: Path
    seconds: float
    peak_mb: float
    commit: str
    reused: bool


class Stages:
    """The stages of one comparison.

    Args:
        folder: where their folders go.
        common: what all of them depend on, JSON-ready.
    """

    def __init__(self, folder: Path, common: Mapping[str, Any]) -> None:
        self.folder = folder
        self.done: list[Done] = []
        self._common = dict(common)

    def run(self, name: str, work: Work, inputs: Mapping[str, Any], places: Mapping[str, str | None]) -> Done:
        """Do a stage, unless its result is there.

        Args:
            name: of the stage, good for a folder's.
            work: a module's function of the stage's folder and a dictionary of all inputs; gives a JSON-ready result.
            inputs: what the result depends on, JSON-ready.
            places: paths where `work` finds what `inputs` name by their content; they may change.

        Raises:
            RagqaError: whatever `work` raises of the project's own.
            StorageError: the folder cannot be written, or the process was killed.
        """
        key = self._common | dict(inputs)
        folder = self.folder / f"{name}-{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]}"
        kept = _read(folder / _DONE)
        reused = kept is not None
        if kept is None:
            say(f"stage {name}")
            with storage_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
            kept = {"name": name, "inputs": key} | _in_process(name, work, folder, key | dict(places))
            write_json(folder / _DONE, kept)
        else:
            say(f"stage {name}: there already, from {folder}")
        self.done.append(Done(name, kept["result"], folder, kept["seconds"], kept["peak_mb"], kept["commit"], reused))
        return self.done[-1]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(f"{path}: cannot be read; remove its folder, and the stage is done anew") from error


def _in_process(name: str, work: Work, folder: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    # Spawned, not forked: threads of torch and faiss do not survive a fork.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        future = pool.submit(_measured, work, folder, inputs, is_shown())
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise StorageError(
                f"{folder}: the process of stage {name} was killed, maybe for want of memory; the same command goes on "
                "with it"
            ) from error


def _measured(work: Work, folder: Path, inputs: Mapping[str, Any], shown: bool) -> dict[str, Any]:
    show_progress(shown)
    started = time.perf_counter()
    result = work(folder, inputs)
    seconds = round(time.perf_counter() - started, 1)
    # Kilobytes on Linux, bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return {"result": result, "seconds": seconds, "peak_mb": round(peak), "commit": setting()["commit"]}
