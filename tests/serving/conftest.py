"""Real servers on loopback, over the demonstration index and the real models, loaded once."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ragqa import Answerer
from ragqa.serving import compare
from ragqa.serving.app import create_app
from ragqa.serving.compare import Comparison
from ragqa.serving.limits import ServiceSettings
from ragqa.serving.server import Server, open_socket
from ragqa.serving.service import Service

LT350 = "What is the description of Lumen Trail Headlamp LT-350?"


@dataclass
class Serving:
    """A running server."""

    service: Service
    server: Server
    url: str
    thread: threading.Thread
    client: httpx2.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx2.Client(base_url=self.url, timeout=60)

    @property
    def address(self) -> tuple[str, int]:
        url = httpx2.URL(self.url)
        return url.host, url.port or 0

    def ask(self, question: str, **more: Any) -> httpx2.Response:
        return self.client.post("/v1/ask", json={"question": question, **more})

    def metric(self, name: str) -> float:
        """The sum of a metric's samples, whatever their labels."""
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.split("{")[0].split(" ")[0] == name)


@contextmanager
def serving(
    answerer: Answerer, keys: Sequence[str] = (), comparison: Comparison | None = None, **limits: Any
) -> Iterator[Serving]:
    """A server in a thread, ready; it has drained at the end."""
    service = Service(lambda: answerer, ServiceSettings(**limits))
    further = [compare.routes(service, comparison)] if comparison else []
    server = Server(create_app(service, keys, further), service)
    with open_socket("127.0.0.1", 0) as listening:
        host, port = listening.getsockname()
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        here = Serving(service, server, f"http://{host}:{port}", thread)
        try:
            until(lambda: service.state == "ready" and server.started)
            yield here
        finally:
            here.client.close()
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


def until(condition: Callable[[], bool], timeout: float = 60) -> None:
    """Wait for something that is to come soon."""
    waited = threading.Event()
    for _ in range(int(timeout / 0.005)):
        if condition():
            return
        waited.wait(0.005)
    raise AssertionError("it did not come")


@pytest.fixture(scope="session")
def answerer(demo_index: Path) -> Answerer:
    """On the demonstration index, with its generator loaded."""
    answerer = Answerer.from_pretrained(demo_index)
    assert answerer.generator
    return answerer


@pytest.fixture(scope="session")
def served(answerer: Answerer) -> Iterator[Serving]:
    """A server as it is by default."""
    with serving(answerer) as here:
        yield here


@pytest.fixture(scope="session")
def titles(answerer: Answerer) -> list[str]:
    """Titles that one product each has."""
    found = [product.title for product in answerer.index.store]
    return [title for title in found if found.count(title) == 1]


class Gate:
    """An answerer whose search waits at a gate."""

    def __init__(self, answerer: Answerer) -> None:
        self.open = threading.Event()
        self.asked: list[str] = []
        self.batches: list[int] = []
        self.answerer = copy.copy(answerer)

        def retrieve(questions: Sequence[str], **settings: Any) -> Any:
            if questions == ["?"]:  # the service's own, when it starts
                return answerer.retrieve(questions, **settings)
            self.batches.append(len(questions))
            self.asked += questions
            assert self.open.wait(60)
            return answerer.retrieve(questions, **settings)

        self.answerer.retrieve = retrieve  # type: ignore[method-assign]


@pytest.fixture
def gate(answerer: Answerer) -> Iterator[Gate]:
    gate = Gate(answerer)
    yield gate
    gate.open.set()
