"""Progress on the screen: one line on stderr with rows per second and the time left."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

_shown = False


def show_progress(shown: bool) -> None:
    """Switch progress on (the command line does) or off (the default in a library)."""
    global _shown
    _shown = shown


def is_shown() -> bool:
    """Whether progress is shown."""
    return _shown


def say(text: str) -> None:
    """A line about what is being done, on stderr, where progress is shown."""
    if _shown:
        tqdm.write(text, file=sys.stderr)


@contextmanager
def progress_bar(what: str, total: int | None, unit: str = "rows", scale: bool = False) -> Iterator[Any]:
    """A bar to call `.update(n)` on; silent unless progress is shown.

    Args:
        what: what is being done, in two or three words.
        total: how many units in all, None if that is not known.
        unit: what is counted.
        scale: print counts as k, M, G.
    """
    with tqdm(
        total=total,
        desc=what,
        unit=f" {unit}",
        unit_scale=scale,
        file=sys.stderr,
        disable=not _shown,
        mininterval=0.5 if sys.stderr.isatty() else 5.0,
        dynamic_ncols=True,
    ) as bar:
        yield bar


class StageClock:
    """Seconds by stage of a long work."""

    def __init__(self) -> None:
        self._started = self._last = time.perf_counter()
        self._seconds: dict[str, float] = {}

    def stage(self, name: str) -> None:
        """End a stage that began where the last one ended."""
        now = time.perf_counter()
        self._seconds[name] = round(now - self._last, 3)
        self._last = now

    def seconds(self) -> dict[str, float]:
        """Those of all stages so far, and in all."""
        return self._seconds | {"total": round(time.perf_counter() - self._started, 3)}


def since_start() -> float | None:
    """Seconds since the system made this process, before Python began; None where it does not tell (outside Linux)."""
    try:
        # What comes after the program's name, which may hold blanks; the 22nd field is when it was made, in ticks.
        made = int(Path("/proc/self/stat").read_text("utf-8").rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - made / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return None
