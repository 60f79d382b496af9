"""ragqa's own routes: ask, search, products, about, health, metrics."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

import ragqa
from ragqa.records import Answer, Retrieval
from ragqa.serving import answers
from ragqa.serving.answers import answered, searched
from ragqa.serving.describe import about
from ragqa.serving.events import EventStream, event, left
from ragqa.serving.problems import Problem, documented, told
from ragqa.serving.requests import Ask, Search
from ragqa.serving.service import Service
from ragqa.serving.work import Kind, Work, found_for
from ragqa.settings import AnswerSettings

ERRORS: Final = documented(400, 401, 408, 413, 415, 422, 429, 500, 502, 503, 504)
_REFUSED: Final = documented(401, 429)
_STREAM: Final = 'event: piece\ndata: {"text": "A warm red skirt"}\n\nevent: answer\ndata: {"text": "A warm red skirt for girls.", ...}\n\n'


def json_response(content: Any, status: int = 200) -> Response:
    """JSON, not checked against a model once more."""
    return Response(json.dumps(content, ensure_ascii=False).encode(), status, media_type="application/json")


def routes(service: Service) -> APIRouter:
    """The routes.

    Args:
        service: answers.
    """
    router = APIRouter()

    @router.post(
        "/v1/ask",
        tags=["answers"],
        summary="Answer one question, or several",
        responses=ERRORS
        | {
            200: {
                "description": "The answer; `answers` of them for several questions; events where `stream` was true.",
                "content": {
                    "application/json": {"schema": answers.ASKED, "example": answers.EXAMPLE},
                    "text/event-stream": {"schema": answers.EVENT, "example": _STREAM},
                },
            }
        },
    )
    async def ask(body: Ask, request: Request) -> Response:
        use = service.settings(body.settings.given())
        questions = body.questions or [body.question]
        if len(questions) > service.limits.max_questions:
            raise Problem(
                422, "too-many-questions", f"at most {service.limits.max_questions} questions are taken at once"
            )
        note(request, questions)
        if body.stream:
            return stream(service, request, questions[0], use, body.prompt, body.candidates)
        works = service.submit("answer", questions, use)
        given = [answered(answer, body.prompt) for answer in await awaited(service, request, works)]
        if body.candidates:
            for told, work in zip(given, works, strict=True):
                told["candidates"] = searched(found_for(work), use.top_k)["candidates"]
        return json_response({"answers": given} if body.questions else given[0])

    @router.post(
        "/v1/search",
        tags=["answers"],
        summary="The products a question may be about, without an answer",
        responses=ERRORS | {200: answers.documented(answers.SEARCHED, answers.SEARCH_EXAMPLE)},
    )
    async def search(body: Search, request: Request) -> Response:
        note(request, [body.question])
        use = service.settings({"top_k": body.top_k})
        (found,) = await asked(service, request, "search", [body.question], use)
        return json_response(searched(found, body.top_k))

    @router.get(
        "/v1/products/{id:path}",
        tags=["catalogue"],
        summary="One product",
        responses=_REFUSED | documented(404, 503) | {200: answers.documented(answers.PRODUCT, answers.PRODUCT_EXAMPLE)},
    )
    async def product(id: str) -> Response:  # noqa: A002  (the parameter's name in the address)
        found = service.live.ids.find(id)
        if found is None:
            raise Problem(404, "unknown-product", "this catalogue has no product with that id")
        return json_response({"id": found.id, "title": found.title, "description": found.description})

    @router.get(
        "/v1/about", tags=["service"], summary="What answers here, and within which limits",
        responses=_REFUSED | documented(503) | {200: answers.documented({"type": "object"}, answers.ABOUT_EXAMPLE)},
    )  # fmt: skip
    async def about_() -> Response:
        return json_response(about(service))

    @router.get(
        "/healthz", tags=["service"], summary="The process lives",
        responses={200: answers.documented({"type": "object"}, {"status": "ok", "version": ragqa.__version__})},
    )  # fmt: skip
    async def healthz() -> Response:
        return json_response({"status": "ok", "version": ragqa.__version__})

    @router.get(
        "/readyz", tags=["service"], summary="Questions are taken",
        responses=documented(503) | {200: answers.documented({"type": "object"}, {"status": "ready"})},
    )  # fmt: skip
    async def readyz() -> Response:
        if service.state != "ready":
            raise Problem(503, service.state, f"the service is {service.state}", retry_after=2)
        return json_response({"status": "ready"})

    @router.get(
        "/metrics", tags=["service"], summary="Counters and times for Prometheus", response_class=PlainTextResponse,
        responses=_REFUSED | {
            200: {
                "description": "text format 0.0.4",
                "content": {"text/plain": {"schema": {"type": "string"}, "example": "ragqa_queue_length 0.0\n"}},
            }
        },
    )  # fmt: skip
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def note(request: Request, questions: Sequence[str]) -> None:
    """Have questions counted by the rate limit, and logged where that was asked for.

    Raises:
        Problem: 429; 422 for a question of blanks alone.
    """
    request.scope["ragqa.questions"] = questions
    if not all(question.split() for question in questions):
        raise Problem(
            422, "invalid-request", "a question is empty; ask, for example: What is the description of TITLE?"
        )
    if charge := request.scope.get("ragqa.charge"):
        charge(len(questions) - 1)


async def asked(
    service: Service, request: Request, kind: Kind, questions: Sequence[str], use: AnswerSettings
) -> list[Any]:
    """Submit questions and wait for their results, no longer than the client does."""
    return await awaited(service, request, service.submit(kind, questions, use))


async def awaited(service: Service, request: Request, works: Sequence[Work]) -> list[Any]:
    """The results of works that were submitted, for no longer than the client waits."""
    gone = asyncio.ensure_future(left(request.receive))
    try:
        return await service.results(works, gone, request.scope["ragqa.since"])
    finally:
        gone.cancel()


def stream(
    service: Service, request: Request, question: str, use: AnswerSettings, prompt: bool, candidates: bool
) -> Response:
    """An answer as server-sent events, before it what was found where that is wanted.

    Raises:
        Problem: see `Service.submit`; what goes wrong later is an event.
    """
    work, taken = pieces(service, question, use, request.scope["ragqa.since"])

    async def events() -> AsyncGenerator[bytes, None]:
        try:
            async for piece in taken:
                if isinstance(piece, Retrieval):
                    if candidates:
                        yield event("found", searched(piece, use.top_k))
                elif isinstance(piece, str):
                    yield event("piece", {"text": piece})
                else:
                    yield event("answer", answered(piece, prompt))
        except Exception as error:  # noqa: BLE001  (the response has begun: it is told as an event)
            yield event("error", told(error, request.scope["ragqa.id"]).to_dict(request.scope["ragqa.id"]))

    return EventStream(events(), service.limits.heartbeat, lambda: service.leave(work))


def pieces(
    service: Service, question: str, use: AnswerSettings, since: float
) -> tuple[Work, AsyncGenerator[Retrieval | str | Answer, None]]:
    """What was found for a question, the pieces of its answer, then the whole. The work is accepted at once and must be left at the end.

    Raises:
        Problem: see `Service.submit`.
    """
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[Retrieval | str | None] = asyncio.Queue()

    def put(piece: Retrieval | str) -> None:
        loop.call_soon_threadsafe(waiting.put_nowait, piece)

    (work,) = service.submit("stream", [question], use, put, put)
    work.done.add_done_callback(lambda _: waiting.put_nowait(None))

    async def taken() -> AsyncGenerator[Retrieval | str | Answer, None]:
        while True:
            rest = service.limits.timeout - (time.monotonic() - since)
            try:
                piece = await asyncio.wait_for(waiting.get(), max(rest, 0.0))
            except TimeoutError:
                raise service.late() from None
            if piece is None:
                break
            yield piece
        answer = work.done.result()
        assert isinstance(answer, Answer)  # noqa: S101  (for the type checker)
        yield answer

    return work, taken()
