"""Errors as problem documents (RFC 9457): the right status, one sentence, nothing of paths or traces."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ragqa.errors import InputError, MilvusError, ServerError, TimeLimitError

_LONGEST_RETRY: Final = 60
_LOG: Final = logging.getLogger("ragqa.serving")
MEDIA_TYPE: Final = "application/problem+json"


class ProblemDocument(BaseModel):
    """RFC 9457."""

    type: str = Field("about:blank", description="a URI; about:blank where the status says it all")
    title: str = Field(description="the status in words", examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["question: String should have at least 1 character"])
    code: str = Field(description="a name for programs", examples=["invalid-request"])
    retry_after: int | None = Field(None, description="seconds, as in the header Retry-After, where there is one")
    id: str = Field("", description="of the request; the log has it, too", examples=["6f1d0c52a9b34e07"])


class Problem(Exception):  # noqa: N818  (RFC 9457 calls it so)
    """What a request is refused or ended with.

    Args:
        status: of HTTP.
        code: a name for programs, such as "queue-full".
        detail: one sentence.
        retry_after: whole seconds after which to try again.
        headers: further ones.
    """

    def __init__(
        self, status: int, code: str, detail: str, retry_after: int | None = None, headers: Mapping[str, str] = {}
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.retry_after = retry_after
        self.headers = dict(headers) | ({} if retry_after is None else {"Retry-After": str(retry_after)})

    def to_dict(self, request_id: str = "") -> dict[str, Any]:
        """The problem document, with OpenAI's ``error`` for its clients."""
        title = HTTPStatus(self.status).phrase
        return {
            "type": "about:blank",
            "title": title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "id": request_id,
            **({} if self.retry_after is None else {"retry_after": self.retry_after}),
            "error": {"message": self.detail, "type": self.code.replace("-", "_"), "param": None, "code": self.code},
        }


def busy(waiting: int, expected: float) -> Problem:
    """That there is too much to do.

    Args:
        waiting: how many questions are.
        expected: seconds that they are likely to take.
    """
    # When a half of what is queued is done there is room again.
    after = max(1, min(math.ceil(expected / 2), _LONGEST_RETRY))
    detail = f"{waiting} questions are waiting, which takes about {expected:.0f} s; try again later"
    return Problem(503, "queue-full", detail, retry_after=after)


def problem_of(error: BaseException) -> Problem:
    """The problem that an error is for a client."""
    match error:
        case Problem():
            return error
        case RequestValidationError():
            return _invalid(error)
        case HTTPException():
            return _http(error)
        case InputError():
            return Problem(422, "invalid-request", str(error))
        case TimeLimitError():
            return Problem(504, "timeout", "the question was not answered in the time it was given")
        case MilvusError():
            return Problem(502, "search-unreachable", "Milvus, which searches, did not answer as it should")
        case ServerError():
            return Problem(
                502, "generator-unreachable", "the server that runs the generator did not answer as it should"
            )
        case _:
            return Problem(500, "internal-error", "something went wrong here; the log has it under this id")


def told(error: Exception, request_id: str) -> Problem:
    """The problem that an error is for a client; one that nobody foresaw is logged."""
    problem = problem_of(error)
    if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        _LOG.error("request %s failed", request_id, exc_info=error)
    return problem


def respond(problem: Problem, request_id: str = "") -> Response:
    """A problem as a response."""
    body = json.dumps(problem.to_dict(request_id), ensure_ascii=False).encode()
    return Response(body, problem.status, problem.headers, MEDIA_TYPE)


async def handle(request: Request, error: Exception) -> Response:
    """An exception handler of the application."""
    id_ = request.scope.get("ragqa.id", "")
    return respond(told(error, id_), id_)


def _invalid(error: RequestValidationError) -> Problem:
    told = error.errors()
    if any(one["type"] == "json_invalid" for one in told):
        return Problem(400, "malformed-json", "the body is not valid JSON")
    parts = []
    for one in told[:5]:
        place = ".".join(str(part) for part in one["loc"] if part not in ("body", "query", "path"))
        parts.append(f"{place or 'body'}: {one['msg']}"[:200])
    return Problem(422, "invalid-request", "; ".join(parts))


_HTTP: Final = {
    404: ("unknown-route", "there is nothing at this address; /openapi.json lists what there is"),
    405: ("method-not-allowed", "this address does not take that method; the Allow header names those it takes"),
}


def _http(error: HTTPException) -> Problem:
    code, detail = _HTTP.get(error.status_code, ("malformed-request", "the request cannot be read"))
    return Problem(error.status_code, code, detail, headers=error.headers or {})


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Problem documents of these statuses, for a route's OpenAPI document."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": ProblemDocument.model_json_schema()}},
        }
        for status in statuses
    }
