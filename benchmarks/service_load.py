"""Clients of a running service: ``python -m benchmarks.service_load URL QUESTIONS ...``, a process of its own.

Closed: so many clients, each asking its next question when it has its answer. Open: so many questions a second, whatever
comes back. Every question is another one, and every response is held against what its question must give: the question
itself, most of the products found for it, and, of an exact title, the text. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

_PATIENCE: Final = 600.0  # a response that takes longer hangs


class Client:
    """A connection that asks one question at a time."""

    def __init__(self, url: str, settings: dict[str, Any]) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._settings = parts.hostname or "", parts.port or 80, settings
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, asked: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the response."""
        body = json.dumps({"question": asked["question"], "settings": self._settings}).encode()
        head = (
            f"POST /v1/ask HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(head.encode() + body)
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        answer = await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection") == "close":
            await self.close()
        return int(first.split(" ")[1]), headers, answer

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Tally:
    """What came back."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.seconds: list[float] = []  # of answers
        self.refused: list[float] = []  # seconds of refusals
        self.ends: list[float] = []
        self.hung = self.lost = self.wrong = self.abstained = 0
        self.no_retry_after = 0

    async def ask(self, client: Client, asked: dict[str, Any]) -> None:
        """Ask one question and hold the response against it."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(_PATIENCE):
                status, headers, body = await client.ask(asked)
        except TimeoutError:
            self.hung += 1
            return
        except (OSError, asyncio.IncompleteReadError):
            self.lost += 1
            await client.close()
            return
        took = time.perf_counter() - started
        self.statuses[status] += 1
        if status != 200:
            self.refused.append(took)
            self.no_retry_after += status == 503 and "retry-after" not in headers
            return
        self.seconds.append(took)
        self.ends.append(time.perf_counter())
        told = json.loads(body)
        self.abstained += told["abstained"]
        # In bfloat16 products that match alike may change places with others beside a question in its batch.
        same = {source["id"] for source in told["sources"]} & set(asked["sources"])
        own = told["question"] == asked["question"] and 2 * len(same) > len(asked["sources"])
        self.wrong += not own or asked["text"] not in (None, told["text"])

    def told(self, seconds: float) -> dict[str, Any]:
        """As JSON."""
        ordered = sorted(self.seconds)

        def quantile(share: float) -> float | None:
            return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 5) if ordered else None

        return {
            "answers": len(ordered),
            "seconds": round(seconds, 3),
            "answers_per_second": round(len(ordered) / seconds, 3),
            **{f"p{int(100 * share)}": quantile(share) for share in (0.5, 0.95, 0.99)},
            "longest": quantile(1.0),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "hung": self.hung,
            "lost": self.lost,
            "wrong": self.wrong,
            "abstained": self.abstained,
            "refused_longest": round(max(self.refused), 5) if self.refused else None,
            "refused_without_retry_after": self.no_retry_after,
        }


async def closed(
    url: str, settings: dict[str, Any], questions: Iterator[dict[str, Any]], clients: int, seconds: float
) -> dict[str, Any]:
    """So many clients for so many seconds, counted from when each has its first answer, and for two rounds at least."""
    tally, stopped = Tally(), asyncio.Event()
    begun = [asyncio.Event() for _ in range(clients)]

    async def go(first: asyncio.Event) -> None:
        client = Client(url, settings)
        while not stopped.is_set():
            await tally.ask(client, next(questions))
            first.set()
        await client.close()

    going = [asyncio.create_task(go(first)) for first in begun]
    for first in begun:
        await first.wait()
    since, before = time.perf_counter(), len(tally.ends)
    while time.perf_counter() < since + seconds or len(tally.ends) < before + 2 * clients:
        await asyncio.sleep(0.01)
        if sum(task.done() for task in going):
            break
    took = time.perf_counter() - since
    counted = slice(before, len(tally.ends))
    stopped.set()
    await asyncio.gather(*going)
    tally.seconds = tally.seconds[counted]
    return {"clients": clients} | tally.told(took)


async def open_(
    url: str, settings: dict[str, Any], questions: Iterator[dict[str, Any]], rate: float, seconds: float
) -> dict[str, Any]:
    """So many questions a second; afterwards, how soon one question by itself is answered as fast as before."""
    probe, before = Client(url, settings), Tally()
    for _ in range(5):
        await before.ask(probe, next(questions))
    usual = sorted(before.seconds)[len(before.seconds) // 2]
    tally, asking = Tally(), []
    idle: list[Client] = []

    async def one() -> None:
        client = idle.pop() if idle else Client(url, settings)
        await tally.ask(client, next(questions))
        idle.append(client)

    started = time.perf_counter()
    for number in itertools.count():
        at = started + number / rate
        if at >= started + seconds:
            break
        await asyncio.sleep(max(at - time.perf_counter(), 0))
        asking.append(asyncio.create_task(one()))
    ended = time.perf_counter()
    recovered = None
    while recovered is None and time.perf_counter() < ended + _PATIENCE:
        after = Tally()
        begun = time.perf_counter()
        await after.ask(probe, next(questions))
        if after.seconds and after.seconds[0] < 2 * usual:
            recovered = max(begun - ended, 0.0)
        elif not after.seconds:
            await asyncio.sleep(0.05)
    await asyncio.gather(*asking)
    for client in (probe, *idle):
        await client.close()
    within = sum(end <= ended for end in tally.ends)
    return {
        "offered_per_second": round(len(asking) / (ended - started), 3),
        "offered": len(asking),
        "answered_per_second": round(within / (ended - started), 3),
        "usual": round(usual, 5),
        "recovered_after": recovered if recovered is None else round(recovered, 3),
    } | tally.told(ended - started)


def main() -> int:
    """Run one load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("questions", type=Path, help="JSON: question, sources, and text where it is known")
    parser.add_argument("--first", type=int, default=0, help="questions to pass over")
    parser.add_argument("--settings", type=json.loads, default={}, help="of the requests, JSON")
    parser.add_argument("--seconds", type=float, default=5.0)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--clients", type=int)
    how.add_argument("--rate", type=float)
    chosen = parser.parse_args()
    listed = json.loads(chosen.questions.read_text("utf-8"))
    taken = itertools.islice(itertools.cycle(listed), chosen.first % len(listed), None)
    if chosen.clients:
        found = asyncio.run(closed(chosen.url, chosen.settings, taken, chosen.clients, chosen.seconds))
    else:
        found = asyncio.run(open_(chosen.url, chosen.settings, taken, chosen.rate, chosen.seconds))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
