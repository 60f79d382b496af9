"""OpenAI's chat completions: the last user message is the question, sources stand in a field of their own."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from ragqa.records import Answer, Retrieval
from ragqa.serving import answers
from ragqa.serving.answers import answered
from ragqa.serving.events import EventStream, event
from ragqa.serving.pipeline import tokens
from ragqa.serving.problems import Problem, documented, told
from ragqa.serving.requests import Chat
from ragqa.serving.routes import ERRORS, asked, json_response, note, pieces
from ragqa.serving.service import Service

MODEL: Final = "ragqa"
_EXAMPLE: Final = {
    "id": "chatcmpl-6f1d0c52a9b34e07",
    "object": "chat.completion",
    "created": 1767225600,
    "model": MODEL,
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": answers.EXAMPLE["text"], "refusal": None},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ],
    "usage": {"prompt_tokens": 541, "completion_tokens": 14, "total_tokens": 555},
    "ragqa": answers.EXAMPLE,
}
_MODELS: Final = {
    "object": "list",
    "data": [{"id": MODEL, "object": "model", "created": 1767225600, "owned_by": "ragqa"}],
}


def routes(service: Service) -> APIRouter:
    """The routes that OpenAI's clients call."""
    router, started = APIRouter(tags=["OpenAI-compatible"]), int(time.time())

    @router.post(
        "/v1/chat/completions",
        summary="Answer the last user message",
        responses=ERRORS
        | {
            200: {
                "description": "A chat completion; chunks of one where `stream` was true. `ragqa` has the whole answer.",
                "content": {
                    "application/json": {"schema": {"type": "object"}, "example": _EXAMPLE},
                    "text/event-stream": {"schema": answers.EVENT, "example": "data: {...}\n\ndata: [DONE]\n\n"},
                },
            }
        },
    )
    async def complete(body: Chat, request: Request) -> Response:
        said = (message.text for message in reversed(body.messages) if message.role == "user")
        question = next((text for text in said if text.strip()), "")
        limit = service.live.answerer.settings.max_question_chars
        if not question.strip() or len(question) > limit:
            raise Problem(
                422, "invalid-request", f"the last user message is the question, of 1 to {limit:,} characters"
            )
        note(request, [question])
        use = service.settings(body.changes().given())
        begun = _beginning(request.scope["ragqa.id"], body.model)
        if body.stream:
            usage = bool((body.stream_options or {}).get("include_usage"))
            work, taken = pieces(service, question, use, request.scope["ragqa.since"])
            events = _chunks(service, taken, begun, usage)
            return EventStream(events, service.limits.heartbeat, lambda: service.leave(work))
        (answer,) = await asked(service, request, "answer", [question], use)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "finish_reason": "stop",
            "logprobs": None,
        }
        return json_response(
            begun
            | {
                "object": "chat.completion",
                "choices": [choice],
                "usage": _usage(service, answer),
                "ragqa": answered(answer),
            }
        )

    @router.get(
        "/v1/models",
        summary="The one model there is",
        responses=documented(401, 429) | {200: answers.documented({"type": "object"}, _MODELS)},
    )
    async def models() -> Response:
        return json_response(
            {"object": "list", "data": [{"id": MODEL, "object": "model", "created": started, "owned_by": "ragqa"}]}
        )

    return router


def _beginning(request_id: str, model: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{request_id}", "created": int(time.time()), "model": model}


def _usage(service: Service, answer: Answer) -> dict[str, int]:
    prompt, completion = tokens(service.live.answerer, answer)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


async def _chunks(
    service: Service, taken: AsyncGenerator[Retrieval | str | Answer, None], begun: dict[str, Any], usage: bool
) -> AsyncGenerator[bytes, None]:
    begun = begun | {"object": "chat.completion.chunk"}

    def chunk(delta: dict[str, Any], finish: str | None = None, **further: Any) -> bytes:
        return event(None, begun | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]} | further)

    try:
        yield chunk({"role": "assistant", "content": ""})
        async for piece in taken:
            if isinstance(piece, Retrieval):
                continue
            if isinstance(piece, str):
                yield chunk({"content": piece})
                continue
            yield chunk({}, "stop", ragqa=answered(piece))
            if usage:
                yield event(None, begun | {"choices": [], "usage": _usage(service, piece)})
        yield event(None, "[DONE]")
    except Exception as error:  # noqa: BLE001  (the response has begun: it is told as an event)
        id_ = begun["id"].removeprefix("chatcmpl-")
        yield event(None, told(error, id_).to_dict(id_))
