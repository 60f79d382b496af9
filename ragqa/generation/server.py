"""Requests to a server, and all that can go wrong with one.

They go to the server itself: no proxy of the environment is used, no redirect followed, no ``.netrc`` read. What a server
says is bounded in time and size.
"""

from __future__ import annotations

import json
import math
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ragqa.errors import InputError, ServerError, first_line

if TYPE_CHECKING:
    import httpx2

KEY: Final = "OPENAI_API_KEY"
# Seconds: a prompt of a thousand tokens and an answer of 160 take a model of some billion parameters that long on a CPU.
TIMEOUT: Final = 60.0
RETRIES: Final = 3
# Seconds to find out that no machine answers at all.
_CONNECT: Final = 10.0
# Time-outs that a request takes at most, with all its attempts and however slowly its answer comes.
_WHOLE: Final = 3
# Seconds before the second attempt; each further one waits twice as long, less up to half of it by chance, so that those
# whom a server refused together do not come back together. Where it asks for more than the longest it is not waited for.
_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 30.0
# An answer of a few thousand tokens is some 10 kB, streamed some 1 MB.
_MOST_BYTES: Final = 8 * 2**20
# Of what a server says about an error.
_MOST_SAID: Final = 64 * 2**10
# Statuses that pass: too much to do, or not ready yet.
_PASSING: Final = (429, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Server:
    """Which server is asked, and how patiently.

    Attributes:
        url: where its API begins, such as ``http://localhost:8000/v1``.
        model: by the server's own name; None takes the only one it has.
        timeout: seconds that it may be silent; a request takes at most three times that.
        retries: how often a request is sent again where that may help: no connection, 429, 502, 503, 504.
        key: None takes ``$OPENAI_API_KEY``, if there is one. It is neither printed nor saved.

    Raises:
        InputError: one of them cannot be.
    """

    url: str
    model: str | None = None
    timeout: float = TIMEOUT
    retries: int = RETRIES
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", _checked(self.url))
        timeout: object = self.timeout
        most = threading.TIMEOUT_MAX / _WHOLE
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= most:
            raise InputError(f"the server's timeout must be a number of seconds above 0, not {timeout!r}")
        retries: object = self.retries
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise InputError(f"the server's retries must be a whole number of at least 0, not {retries!r}")
        key = (os.environ.get(KEY, "") if self.key is None else self.key).strip()
        if not key.isascii() or not key.isprintable() or " " in key:
            raise InputError(f"the server's key ({KEY}) has characters that no key has; it is not shown here")
        object.__setattr__(self, "key", key or None)


def as_server(server: str | Server | None, model: str | None) -> Server | None:
    """A server from its address, and its name for the model.

    Raises:
        InputError: a model is named beside a `Server`, which names its own, or beside none.
    """
    if isinstance(server, str):
        return Server(server, model)
    if model is not None:
        raise InputError("server_model goes with the server's address; a Server has it as its own `model`")
    return server


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        fine = fine and url.isprintable() and " " not in url and not parts.query and not parts.fragment
        named = parts.username is not None or parts.password is not None
    except (ValueError, TypeError, AttributeError):
        fine = named = False
    if named:
        # It is not repeated: it holds a password.
        raise InputError(f"the server's address holds a name or password; give a key in {KEY} in their place")
    if not fine:
        raise InputError(f"{url!r}: no server's address; give one such as http://localhost:8000/v1")
    return url.rstrip("/")


class Call:
    """One request with all its attempts: how long it may take, and a way to end it from another thread.

    httpx2 limits each read alone: a server that sends a byte a second would hold a request for ever.

    Args:
        seconds: from now.
        most: when it ends whatever else is allowed, by `time.monotonic`; None for no such time.
    """

    def __init__(self, seconds: float, most: float | None = None) -> None:
        self._until = time.monotonic() + seconds
        self._most = math.inf if most is None else most
        self._socket: socket.socket | None = None
        self._ended = threading.Event()

    @property
    def left(self) -> float:
        """Seconds; 0 where it was ended."""
        return 0.0 if self._ended.is_set() else max(min(self._until, self._most) - time.monotonic(), 0.0)

    def allow(self, seconds: float) -> None:
        """So much time is left, counted from now."""
        self._until = time.monotonic() + seconds

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than until it is ended."""
        self._ended.wait(seconds)

    def end(self) -> None:
        """Whoever waits for the server does not wait any longer."""
        self._ended.set()
        if self._socket is not None:
            with suppress(OSError):  # it may be closed by now
                # Not the method of a socket with TLS: that takes its state away from under the one who reads.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def watch(self, event: str, told: Mapping[str, Any]) -> None:
        """Takes hold of the connection; httpx2 calls it (its "trace" extension)."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            stream = told["return_value"]
            self._socket, read = stream.get_extra_info("socket"), stream.read
            stream.read = lambda most, timeout=None: self._read(read, most, timeout)

    def _read(self, read: Callable[[int, float], bytes], most: int, timeout: float | None) -> bytes:
        left = self.left
        if not left:
            raise TimeoutError
        return read(most, left if timeout is None else min(left, timeout))


class PassingError(ServerError):
    """Another attempt may help, after so many seconds where the server told."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class RefusedError(ServerError):
    """The server does not take the request: with which status, and what it said."""

    def __init__(self, message: str, status: int, said: str) -> None:
        super().__init__(message)
        self.status, self.said = status, said


class Connection:
    """Sends requests to one server, from any number of threads, and reads its answers."""

    def __init__(self, server: Server) -> None:
        import httpx2

        self.server = server
        headers = {"accept-encoding": "identity", "user-agent": "ragqa"}
        if server.key:
            headers["authorization"] = f"Bearer {server.key}"
        self._limits = httpx2.Timeout(server.timeout, connect=min(_CONNECT, server.timeout))
        # A connection is used for one request: what `Call` holds of it is that request's alone.
        self._client = httpx2.Client(
            headers=headers,
            timeout=self._limits,
            trust_env=False,
            verify=httpx2.create_ssl_context(),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
        )

    def call(self, until: float | None = None) -> Call:
        """A request whose time begins now, and ends then at the latest."""
        return Call(_WHOLE * self.server.timeout, until)

    def whole(self, call: Call, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON that is answered to a POST request with a JSON body, or to a GET request without one.

        Raises:
            ServerError: there is none. RefusedError where the request is at fault.
        """
        attempt = 0
        while True:
            try:
                return self.read_json(b"".join(self.attempt(call, path, body)), path)
            except PassingError as error:
                self.again(call, attempt, error)
            attempt += 1

    def again(self, call: Call, attempt: int, error: PassingError) -> None:
        """Wait for the next attempt; raises the error where there is none."""
        pause = error.after
        if pause is None:
            pause = _PAUSE * 2**attempt * random.uniform(0.5, 1.0)  # noqa: S311  (no secret)
        if attempt >= self.server.retries or pause > min(_LONGEST_PAUSE, call.left):
            raise ServerError(f"{error}; tried {attempt + 1} times" if attempt else str(error)) from error
        call.pause(pause)

    def attempt(self, call: Call, path: str, body: Mapping[str, Any] | None = None) -> Generator[bytes, None, None]:
        """What is answered to one attempt, in parts as they come; see `whole`."""
        import httpx2

        where, patience = f"{self.server.url}{path}", self.server.timeout
        method = "GET" if body is None else "POST"
        try:
            with self._client.stream(method, where, json=body, extensions={"trace": call.watch}) as response:
                if response.status_code != httpx2.codes.OK:
                    raise self._refusal(where, response)
                size = 0
                for part in response.iter_bytes():
                    size += len(part)
                    if size > _MOST_BYTES:
                        raise ServerError(f"{where}: answers more than {_MOST_BYTES:,} bytes; is the address right?")
                    yield part
        except httpx2.ConnectTimeout as error:
            raise PassingError(f"{where}: no machine answers there; is the address right?") from error
        except (httpx2.TimeoutException, TimeoutError) as error:
            raise ServerError(
                f"{where}: no whole answer in time (silent for {patience:g} s, or {_WHOLE * patience:g} s in all); raise "
                "--server-timeout, or lower --max-new-tokens"
            ) from error
        except httpx2.ConnectError as error:
            why = self.quoted(str(error))
            raise PassingError(f"{where}: no server answers there ({why}); start it, or name another") from error
        except httpx2.TransportError as error:
            why = self.quoted(str(error))
            raise PassingError(f"{where}: the connection broke off ({why}); is the server still up?") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
            raise ServerError(f"{where}: cannot be asked ({type(error).__name__}); is the address right?") from error

    def _refusal(self, where: str, response: httpx2.Response) -> ServerError:
        """What a status other than 200 means."""
        status, said = response.status_code, self._said(response)
        told = f"{where}: answered {status}" + (f" ({said})" if said else "")
        if status in _PASSING:
            return PassingError(f"{told}: it has too much to do, or is not ready yet; wait a little", _after(response))
        if status in (401, 403):
            does = f"does not take the key in {KEY}" if self.server.key else f"wants a key; set {KEY}"
            return ServerError(f"{told}: it {does}")
        if response.is_redirect:
            return ServerError(f"{told}: a redirect, which is not followed; name the address that it leads to")
        if status >= 500:
            return ServerError(f"{told}: it failed; its own log says more")
        return RefusedError(told, status, said)

    def _said(self, response: httpx2.Response) -> str:
        body = b""
        for part in response.iter_bytes():
            body += part
            if len(body) > _MOST_SAID:
                break
        try:
            told = json.loads(body)
        except (ValueError, RecursionError):
            return self.quoted(body.decode("utf-8", "replace"))
        for name in ("error", "message", "detail"):
            told = told.get(name, told) if isinstance(told, dict) else told
        return self.quoted(told if isinstance(told, str) else json.dumps(told))

    def quoted(self, text: str) -> str:
        """The beginning of what a server says: one line, nothing that a screen would obey, and not the key."""
        if self.server.key:
            text = text.replace(self.server.key, "***")
        return first_line(ValueError(" ".join("".join(c if c.isprintable() else " " for c in text).split())))

    def read_json(self, data: bytes, path: str) -> Any:
        """What a server's JSON says.

        Raises:
            ServerError: it is none.
        """
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            begins = self.quoted(data[:1000].decode("utf-8", "replace"))[:60]
            raise ServerError(
                f"{self.server.url}{path}: answered something else than JSON ({begins!r} ...); a server's address ends in "
                "/v1, such as http://localhost:8000/v1"
            ) from error


def _after(response: httpx2.Response) -> float | None:
    """Seconds until a server wants to be asked again, where it says so in one of the two ways that are allowed."""
    told = response.headers.get("retry-after", "").strip()
    if told.isascii() and told.isdigit():
        return float(told[:9])
    try:
        return max((parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None
