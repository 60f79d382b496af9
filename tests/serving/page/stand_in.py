"""A server in the place of the real one, for what that one hardly ever says: failures, hostile texts, slow streams.

It serves the page's own files with the same headers, and what a test has put in `replies`.
"""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

PAGE = ROOT / "ragqa" / "serving" / "page"
POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
KINDS = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

# Status, headers, parts of the body.
Reply = tuple[int, dict[str, str], Iterable[bytes]]


class StandIn(ThreadingHTTPServer):
    """Replies by path; each a function of the request's body and headers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies: dict[str, Callable[[dict[str, Any], dict[str, str]], Reply]] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/"


def as_json(content: Any, status: int = 200, **headers: str) -> Reply:
    """A JSON response; of a problem document where the status is one of an error."""
    kind = "application/json" if status < 400 else "application/problem+json"
    return status, {"Content-Type": kind} | headers, [json.dumps(content).encode()]


def as_events(*events: tuple[str, Any]) -> Reply:
    """A response of server-sent events, each sent by itself."""
    return 200, {"Content-Type": "text/event-stream"}, [event(*one) for one in events]


def event(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def problem(status: int, detail: str = "", **headers: str) -> Reply:
    return as_json({"type": "about:blank", "title": "A title", "status": status, "detail": detail}, status, **headers)


class _Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        file: Path = PAGE / ("index.html" if path == "/" else path.removeprefix("/static/"))
        if path in self.server.replies:
            self._send(*self.server.replies[path]({}, dict(self.headers)))
        elif file.is_file():
            self._send(200, {"Content-Type": KINDS[file.suffix]}, [file.read_bytes()])
        else:
            self._send(*problem(404))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        reply = self.server.replies.get(self.path)
        self._send(*(reply(body, dict(self.headers)) if reply else problem(404)))

    def _send(self, status: int, headers: dict[str, str], parts: Iterable[bytes]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Security-Policy": POLICY, "Cache-Control": "no-store"} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for part in parts:
                self.wfile.write(part)
                self.wfile.flush()
        except OSError:
            pass  # the page has gone away

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def standing_in() -> Iterator[StandIn]:
    server = StandIn()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
