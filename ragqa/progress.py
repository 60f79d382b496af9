"""Progress on the screen: one line on stderr with rows per second and the time left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
