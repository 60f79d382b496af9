"""Workers: a thread that takes what is queued, what belongs together at once.

A batch is closed when the worker is free: one question by itself is begun at once, and what arrives meanwhile is done
together next. Nothing is waited for to fill it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from ragqa.serving.work import Work

# The weight of the last batch in the measured seconds a question.
_NEW: Final = 0.2


class Lane:
    """A queue and the one thread that works it off.

    Args:
        name: of the thread.
        run: does a batch; told of what belongs to nobody any more by `Work.left`. Its own affair are errors.
        most: questions in a batch; asked for each.
        turn: does a part of what else there is, and says whether there is more of it; None for nothing else.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[Work]], None],
        most: Callable[[], int],
        turn: Callable[[], bool] | None = None,
    ) -> None:
        self._run, self._most, self._turn = run, most, turn
        self._queue: deque[Work] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self.seconds: float | None = None  # of work for a question, measured
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def __len__(self) -> int:
        return len(self._queue)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self, timeout: float | None = None) -> None:
        """End when the batch in work is done."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout)

    def put(self, works: Sequence[Work]) -> None:
        """Queue works."""
        with self._changed:
            self._queue.extend(works)
            self._changed.notify()

    def take_out(self, work: Work) -> bool:
        """Take a work out of the queue; whether it was still there."""
        with self._changed:
            try:
                self._queue.remove(work)
            except ValueError:
                return False
            return True

    def wait(self, more: float = 0.0) -> float:
        """Seconds after which what is queued now, and `more` of it, will be done, at the rate that was measured."""
        return (len(self._queue) + more) * (self.seconds or 0.0)

    def measured(self, seconds: float, count: int) -> None:
        """So many questions took so long."""
        each = seconds / count
        self.seconds = each if self.seconds is None else self.seconds + _NEW * (each - self.seconds)

    def _next(self, busy: bool) -> list[Work] | None:
        """The oldest work and those of its group; empty where there is none and other work goes on, None at the end."""
        with self._changed:
            while not self._queue and not busy and not self._stopping:
                self._changed.wait()
            if self._stopping:
                return None
            if not self._queue:
                return []
            batch: list[Work] = [self._queue.popleft()]
            others: list[Work] = []
            most, group = self._most(), batch[0].group
            while self._queue and len(batch) < most:
                work = self._queue.popleft()
                (batch if work.group == group else others).append(work)
            self._queue.extendleft(reversed(others))
            return batch

    def _work(self) -> None:
        busy = False
        while (batch := self._next(busy)) is not None:
            if batch:
                self._run(batch)
            busy = self._turn() if self._turn else False
