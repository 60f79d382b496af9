"""The server process: its socket, its signals, its patience with slow clients."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import socket
import sys
from types import FrameType
from typing import Any, Final

import uvicorn

from ragqa.errors import InputError
from ragqa.serving.guard import Guard
from ragqa.serving.limits import ServiceSettings
from ragqa.serving.service import Service

if importlib.util.find_spec("httptools"):
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as _Protocol
else:
    from uvicorn.protocols.http.h11_impl import H11Protocol as _Protocol  # type: ignore[assignment]

_MOST: Final = 65_535
_LONGEST_HEAD: Final = 65_536  # bytes
_LOG: Final = logging.getLogger("ragqa.serving")


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        InputError: the port is in use, or the address is not this machine's.
    """
    if not 0 <= port <= _MOST:
        raise InputError(f"--port {port}: a port is from 0, which takes any that is free, to {_MOST}")
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, number)
    except OSError as error:
        raise InputError(f"--host {host}: {error.strerror or 'no such address'}") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1024)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise InputError(
            f"{host}:{port}: {error.strerror}; choose another --port, or 0 for any that is free"
        ) from error
    return listening


def patient_for(head: float, taking: float) -> type[asyncio.Protocol]:
    """Uvicorn's protocol that closes the connections of clients too slow.

    Args:
        head: seconds within which the head of a connection's next request must be there once it has begun.
        taking: seconds within which a client must take what waits for it.
    """

    class Patient(_Protocol):
        _late: asyncio.TimerHandle | None = None
        _head = 0
        _stuck: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._late = self.loop.call_later(head, transport.abort)

        def data_received(self, data: bytes) -> None:
            if self._between():
                self._late = self._late or self.loop.call_later(head, self.transport.abort)
                self._head += len(data)
            super().data_received(data)
            if not self._between():
                _cancel(self._late)
                self._late, self._head = None, 0
            elif self._head > _LONGEST_HEAD:
                self.transport.abort()

        def _between(self) -> bool:
            """Whether no request is being answered."""
            return self.cycle is None or self.cycle.response_complete

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stuck = self._stuck or self.loop.call_later(taking, self.transport.abort)

        def resume_writing(self) -> None:
            _cancel(self._stuck)
            self._stuck = None
            super().resume_writing()

        def timeout_keep_alive_handler(self) -> None:
            self.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            _cancel(self._late)
            _cancel(self._stuck)
            super().connection_lost(exc)

    return Patient


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


class Server(uvicorn.Server):
    """Uvicorn, but SIGTERM and SIGINT first let everything accepted be finished while new requests are told 503."""

    def __init__(self, app: Guard, service: Service) -> None:
        limits: ServiceSettings = service.limits
        super().__init__(
            uvicorn.Config(
                app,
                http=patient_for(limits.header_timeout, limits.send_timeout),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=limits.max_connections,
                timeout_keep_alive=limits.keep_alive,
                timeout_graceful_shutdown=5,
            )
        )
        self._service = service
        self._draining: asyncio.Task[None] | None = None
        service.on_failure = self._stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  (as Python calls it)
        """Drain at the first signal, end at the second."""
        loop = self._service.loop
        if loop is None or self._draining is not None or self.should_exit:
            self.should_exit = self.force_exit = True
            return
        loop.call_soon_threadsafe(self.drain)

    def drain(self) -> None:
        """Finish what was accepted, then end. To be called in the event loop."""
        if self._draining is None:
            _LOG.info("finishing what was accepted; new requests are refused")
            self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        await self._service.drain()
        self._stop()

    def _stop(self) -> None:
        self.should_exit = True


def log_to_stderr(quiet: bool) -> None:
    """A line a request and event on stderr; warnings alone where that is too much."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name in ("ragqa.serving", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING if quiet or name != "ragqa.serving" else logging.INFO)
