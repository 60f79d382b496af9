"""Signals, without a process."""

from __future__ import annotations

import asyncio
import signal

import pytest

from ragqa import Answerer
from ragqa.errors import InputError
from ragqa.serving.app import create_app
from ragqa.serving.server import Server, open_socket
from ragqa.serving.service import Service


@pytest.fixture
def server() -> Server:
    def load() -> Answerer:
        raise AssertionError("nothing is loaded")

    service = Service(load)
    return Server(create_app(service), service)


def test_a_signal_before_anything_is_accepted_ends_at_once(server: Server) -> None:
    server.handle_exit(signal.SIGTERM, None)
    assert server.should_exit
    assert server.force_exit


def test_the_first_signal_drains_and_the_second_ends(server: Server) -> None:
    async def signalled() -> None:
        server._service.loop = asyncio.get_running_loop()
        server.handle_exit(signal.SIGTERM, None)
        await asyncio.sleep(0)
        draining = server._draining
        assert draining is not None
        server.drain()
        assert server._draining is draining
        assert not server.force_exit
        server.handle_exit(signal.SIGTERM, None)
        assert server.force_exit
        await draining
        assert server._service.state == "draining"

    asyncio.run(signalled())


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(InputError, match=f"--port {port}: a port is from 0"):
        open_socket("127.0.0.1", port)


def test_a_host_that_is_no_address_is_refused() -> None:
    with pytest.raises(InputError, match=r"^--host 999\.1\.1\.1: "):
        open_socket("999.1.1.1", 0)
