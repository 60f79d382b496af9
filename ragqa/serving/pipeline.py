"""From a question to its answer by two workers: one finds products, one has the generator read and write.

What needs no generator (to abstain, to copy, to choose the one exact title) is answered by the first worker and waits for
no model. The generator is asked by the second alone, so the model's cores are not fought over: in turns it gives each
streamed answer its next piece, and answers a batch.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from ragqa.answerer import Answerer
from ragqa.errors import RagqaError
from ragqa.records import Answer, Retrieval
from ragqa.serving.lanes import Lane
from ragqa.serving.limits import ServiceSettings
from ragqa.serving.metrics import Metrics
from ragqa.serving.problems import busy
from ragqa.serving.work import Work, found_for

_WARM: Final = "?"
# A processor is busy with one prompt: reading several together takes as long (SmolLM2-135M on 2 cores, 8 questions: 387 ms
# each against 310), so that all would wait for the last. Of answers that are written the later passes are shared (4: 452 ms
# each against 591, 8: 510).
_ON_CPU: Final = {False: 1, True: 4}
# Works that are done, each with its answer, what was found, or what went wrong.
Results = Sequence[tuple[Work, Answer | Retrieval | BaseException]]


class Pipeline:
    """The two workers.

    Args:
        limits: how many questions are done together.
        metrics: told of batches and times.
        finish: called with works that are done, in a worker's thread; also with those that were left.
    """

    def __init__(self, limits: ServiceSettings, metrics: Metrics, finish: Callable[[Results], None]) -> None:
        self._limits, self._metrics, self._finish = limits, metrics, finish
        self.finding = Lane("ragqa-retrieve", self._surely(self._find), lambda _: limits.max_batch)
        self.writing = Lane("ragqa-generate", self._surely(self._write), self._most, self._stream)
        self._streams: deque[Work] = deque()
        self._share = 1.0  # of questions that the generator is asked for, measured

    def start(self) -> None:
        """Start the workers."""
        self.finding.start()
        self.writing.start()

    def warm(self, answerer: Answerer) -> None:
        """Do all of a question's way before the first one comes, and measure it."""
        use = answerer.settings.to_dict() | {"min_confidence": 0.0, "precision": None}
        for _ in range(2):  # the first takes longer than others
            started = time.monotonic()
            found = answerer.retrieve([_WARM], **use)
            self.finding.seconds = time.monotonic() - started
            if answerer.generates(found, **use)[0]:
                started = time.monotonic()
                answerer.answer(found, **use)
                self.writing.seconds = time.monotonic() - started

    def stop(self, timeout: float) -> bool:
        """End the workers; whether what is in work was finished first, within so many seconds each."""
        return self.finding.stop(timeout) & self.writing.stop(timeout)

    def wait(self, work: Work) -> float:
        """Seconds that a new work is likely to wait, for the generator by what is known to wait for it."""
        others = 0.0 if _plain(work) else self._wait_to_write(work)
        return self.finding.wait(self.finding.before(work.turn)) + others

    def _wait_to_write(self, work: Work) -> float:
        return self.writing.wait(self.writing.before(work.turn) + len(self._streams))

    def each(self, work: Work) -> float:
        """Seconds that a work is likely to take by itself."""
        return self.finding.wait(1) + (0.0 if _plain(work) else self.writing.wait(self._share))

    def take_out(self, work: Work) -> bool:
        """Take a work out that has not begun; whether it had not."""
        return self.finding.take_out(work) or self.writing.take_out(work)

    def _most(self, first: Work) -> int:
        """How many answers are generated together."""
        if self._streams:
            return 1  # so that their pieces keep coming
        answerer = first.generation.answerer
        most = self._limits.max_batch
        try:
            device = getattr(getattr(answerer.generator, "model", None), "device", None)
        except RagqaError:
            return 1  # it cannot be loaded, which the request is told
        if device is None or device.type != "cpu":
            return most
        return min(most, _ON_CPU[answerer.is_free(**first.use.to_dict())])

    def _surely(self, do: Callable[[Sequence[Work]], None]) -> Callable[[Sequence[Work]], None]:
        """Whatever goes wrong, a batch is finished."""

        def run(batch: Sequence[Work]) -> None:
            try:
                do(batch)
            except Exception as error:  # noqa: BLE001  (the request is told, and the worker goes on)
                self._finish([(work, error) for work in batch])

        return run

    def _find(self, batch: Sequence[Work]) -> None:
        """Find products; answer what needs no generator."""
        if not (batch := self._begun(batch)):
            return
        started = time.monotonic()
        done: list[tuple[Work, Answer | Retrieval | BaseException]] = []
        asked: list[Work] = []
        for works, found in self._tried(batch, _retrieve):
            if isinstance(found, BaseException):
                done += [(work, found) for work in works]
                continue
            seconds = (time.monotonic() - started) / len(batch)
            plain = []
            for work, (one, generates) in zip(works, found, strict=True):
                work.found, work.seconds["retrieve"] = one, seconds
                self._metrics.stage_seconds.labels("retrieve").observe(seconds)
                if work.told is not None:
                    work.told(one)
                if work.kind == "search":
                    done.append((work, one))
                elif generates:
                    asked.append(work)
                else:
                    plain.append(work)
            done += self._answered(plain, asked=False)
        if wanting := [work for work in batch if not _plain(work)]:
            self._share += 0.1 * (len(asked) / len(wanting) - self._share)
        self._metrics.batches.labels("retrieve").observe(len(batch))
        self.finding.measured(time.monotonic() - started, len(batch))
        for work in asked:
            expected = self._wait_to_write(work)
            # A request is refused at its first question or not at all.
            if work.turn == work.arrived and expected > self._limits.max_wait:
                done.append((work, busy(len(self.writing), expected)))
            else:
                self.writing.put([work])
        self._finish(done)

    def _write(self, batch: Sequence[Work]) -> None:
        """Have answers generated; begin those that are streamed."""
        left = [work for work in batch if work.left]
        going = [work for work in batch if not work.left]
        self._finish([(work, _gone()) for work in left])
        for work in going:
            if work.kind == "stream":
                work.stream = work.generation.answerer.stream(found_for(work), **work.use.to_dict())
                work.seconds["generate"] = 0.0
                self._streams.append(work)
        if answers := [work for work in going if work.kind == "answer"]:
            started = time.monotonic()
            self._finish(self._answered(answers, asked=True))
            self._metrics.batches.labels("generate").observe(len(answers))
            self.writing.measured(time.monotonic() - started, len(answers))

    def _stream(self) -> bool:
        """The next piece of each streamed answer; whether there are others."""
        going = [self._streams.popleft() for _ in range(min(len(self._streams), self._limits.max_streams))]
        unfinished: list[Work] = []
        for work in going:
            assert work.stream is not None and work.piece is not None  # noqa: S101, PT018  (for the type checker)
            started = time.monotonic()
            result: Answer | BaseException | None = None
            try:
                if work.left:
                    work.stream.close()
                    result = _gone()
                elif (piece := next(work.stream, None)) is not None:
                    work.piece(piece)
                else:
                    result = work.stream.answer
            except Exception as error:  # noqa: BLE001  (whatever it is, the request is told, and the worker goes on)
                result = error
            work.seconds["generate"] += time.monotonic() - started
            if result is None:
                unfinished.append(work)
                continue
            self.writing.measured(work.seconds["generate"], 1)
            if isinstance(result, Answer):
                result = self._told(work, result, {"generate": work.seconds["generate"]})
            self._finish([(work, result)])
        # Those that have begun go on before others begin.
        self._streams.extendleft(reversed(unfinished))
        return bool(self._streams)

    def _answered(self, works: Sequence[Work], asked: bool) -> list[tuple[Work, Answer | Retrieval | BaseException]]:
        """Answers to works of one group, which were found; whether the generator is asked for them."""
        done: list[tuple[Work, Answer | Retrieval | BaseException]] = []
        for some, answers in self._tried(works, _answer):
            if isinstance(answers, BaseException):
                done += [(work, answers) for work in some]
                continue
            for work, answer in zip(some, answers, strict=True):
                told = self._told(work, answer, answer.timings if asked else {})
                if work.piece is not None:
                    work.piece(answer.text)
                done.append((work, told))
        return done

    def _told(self, work: Work, answer: Answer, timings: dict[str, float]) -> Answer:
        """The answer with its times by the service's clock, counted; no time where the generator was not asked."""
        seconds = work.seconds | {"generate": 0.0}
        seconds |= {stage: timings[stage] for stage in ("load", "generate") if stage in timings}
        metrics = self._metrics
        metrics.answers.labels("several" if answer.several else "abstained" if answer.abstained else "answered").inc()
        answer = replace(answer, timings=seconds | {"total": time.monotonic() - work.arrived})
        if timings and answer.prompt:
            metrics.stage_seconds.labels("generate").observe(seconds["generate"])
            count = tokens(work.generation.answerer, answer)
            metrics.tokens.labels("prompt").inc(count[0])
            metrics.tokens.labels("answer").inc(count[1])
        return answer

    def _begun(self, batch: Sequence[Work]) -> list[Work]:
        """Works that somebody waits for; the others are finished."""
        now = time.monotonic()
        going: list[Work] = []
        left: list[Work] = []
        for work in batch:
            (left if work.left else going).append(work)
            work.begun = True
            work.seconds["queue"] = now - work.arrived
            self._metrics.stage_seconds.labels("queue").observe(work.seconds["queue"])
        self._finish([(work, _gone()) for work in left])
        return going

    def _tried(
        self, works: Sequence[Work], do: Callable[[Sequence[Work]], list[Any]]
    ) -> list[tuple[Sequence[Work], Any]]:
        """Do works together; where that fails each by itself, so that one does not spoil the others."""
        if not works:
            return []
        try:
            return [(works, do(works))]
        except Exception as error:  # noqa: BLE001  (whatever it is, the request is told, and the worker goes on)
            if len(works) == 1:
                return [(works, error)]
        return [pair for work in works for pair in self._tried([work], do)]


def _plain(work: Work) -> bool:
    """Whether the generator is surely not asked for it."""
    return work.kind == "search" or work.use.decoding == "copy"


def _retrieve(works: Sequence[Work]) -> list[tuple[Retrieval, bool]]:
    """What is found for each of one group, and whether the generator is asked for an answer."""
    answerer, use = works[0].generation.answerer, works[0].use.to_dict()
    found = answerer.retrieve([work.question for work in works], **use)
    return list(zip(found, answerer.generates(found, **use), strict=True))


def _answer(works: Sequence[Work]) -> list[Answer]:
    first = works[0]
    return first.generation.answerer.answer([found_for(work) for work in works], **first.use.to_dict())


def _gone() -> BaseException:
    return RuntimeError("nobody waits for this")


def tokens(answerer: Answerer, answer: Answer) -> tuple[int, int]:
    """Tokens of the prompt and of the answer's text, as the generator counts them; none where it was not asked."""
    if not (answer.timings["generate"] and answer.prompt):
        return 0, 0
    tokenizer = answerer.generator.tokenizer.backend_tokenizer
    return tuple(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in (answer.prompt, answer.text))  # type: ignore[return-value]
