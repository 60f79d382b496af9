"""A stream whose maker is slow, and one whose client leaves between two events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from ragqa.serving.events import EventStream


def test_a_stream_with_nothing_to_say_sends_comments_until_it_has() -> None:
    async def served() -> list[bytes]:
        said, sent, ended, received = asyncio.Event(), list[bytes](), list[bool](), list[str]()

        async def events() -> AsyncGenerator[bytes, None]:
            await said.wait()
            yield b"data: late\n\n"

        async def receive() -> dict[str, Any]:
            received.append("http.request")
            if len(received) > 1:
                await asyncio.Event().wait()
            return {"type": received[-1]}

        async def send(message: Any) -> None:
            sent.append(message.get("body", b"head"))
            if b"waiting" in sent[-1]:
                said.set()

        await EventStream(events(), 0.01, lambda: ended.append(True))({"type": "http"}, receive, send)
        assert ended == [True]
        assert len(received) == 2
        return sent

    head, *comments, event, end = asyncio.run(served())
    assert set(comments) == {b": waiting\n\n"}
    assert (head, event, end) == (b"head", b"data: late\n\n", b"")


def test_nothing_is_asked_for_after_a_client_that_left_between_two_events() -> None:
    async def served() -> None:
        leaves, sent, made, ended = asyncio.Event(), list[bytes](), list[str](), list[bool]()

        async def events() -> AsyncGenerator[bytes, None]:
            try:
                for name in ("first", "second"):
                    made.append(name)
                    yield name.encode()
            finally:
                made.append("closed")

        async def receive() -> dict[str, Any]:
            await leaves.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message.get("body", b"head"))
            if sent[-1] == b"first":
                leaves.set()
                for _ in range(5):  # so that the one who waits for it is told
                    await asyncio.sleep(0)

        await EventStream(events(), 60, lambda: ended.append(True))({"type": "http"}, receive, send)
        assert (sent, made, ended) == ([b"head", b"first"], ["first", "closed"], [True])

    asyncio.run(served())
