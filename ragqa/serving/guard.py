"""Around the application: keys, rates, sizes and times of requests, headers of responses, log and metrics."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragqa.serving.access import Keys, RateLimit, network
from ragqa.serving.problems import Problem, respond, told
from ragqa.serving.service import ClientLeftError, Service

_LOG: Final = logging.getLogger("ragqa.serving")
# As ASGI has them, which is how they go out.
_HEADERS: Final = (
    (b"content-security-policy", b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
_UNCACHED: Final = (*_HEADERS, (b"cache-control", b"no-store"))
_OPEN: Final = frozenset({"/", "/healthz", "/readyz", "/openapi.json", "/favicon.ico"})
# Routes that take a JSON object.
BODIES: Final = frozenset({"/v1/ask", "/v1/search", "/v1/chat/completions", "/v1/compare"})
_PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})  # asked every few seconds
_LEFT: Final = 499  # in log and metrics alone: the client closed the connection


class Guard:
    """An ASGI application around another.

    Args:
        app: the application.
        service: its limits and metrics.
        keys: who may ask; everybody where there are none.
    """

    def __init__(self, app: ASGIApp, service: Service, keys: Keys) -> None:
        self._app, self._service, self._keys = app, service, keys
        self._limits = service.limits
        self._rates = RateLimit(self._limits.rate, self._limits.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, id_ = time.monotonic(), secrets.token_hex(8)
        scope["ragqa.id"], scope["ragqa.since"] = id_, started
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = [(name.lower(), value) for name, value in message.get("headers", ())]
                names = {name for name, _ in given}
                ours = _UNCACHED if status >= 400 or scope["method"] == "POST" else _HEADERS
                message["headers"] = [
                    *given,
                    *((name, value) for name, value in ours if name not in names),
                    (b"x-request-id", id_.encode()),
                ]
            await send(message)

        try:
            self._check(scope)
            body = await self._body(scope, receive)
            await self._app(scope, _again(body, receive), sending)
        except ClientLeftError:
            status = _LEFT
        except Exception as error:  # noqa: BLE001  (told as a problem, and logged)
            if status:  # it was told, and logged
                return
            problem = told(error, id_)
            if problem.status in (408, 413):
                problem.headers["Connection"] = "close"
            await respond(problem, id_)(scope, receive, sending)
        finally:
            self._told(scope, status, time.monotonic() - started)

    def _check(self, scope: Scope) -> None:
        """Refuse who may not ask, or not yet, or not in this form."""
        path, headers = scope["path"], Headers(scope=scope)
        client = scope.get("client")
        who = network(client[0]) if client else "local"
        free = path in _OPEN or path.startswith("/static/") or scope["method"] == "OPTIONS"
        if self._keys and not free:
            named = self._keys.who(headers.get("authorization", "").encode("latin-1"))
            if named is None:
                if after := self._rates.take(f"refused {who}"):
                    raise Problem(429, "rate-limited", "too many requests without a valid key", retry_after=after)
                raise Problem(
                    401,
                    "unauthorized",
                    "give a valid API key as: Authorization: Bearer KEY",
                    headers={"WWW-Authenticate": "Bearer"},
                )
            who = named
        scope["ragqa.charge"] = lambda count: self._charge(who, count)
        if not free and path != "/metrics":
            self._charge(who, 1)
        if scope["method"] == "POST" and path in BODIES:
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise Problem(
                    415, "unsupported-media-type", "the body must be JSON, with Content-Type: application/json"
                )

    def _charge(self, who: str, count: int) -> None:
        if count and (after := self._rates.take(who, count)):
            raise Problem(
                429,
                "rate-limited",
                f"more than {self._limits.rate:g} questions a minute; try again in {after} s",
                retry_after=after,
            )

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """All of the body, if it is not too large and does not take too long."""
        most = self._limits.max_body
        declared = Headers(scope=scope).get("content-length", "0")
        large = Problem(413, "too-large", f"the body is larger than {most:,} bytes")
        if declared.isdigit() and int(declared) > most:
            raise large
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._limits.body_timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientLeftError
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise large
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            late = f"the body did not arrive within {self._limits.body_timeout:g} s"
            raise Problem(408, "too-slow", late) from None
        if not size and scope["method"] == "POST" and scope["path"] in BODIES:
            raise Problem(400, "empty-body", "the body is empty; it must be a JSON object")
        return b"".join(parts)

    def _told(self, scope: Scope, status: int, seconds: float) -> None:
        """Metrics and log; the route's pattern, never what stands in it."""
        route: Any = scope.get("route")
        place = getattr(route, "path", None) or ("/static" if scope["path"].startswith("/static/") else "other")
        metrics = self._service.metrics
        metrics.requests.labels(place, str(status)).inc()
        metrics.request_seconds.labels(place).observe(seconds)
        asked = ""
        if self._limits.log_questions and (questions := scope.get("ragqa.questions")):
            asked = f" {questions!r}"
        level = logging.DEBUG if place in _PROBES else logging.INFO
        _LOG.log(
            level, "%s %s %d %.1f ms %s%s", scope["method"], place, status, 1000 * seconds, scope["ragqa.id"], asked
        )


def _again(body: bytes, receive: Receive) -> Receive:
    """Receive a body that was read, then what else comes."""
    given = False

    async def received() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return received
