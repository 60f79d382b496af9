"""An answer while it is written."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from types import TracebackType
from typing import Self

from ragqa.errors import InputError
from ragqa.records import Answer


class AnswerStream:
    """The pieces of an answer's text as they are certain, for ``for`` and ``async for``; then the whole answer.

    Nothing is computed before the first piece is asked for, and nothing after `close`, which frees all that was held;
    used in a ``with`` statement it is closed at its end. ``async for`` computes in a thread: the event loop is not kept
    waiting, and a task that is cancelled waits for no more than the pass that the model is in.

    >>> with answerer.stream("What is the description of ...?") as stream:  # doctest: +SKIP
    ...     for piece in stream:
    ...         print(piece, end="", flush=True)
    >>> stream.answer.sources[0].title  # doctest: +SKIP
    """

    def __init__(self, pieces: Generator[str, None, Answer]) -> None:
        self._pieces = pieces
        self._answer: Answer | None = None
        self._lock = threading.Lock()

    @property
    def answer(self) -> Answer:
        """The answer, as `Answerer.ask` gives it.

        Raises:
            InputError: not all pieces were taken.
        """
        if self._answer is None:
            raise InputError("the answer is there when all its pieces were taken")
        return self._answer

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        with self._lock:
            try:
                return next(self._pieces)
            except StopIteration as end:
                self._answer = self._answer or end.value
                raise

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            # A StopIteration cannot pass through a coroutine: the end is None.
            while (piece := await asyncio.to_thread(next, self, None)) is not None:
                yield piece
        except BaseException:
            await asyncio.to_thread(self.close)
            raise

    def close(self) -> None:
        """Write no more. A pass that another thread computes is waited for."""
        with self._lock:
            self._pieces.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
