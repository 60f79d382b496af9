"""Milvus Lite's own server, in a process of its own: what is said to it goes over gRPC."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragqa import Answerer, build_index, build_milvus
from tests.conftest import DEMO


class LiteServer:
    """A server that can be killed and started again where it was.

    Attributes:
        port: on loopback.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-u", "-m", "milvus_lite", "server", "--data-dir", str(self._folder)]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout
        assert "listening" in self._process.stdout.readline()

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.communicate()

    def uri(self, name: str, timeout: float = 10) -> str:
        return f"milvus://127.0.0.1:{self.port}/{name}?timeout={timeout:g}"


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiteServer]:
    running = LiteServer(tmp_path_factory.mktemp("milvus"))
    yield running
    running.kill()


@pytest.fixture(scope="package")
def few(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Index folders of the first 20, and of the first 30, products of the demonstration catalogue."""
    folder = tmp_path_factory.mktemp("few")
    for count in (20, 30):
        build_index(DEMO, folder / str(count), limit=count, device="cpu")
    return {count: folder / str(count) for count in (20, 30)}


@pytest.fixture(scope="package")
def here(demo_index: Path) -> Answerer:
    """The demonstration index on disk."""
    return Answerer.from_pretrained(demo_index, device="cpu")


@pytest.fixture(scope="package")
def there(server: LiteServer, demo_index: Path) -> Answerer:
    """The same in Milvus, as "demo". Tests must not change it."""
    build_milvus(demo_index, server.uri("demo"))
    return Answerer.from_pretrained(server.uri("demo"), device="cpu")
