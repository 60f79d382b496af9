"""What stands between requests and workers: admission, sharing, deadlines, draining, generations."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, Literal

from ragqa.answerer import Answerer
from ragqa.index.storage import Verify
from ragqa.records import Answer, Retrieval
from ragqa.serving.generations import Generation, try_next
from ragqa.serving.limits import ServiceSettings
from ragqa.serving.metrics import Metrics
from ragqa.serving.pipeline import Pipeline, Results
from ragqa.serving.problems import Problem, busy
from ragqa.serving.work import Kind, Work
from ragqa.settings import AnswerSettings

_LOG: Final = logging.getLogger("ragqa.serving")
_LAST: Final = 2.0  # seconds for what is still in work when the time to drain is over
# Seconds between the turns of two questions of one request, in those that a question takes.
_SHARE: Final = 2


class Service:
    """Answers requests from one index. All but its workers lives in one event loop.

    Args:
        load: opens the index and loads the models; called in a thread when the service starts.
        limits: see `ServiceSettings`.
        verify: how a new generation of the index is checked.
    """

    def __init__(
        self, load: Callable[[], Answerer], limits: ServiceSettings | None = None, verify: Verify = "auto"
    ) -> None:
        self.limits = limits or ServiceSettings()
        self.metrics = Metrics()
        self.state: Literal["loading", "ready", "draining", "failed"] = "loading"
        self.failure: BaseException | None = None
        self.ended = False  # no worker is at work any more
        self.on_failure: Callable[[], None] = lambda: None
        self._load, self._verify = load, verify
        self._live: Generation | None = None
        self._works: set[Work] = set()
        self._beside = 0  # questions that others than the workers are at work on
        self._shared: dict[Any, Work] = {}
        self._pipeline = Pipeline(self.limits, self.metrics, self._finish_soon)
        self._idle = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.metrics.queue.set_function(self._waiting)

    @property
    def live(self) -> Generation:
        """The generation in service.

        Raises:
            Problem: 503, not loaded yet.
        """
        if self._live is None:
            raise Problem(503, "loading", "the index and its models are being loaded", retry_after=2)
        return self._live

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Load, work and watch while the block runs; then drain."""
        self.loop = asyncio.get_running_loop()
        self._pipeline.start()
        loading = asyncio.create_task(self._begin())
        try:
            yield
        finally:
            await self.drain()
            loading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await loading
            self.ended = await asyncio.to_thread(self._pipeline.stop, _LAST)

    async def _begin(self) -> None:
        try:
            self._take(await asyncio.to_thread(self._opened))
        except Exception as error:  # noqa: BLE001  (whoever started the service is told)
            self.state, self.failure = "failed", error
            self.on_failure()
            return
        if self.state == "loading":
            self.state = "ready"
        while True:
            await asyncio.sleep(max(self.limits.watch, 0.05))
            if found := await asyncio.to_thread(try_next, self.live, self._verify):
                old = self.live
                self._take(found)
                old.retire()
                self.metrics.generations.inc()
                _LOG.info(
                    "generation %s of the index is in service, %d products", found.name, len(found.answerer.index)
                )

    def _opened(self) -> Generation:
        generation = Generation(self._load())
        self._pipeline.warm(generation.answerer)
        return generation

    def _take(self, generation: Generation) -> None:
        self._live = generation
        self.metrics.products.set(len(generation.answerer.index))

    async def drain(self) -> None:
        """Take nothing new; returns when all that was accepted is done, or the time for it is over."""
        self.state = "draining"
        self._idle.clear()
        if self._waiting():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), self.limits.drain)

    def settings(self, changed: dict[str, Any]) -> AnswerSettings:
        """How a request wants to be answered.

        Raises:
            InputError: a setting is out of range, or cannot be had from this index.
        """
        default = self.live.answerer.settings
        return AnswerSettings.from_dict(default.to_dict() | changed) if changed else default

    def submit(
        self,
        kind: Kind,
        questions: Sequence[str],
        use: AnswerSettings,
        piece: Callable[[str], object] | None = None,
        told: Callable[[Retrieval], object] | None = None,
    ) -> list[Work]:
        """Accept the questions of one request, all or none. Each must be given up with `leave` if it is not awaited.

        Args:
            kind: what is wanted.
            questions: checked.
            use: how they are answered.
            piece: takes the pieces of a stream, in a worker's thread.
            told: takes what was found for it before, in a worker's thread.

        Raises:
            Problem: 503, the service is loading, draining, or has too much to do.
        """
        live, loop = self._accepting(), asyncio.get_running_loop()
        taken: list[Work] = []
        new: list[Work] = []
        for number, question in enumerate(questions):
            work = Work(kind, question, use, live, loop.create_future(), piece, told)
            # Of many questions in a request each has its turn later, so that others come between.
            work.turn = work.arrived + number * _SHARE * self._pipeline.each(work)
            known = self._shared.get(work.key) if kind != "stream" else None
            if known is not None and not known.left:
                known.waiting += 1
                taken.append(known)
            else:
                self._shared[work.key] = work
                new.append(work)
                taken.append(work)
        if new:
            self._admit(new, taken)
        self.metrics.shared.inc(len(taken) - len(new))
        for work in new:
            live.hold()
            self._works.add(work)
        self._pipeline.finding.put(new)
        return taken

    def enter(self) -> Generation:
        """Accept a question that others than the workers answer; it takes a place of the queue until `leave_place`.

        Returns:
            The generation in service, held.

        Raises:
            Problem: 503, the service is loading, draining, or has too much to do.
        """
        live = self._accepting()
        if self._waiting() >= self.limits.max_queue:
            raise busy(self._waiting(), self._pipeline.finding.wait(len(self._works)))
        live.hold()
        self._beside += 1
        return live

    def leave_place(self, generation: Generation) -> None:
        """A question that `enter` accepted is done, or given up."""
        generation.let_go()
        self._beside -= 1
        if not self._waiting():
            self._idle.set()

    def _accepting(self) -> Generation:
        live = self.live
        if self.state == "draining":
            raise Problem(503, "draining", "the service is being stopped", retry_after=5)
        return live

    def _waiting(self) -> int:
        """How many questions wait or are in work."""
        return len(self._works) + self._beside

    def _admit(self, new: Sequence[Work], taken: Sequence[Work]) -> None:
        expected = self._pipeline.wait(new[0])
        full = self._waiting() + len(new) > self.limits.max_queue
        if not full and expected <= self.limits.max_wait:
            return
        for work in taken:
            work.waiting -= 1
        for work in new:
            self._forget(work)
        raise busy(self._waiting(), expected)

    def late(self) -> Problem:
        """That there was no answer in time."""
        return Problem(504, "timeout", f"there was no answer within {self.limits.timeout:g} s")

    def leave(self, work: Work) -> None:
        """A request waits no more; what nobody waits for is not begun, and a stream is closed."""
        if work not in self._works or work.left:
            return
        work.waiting -= 1
        if not work.waiting:
            self.metrics.dropped.inc()
            self._forget(work)
            if self._pipeline.take_out(work):
                self._finish([(work, RuntimeError("left"))])

    def _forget(self, work: Work) -> None:
        if self._shared.get(work.key) is work:
            del self._shared[work.key]

    def _finish_soon(self, results: Results) -> None:
        if results and self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody is there to be told
                self.loop.call_soon_threadsafe(self._finish, results)

    def _finish(self, results: Results) -> None:
        for work, result in results:
            if work not in self._works:
                continue
            self._works.discard(work)
            self._forget(work)
            work.generation.let_go()
            if work.left or work.done.done():
                continue
            if isinstance(result, BaseException):
                work.done.set_exception(result)
            else:
                work.done.set_result(result)
        if not self._waiting():
            self._idle.set()

    async def results(
        self, works: Sequence[Work], gone: asyncio.Future[Any] | None, since: float
    ) -> list[Answer | Retrieval]:
        """What comes of works, in their order.

        Args:
            works: of one request, as `submit` gave them.
            gone: done when the client has left.
            since: when the request came, by `time.monotonic`.

        Raises:
            Problem: 504, the time is up.
            ClientLeft: the client has left.
            Exception: what went wrong with one of them.
        """
        waited = asyncio.gather(*(asyncio.shield(work.done) for work in works))
        others = [waited] if gone is None else [waited, gone]
        try:
            left = self.limits.timeout - (time.monotonic() - since)
            done, _ = await asyncio.wait(others, timeout=max(left, 0.0), return_when=asyncio.FIRST_COMPLETED)
            if waited in done:
                return list(await waited)
            if gone is not None and gone in done:
                raise ClientLeftError
            raise self.late()
        finally:
            if not waited.done():
                waited.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await waited
            for work in works:
                if not work.done.done():
                    self.leave(work)


class ClientLeftError(Exception):
    """Nobody is there to read the response."""
