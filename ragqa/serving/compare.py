"""The page's second tab: one question through the arms of the benchmark."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict
from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StrictBool
from starlette.responses import Response

from ragqa.answerer import Answerer
from ragqa.comparison.side_by_side import ArmAnswer, SideBySide, how_to_get
from ragqa.serving.events import EventStream, event
from ragqa.serving.problems import Problem, told
from ragqa.serving.problems import documented as problems
from ragqa.serving.requests import Text
from ragqa.serving.routes import json_response, note
from ragqa.serving.service import Service

_RETRY: Final = 10
_QUESTION: Final = "headlamp for the trail"
_COMPARED: Final = {
    "question": _QUESTION,
    "arms": [
        {
            "name": "copy",
            "label": "retrieve and return",
            "about": "the first candidate's description; no generator",
            "answer": "Our all-round headlamp ...",
            "source": {"id": "RQ5QHDUNTN", "title": "Lumen Trail Headlamp LT-350"},
            "confidence": 0.68,
            "seconds": 0.01,
            "candidates": [{"id": "RQ5QHDUNTN", "title": "Lumen Trail Headlamp LT-350"}],
            "spans": [],
            "f1": None,
            "exact_match": None,
            "grounded": 1.0,
        }
    ],
    "missing": [
        {
            "name": "plain",
            "label": "plain fine-tuned",
            "about": "fine-tuned on question -> description ...",
            "how": ["ragqa fine-tune INDEX --mode plain --out adapters/plain", "..."],
        }
    ],
}
_STREAM: Final = (
    'event: arm\ndata: {"name": "copy", ...}\n\nevent: compared\ndata: {"question": ..., "arms": [...]}\n\n'
)


class Compare(BaseModel):
    """A question that every arm is asked."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={"examples": [{"question": _QUESTION}]},
    )

    question: Text
    stream: StrictBool = Field(False, description="each arm's answer as an event, then all of them")


class Comparison:
    """The arms, their models loaded with the first question; one question at a time.

    Args:
        make: the arms over an Answerer's index.
    """

    def __init__(self, make: Callable[[Answerer], SideBySide]) -> None:
        self._make = make
        self._arms: SideBySide | None = None
        self._working = threading.Lock()

    def open(self, answerer: Answerer) -> None:
        """Take the Answerer that the service begins with.

        Raises:
            InputError, ModelError: an adapter cannot be compared.
        """
        self._arms = self._make(answerer)

    def begin(self) -> SideBySide:
        """The arms, for one question; `end` gives them back.

        Raises:
            Problem: 503, another question is being answered.
        """
        if self._arms is None or not self._working.acquire(blocking=False):
            raise Problem(503, "comparing", "another question is being compared; try again later", retry_after=_RETRY)
        return self._arms

    def end(self) -> None:
        """Give them back."""
        self._working.release()


def routes(service: Service, comparison: Comparison) -> APIRouter:
    """The route.

    Args:
        service: whose index is searched.
        comparison: the arms.
    """
    router = APIRouter()

    @router.post(
        "/v1/compare",
        tags=["answers"],
        summary="One question answered in every way that the benchmark compares",
        responses=problems(400, 401, 408, 413, 415, 422, 429, 500, 503, 504)
        | {
            200: {
                "description": "All arms' answers; events where `stream` was true.",
                "content": {
                    "application/json": {"schema": {"type": "object"}, "example": _COMPARED},
                    "text/event-stream": {"schema": {"type": "string"}, "example": _STREAM},
                },
            }
        },
    )
    async def compare(body: Compare, request: Request) -> Response:
        note(request, [body.question])
        live = service.enter()
        try:
            arms = comparison.begin()
        except BaseException:
            service.leave_place(live)
            raise
        answers = arms.ask(body.question, live.answerer)
        given: list[dict[str, Any]] = []
        # What is in work cannot be stopped: its thread is waited for before another question is taken.
        working: list[asyncio.Future[ArmAnswer | None]] = []

        async def taken() -> AsyncGenerator[dict[str, Any], None]:
            while True:
                working[:] = [asyncio.ensure_future(asyncio.to_thread(next, answers, None))]
                rest = service.limits.timeout - (time.monotonic() - request.scope["ragqa.since"])
                try:
                    answer = await asyncio.wait_for(asyncio.shield(working[0]), max(rest, 0.0))
                except TimeoutError:
                    raise service.late() from None
                if answer is None:
                    return
                given.append(answer.to_dict())
                yield given[-1]

        def end() -> None:
            def over(_: object = None) -> None:
                comparison.end()
                service.leave_place(live)

            if working and not working[0].done():
                working[0].add_done_callback(over)
            else:
                over()

        def compared() -> dict[str, Any]:
            missing = [how_to_get(mode, "INDEX", f"ragqa serve INDEX --compare-{mode}") for mode in arms.missing]
            return {"question": body.question, "arms": given, "missing": [asdict(arm) for arm in missing]}

        async def events() -> AsyncGenerator[bytes, None]:
            try:
                async for arm in taken():
                    yield event("arm", arm)
                yield event("compared", compared())
            except Exception as error:  # noqa: BLE001  (the response has begun: it is told as an event)
                yield event("error", told(error, request.scope["ragqa.id"]).to_dict(request.scope["ragqa.id"]))

        if body.stream:
            return EventStream(events(), service.limits.heartbeat, end)
        try:
            async for _ in taken():
                pass
            return json_response(compared())
        finally:
            end()

    return router
