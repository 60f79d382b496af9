"""Workers: a thread that takes what is queued, what belongs together at once.

A batch is closed when the worker is free: one question by itself is begun at once, and what arrives meanwhile is done
together next. Nothing is waited for to fill it.
"""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from typing import Final

from ragqa.serving.work import Work

# The weight of the last batch in the measured seconds a question.
_NEW: Final = 0.5


class Lane:
    """A queue and the one thread that works it off.

    Args:
        name: of the thread.
        run: does a batch; told of what belongs to nobody any more by `Work.left`. Its own affair are errors.
        most: questions in a batch that begins with this one.
        turn: does a part of what else there is, and says whether there is more of it; None for nothing else.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[Work]], None],
        most: Callable[[Work], int],
        turn: Callable[[], bool] | None = None,
    ) -> None:
        self._run, self._most, self._turn = run, most, turn
        self._queue: list[Work] = []  # by turn
        self._changed = threading.Condition()
        self._stopping = False
        self._working = 0  # questions of the batch in work
        self.seconds: float | None = None  # of work for a question, measured
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def __len__(self) -> int:
        return len(self._queue)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self, timeout: float | None = None) -> bool:
        """End when the batch in work is done; whether it ended within so many seconds."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def put(self, works: Sequence[Work]) -> None:
        """Queue works, each at its turn."""
        with self._changed:
            for work in works:
                insort(self._queue, work, key=_turn)
            self._changed.notify()

    def take_out(self, work: Work) -> bool:
        """Take a work out of the queue; whether it was still there."""
        with self._changed:
            try:
                self._queue.remove(work)
            except ValueError:
                return False
            return True

    def before(self, turn: float) -> int:
        """How many works have their turn before, with those in work."""
        with self._changed:
            return self._working + bisect_right(self._queue, turn, key=_turn)

    def wait(self, count: float) -> float:
        """Seconds after which so many questions will be done, at the rate that was measured."""
        return count * (self.seconds or 0.0)

    def measured(self, seconds: float, count: int) -> None:
        """So many questions took so long."""
        each = seconds / count
        self.seconds = each if self.seconds is None else self.seconds + _NEW * (each - self.seconds)

    def _next(self, busy: bool) -> list[Work] | None:
        """The work whose turn it is and those of its group; empty where there is none and other work goes on, None at the end."""
        with self._changed:
            while not self._queue and not busy and not self._stopping:
                self._changed.wait()
            if self._stopping:
                return None
            if not self._queue:
                return []
            first = self._queue[0]
            batch = [work for work in self._queue if work.group == first.group][: self._most(first)]
            taken = set(batch)
            self._queue = [work for work in self._queue if work not in taken]
            self._working = len(batch)
            return batch

    def _work(self) -> None:
        busy = False
        while (batch := self._next(busy)) is not None:
            if batch:
                self._run(batch)
                self._working = 0
            busy = self._turn() if self._turn else False


def _turn(work: Work) -> float:
    return work.turn
