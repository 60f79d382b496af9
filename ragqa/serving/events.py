"""A response of server-sent events that ends when its client leaves, and says something now and then."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send


def event(name: str | None, data: Any) -> bytes:
    """One event; its data as JSON of one line, or text."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


class EventStream(Response):
    """Server-sent events.

    Args:
        events: makes them, each whole; closed when the client leaves.
        heartbeat: after so many seconds without an event a comment is sent.
        end: called at the end, however it comes.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], heartbeat: float, end: Callable[[], None]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events, self._heartbeat, self._end = events, heartbeat, end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  (as ASGI has it)
        """Send what comes until it ends, or the client leaves."""
        gone = asyncio.ensure_future(left(receive))
        events = self._events
        following: asyncio.Future[bytes] | None = None
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while not gone.done():
                following = following or asyncio.ensure_future(anext(events))
                both: set[asyncio.Future[Any]] = {following, gone}
                await asyncio.wait(both, timeout=self._heartbeat, return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    if not gone.done():
                        await send({"type": "http.response.body", "body": b": waiting\n\n", "more_body": True})
                    continue
                try:
                    body = following.result()
                except StopAsyncIteration:
                    await send({"type": "http.response.body", "body": b""})
                    break
                following = None
                await send({"type": "http.response.body", "body": body, "more_body": True})
        finally:
            self._end()
            gone.cancel()
            if following is not None:
                following.cancel()
                with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                    await following
            await events.aclose()


async def left(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
