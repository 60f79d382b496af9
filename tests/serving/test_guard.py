"""What the guard lets through, without a server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from ragqa import Answerer
from ragqa.serving.access import Keys
from ragqa.serving.guard import Guard
from ragqa.serving.limits import ServiceSettings
from ragqa.serving.service import Service

KEY = "0123456789abcdef"


def guard(asked: list[str], **limits: Any) -> Guard:
    """Around an application that keeps what it is asked."""

    def load() -> Answerer:
        raise AssertionError("nothing is loaded")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return Guard(app, Service(load, ServiceSettings(**limits)), Keys([KEY]))


def send_to(guarded: Guard, key: str = KEY, kind: str = "http", message: str = "http.request") -> list[Any]:
    """What is sent back."""
    sent: list[Any] = []
    headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-type", b"application/json")]
    scope = {"type": kind, "method": "POST", "path": "/v1/ask", "headers": headers, "client": ("127.0.0.1", 1)}

    async def receive() -> Any:
        return {"type": message, "body": b"{}"}

    async def send(one: Any) -> None:
        sent.append(one)

    asyncio.run(guarded(scope, receive, send))
    return sent


def test_a_request_with_a_key_comes_through_and_no_websocket_does() -> None:
    asked: list[str] = []
    guarded = guard(asked)
    assert send_to(guarded, kind="websocket") == []
    assert asked == []
    assert send_to(guarded)[0]["status"] == 200
    assert asked == ["/v1/ask"]


def test_guessing_keys_is_slowed_down_and_keys_are_not() -> None:
    asked: list[str] = []
    guarded = guard(asked, rate=1.0, burst=1)
    told = [send_to(guarded, "wrong"), send_to(guarded, "also wrong"), send_to(guarded)]
    assert [sent[0]["status"] for sent in told] == [401, 429, 200]
    problem = json.loads(told[1][1]["body"])
    assert (problem["code"], problem["detail"]) == ("rate-limited", "too many requests without a valid key")
    assert dict(told[1][0]["headers"])[b"retry-after"] == str(problem["retry_after"]).encode()


def test_a_client_that_leaves_before_its_body_is_there_is_asked_nothing() -> None:
    asked: list[str] = []
    guarded = guard(asked)
    assert send_to(guarded, message="http.disconnect") == []
    assert asked == []
    assert b'ragqa_requests_total{route="other",status="499"} 1.0' in guarded._service.metrics.text()
