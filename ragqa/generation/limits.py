"""The time that a question is given, see `AnswerSettings.max_seconds`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ragqa.errors import ServerError, TimeLimitError
from ragqa.settings import AnswerSettings

_OVER = (
    "no answer in the time given (max_seconds, --max-seconds); give more, or lower --context-tokens, --max-new-tokens or "
    "--rerank-depth"
)


def time_until(use: AnswerSettings, count: int, taken: float) -> float | None:
    """When the time for so many questions is over, of which each took so many seconds; None for never."""
    return None if use.max_seconds is None else time.monotonic() + count * (use.max_seconds - taken)


def is_over(until: float | None) -> bool:
    """Whether the time is over that ends then, by `time.monotonic`; never for None."""
    return until is not None and time.monotonic() >= until


def check_time(until: float | None) -> None:
    """Raise `TimeLimitError` where it is over."""
    if is_over(until):
        raise TimeLimitError(_OVER)


@contextmanager
def asking_server(until: float | None) -> Iterator[None]:
    """Within, a server's failure is told as the time's being over where it is.

    Raises:
        TimeLimitError: instead of a ServerError.
    """
    try:
        yield
    except ServerError as error:
        if is_over(until):
            raise TimeLimitError(_OVER) from error
        raise
