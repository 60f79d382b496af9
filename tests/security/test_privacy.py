"""What is asked stays on this machine, and out of its logs."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ragqa import Answerer, Server, update_index
from ragqa.errors import RagqaError
from ragqa.progress import show_progress
from tests.conftest import DEMO, ROOT

SECRET = "Zyxwvut"
QUESTIONS = [
    f"What is the description of the Lumen headlamp LT-350 {SECRET}?",
    f"{SECRET} headlamp",
    SECRET * 900,
    SECRET,
]


@pytest.fixture(scope="module")
def answerer(demo_index: Path, tiny_model: Path) -> Answerer:
    return Answerer.from_pretrained(demo_index, generator=str(tiny_model), device="cpu")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whatever would leave this machine, or look up a name to do so."""
    tried: list[str] = []

    def refuse(*about: Any, **_: Any) -> Any:
        tried.append(repr(about[1:2]))
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex", "sendto", "sendmsg"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    return tried


@pytest.fixture
def everything_said(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """What was logged at any level and printed on stdout or stderr."""
    caplog.set_level(logging.DEBUG)
    show_progress(True)

    def said() -> str:
        out, err = capfd.readouterr()
        return "\n".join([out, err, *(record.getMessage() for record in caplog.records)])

    yield said
    show_progress(False)


def ask_in_all_ways(answerer: Answerer) -> None:
    for settings in ({}, {"decoding": "free", "max_new_tokens": 8}, {"decoding": "copy"}, {"lexical": "rank-bm25"}):
        for question in QUESTIONS:
            try:
                answerer.ask(question, min_confidence=0.0, **settings)
                list(answerer.stream(question, min_confidence=0.0, **settings))
            except RagqaError as error:
                assert SECRET not in str(error)
    answerer.ask_many(QUESTIONS[:2], min_confidence=0.0)


def test_asking_reaches_for_no_network(answerer: Answerer, no_network: list[str]) -> None:
    ask_in_all_ways(answerer)
    assert no_network == []


def test_updating_an_index_reaches_for_no_network(own_index: Path, no_network: list[str]) -> None:
    update_index(own_index, DEMO)
    assert no_network == []


def test_no_question_is_logged_or_printed(answerer: Answerer, everything_said: Any) -> None:
    ask_in_all_ways(answerer)
    assert SECRET not in everything_said()


_OPENED = """
import socket, sys
tried = []
def refuse(*about, **_):
    tried.append(about)
    raise OSError("no network")
socket.socket.connect = socket.getaddrinfo = refuse
from ragqa import Answerer
answer = Answerer.from_pretrained(sys.argv[1], device="cpu").ask("Lumen headlamp LT-350", min_confidence=0.0)
assert answer.text
print(len(tried))
"""


def test_a_saved_answerer_opens_and_answers_without_the_hub(answerer: Answerer, tmp_path: Path) -> None:
    answerer.save_pretrained(tmp_path / "saved")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", _OPENED, str(tmp_path / "saved")],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr[-500:]


class _Completions(BaseHTTPRequestHandler):
    """Answers anything with the same completion."""

    heard: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.heard.append(self.rfile.read(int(self.headers["content-length"])).decode())
        body = json.dumps({"choices": [{"text": " A lamp.", "finish_reason": "stop"}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def test_a_server_that_was_named_is_the_only_one_that_is_asked_and_its_requests_are_not_logged(
    demo_index: Path, tiny_model: Path, everything_said: Any
) -> None:
    with HTTPServer(("127.0.0.1", 0), _Completions) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        server = Server(f"http://127.0.0.1:{served.server_port}/v1", "tiny", key="not-to-be-told")
        remote = Answerer.from_pretrained(demo_index, generator=str(tiny_model), server=server, device="cpu")
        answer = remote.ask(QUESTIONS[0], decoding="free", min_confidence=0.0)
        served.shutdown()
    assert answer.text == "A lamp."
    assert any(SECRET in body for body in _Completions.heard)  # whoever names a server sends it the question
    said = everything_said()
    assert SECRET not in said
    assert "not-to-be-told" not in said
