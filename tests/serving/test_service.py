"""Who waits for what, without a model."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from ragqa import Answerer
from ragqa.serving import service as services
from ragqa.serving.problems import Problem
from ragqa.serving.service import Service
from ragqa.settings import AnswerSettings

USE = AnswerSettings(decoding="copy")


class Held:
    """In the place of a generation of the index."""

    def __init__(self) -> None:
        self.users, self.answerer = 0, SimpleNamespace(index=[])

    def hold(self) -> None:
        self.users += 1

    def let_go(self) -> None:
        self.users -= 1


def nothing() -> Answerer:
    raise AssertionError("nothing is loaded")


def test_what_is_not_loaded_yet_is_told_with_a_time_to_try_again() -> None:
    with pytest.raises(Problem, match=r"^the index and its models are being loaded$") as caught:
        _ = Service(nothing).live
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "loading", 2)


def test_a_question_is_given_up_when_the_last_who_asked_it_has_left_and_only_once() -> None:
    async def asked() -> None:
        service, held = Service(nothing), Held()
        service._live = held  # type: ignore[assignment]
        (work,), (same,) = (service.submit("answer", ["red lamp"], USE) for _ in range(2))
        assert work is same
        service.leave(work)
        assert (service._waiting(), held.users, work.left) == (1, 1, False)
        service.leave(work)
        assert (service._waiting(), held.users, work.left) == (0, 0, True)
        service.leave(work)
        service._finish([(work, RuntimeError("late"))])
        assert (service._waiting(), held.users, work.waiting) == (0, 0, 0)
        assert not work.done.done()

    asyncio.run(asked())


def test_a_service_that_was_stopped_while_it_loaded_takes_no_question(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = threading.Event()

    async def stopped() -> str:
        service = Service(nothing)

        def opened() -> Any:
            assert loaded.wait(60)
            return Held()

        monkeypatch.setattr(service, "_opened", opened)
        monkeypatch.setattr(services, "try_next", lambda *_: None)
        async with service.running():
            await service.drain()
            loaded.set()
            while service._live is None:
                await asyncio.sleep(0.001)
            with pytest.raises(Problem, match="the service is being stopped"):
                service.submit("answer", ["red lamp"], USE)
        return service.state

    assert asyncio.run(stopped()) == "draining"
