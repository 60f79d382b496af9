"""What becomes of questions when the generator is late or fails, without a model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ragqa.errors import ModelError
from ragqa.serving.limits import ServiceSettings
from ragqa.serving.metrics import Metrics
from ragqa.serving.pipeline import Pipeline
from ragqa.serving.problems import Problem
from ragqa.serving.work import Work
from ragqa.settings import AnswerSettings
from tests.serving.conftest import until


class Failing:
    """An answerer that finds the question itself and cannot answer."""

    def __init__(self, generates: bool = False, device: str = "cpu") -> None:
        self._generates = generates
        self.generator: Any = SimpleNamespace(model=SimpleNamespace(device=SimpleNamespace(type=device)))

    def retrieve(self, questions: list[str], **_: Any) -> list[str]:
        return questions

    def generates(self, found: list[str], **_: Any) -> list[bool]:
        return [self._generates] * len(found)

    def is_free(self, **_: Any) -> bool:
        return False

    def answer(self, found: list[str], **_: Any) -> list[Any]:
        raise ModelError(f"no model for {', '.join(found)}")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def done_by(pipeline: Pipeline, works: list[Work], done: list[Any]) -> dict[str, Any]:
    pipeline.start()
    pipeline.finding.put(works)
    until(lambda: len(done) == len(works))
    assert pipeline.stop(60)
    return {work.question: result for work, result in done}


def works_for(answerer: Any, loop: asyncio.AbstractEventLoop, *questions: str) -> list[Work]:
    generation: Any = SimpleNamespace(answerer=answerer)
    return [Work("answer", question, AnswerSettings(), generation, loop.create_future()) for question in questions]


def test_an_error_is_told_to_each_question_and_to_those_that_were_left_that_they_were(
    loop: asyncio.AbstractEventLoop,
) -> None:
    done: list[Any] = []
    pipeline = Pipeline(ServiceSettings(), Metrics(), done.extend)
    works = works_for(Failing(), loop, "a", "b", "left")
    works[2].waiting = 0
    results = {question: str(result) for question, result in done_by(pipeline, works, done).items()}
    assert results == {"a": "no model for a", "b": "no model for b", "left": "nobody waits for this"}


def test_a_batch_that_nobody_waits_for_is_not_searched_for(loop: asyncio.AbstractEventLoop) -> None:
    done: list[Any] = []
    works = works_for(None, loop, "left")
    works[0].waiting = 0
    (result,) = done_by(Pipeline(ServiceSettings(), Metrics(), done.extend), works, done).values()
    assert str(result) == "nobody waits for this"


def test_a_question_that_would_wait_too_long_for_the_generator_is_refused_after_its_search(
    loop: asyncio.AbstractEventLoop,
) -> None:
    done: list[Any] = []
    pipeline = Pipeline(ServiceSettings(max_wait=1.0), Metrics(), done.extend)
    pipeline.writing.measured(100.0, 1)
    pipeline._streams.extend(works_for(Failing(), loop, "begun before"))
    works = works_for(Failing(generates=True), loop, "late", "of one request")
    for work in works:
        work.turn = work.arrived
    works[1].turn += 1
    pipeline._find(works)
    ((work, refused),) = done
    assert work.question == "late"
    assert isinstance(refused, Problem)
    assert (refused.status, refused.code, refused.retry_after) == (503, "queue-full", 50)
    assert pipeline.writing.take_out(works[1])


def test_answers_are_generated_together_on_a_gpu_alone_and_by_themselves_beside_streams(
    loop: asyncio.AbstractEventLoop,
) -> None:
    class Missing(Failing):
        def __getattribute__(self, name: str) -> Any:
            if name == "generator":
                raise ModelError("no such model")
            return super().__getattribute__(name)

    pipeline = Pipeline(ServiceSettings(max_batch=8), Metrics(), lambda _: None)
    makes: list[Any] = [lambda: Failing(device="cuda"), Failing, Missing]
    firsts = [works_for(make(), loop, "a")[0] for make in makes]
    assert [pipeline._most(first) for first in firsts] == [8, 1, 1]
    pipeline._streams.append(firsts[0])
    assert pipeline._most(firsts[0]) == 1
