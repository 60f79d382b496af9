"""What goes wrong with a server, and is said."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ragqa.errors import InputError, ServerError
from ragqa.generation.completions import Completions
from ragqa.generation.generator import Generator
from ragqa.generation.remote import RemoteGenerator, connect
from ragqa.generation.server import Connection, Server, as_server
from ragqa.generation.sources import Writing
from tests.generation.conftest import asked_by, told_by

KEY = "sk-a-secret-of-some-length"


@pytest.fixture(scope="module")
def nobody() -> str:
    """Where no server is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


FAILURES = {
    "slow": "no whole answer in time",
    "bytes-header": "no whole answer in time",
    "bytes-body": "no whole answer in time",
    "bytes-stream": "no whole answer in time",
    "endless": "answers more than",
    "drops": "broke off",
    "drops-at-once": "broke off",
    "busy": r"answered 503 \(Loading model\).*tried 2 times",
    "later": r"answered 429 \(Come back tomorrow\).*wait a little",
    "broken": r"answered 500 \(CUDA out of memory\\n  at line 7\)|answered 500 \(CUDA out of memory at line 7\)",
    "long": r"answered 400 \(This model's maximum context length is 8 tokens\).*does the prompt fit",
    "redirect": "answered 307.*redirect",
    "key": r"answered 401 \(Incorrect API key provided: None\).*set OPENAI_API_KEY",
    "nothing-of-that-name": "it has 'tiny', 'tiny-all', not 'nothing-of-that-name'; name one with --server-model",
    "text": "something else than JSON.*Hello!",
    "html": r"something else than JSON \('<html><body> \[31mIt works",
    "list": "its answer is a list",
    "null": "its answer is a NoneType",
    "no-choices": "has no choices",
    "odd-choices": "has no choices",
    "odd-text": "the text of its answer is none",
    "deep": "something else than JSON",
}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", FAILURES)
def test_what_goes_wrong_is_one_line_in_time_and_leaves_nothing_behind(
    name: str, streamed: bool, generator: Generator, remote: Callable[..., RemoteGenerator], server_url: str
) -> None:
    patience = 0.2 if "in time" in FAILURES[name] else 5.0
    asks = remote(name, timeout=patience, retries=1)
    (prompt,), _ = asked_by(generator, "what goes wrong")
    threads, started = set(threading.enumerate()), time.monotonic()
    with pytest.raises(ServerError, match=FAILURES[name]) as raised:
        list(asks.stream(prompt, Writing(12))) if streamed else asks.free([prompt, prompt], Writing(12))
    assert time.monotonic() - started < 3 * patience + 1
    assert set(threading.enumerate()) == threads
    assert str(raised.value).startswith(f"{server_url}/completions: ")
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(("name", "said"), [("stream-breaks", "broke off"), ("stream-fails", "the engine died")])
def test_a_stream_that_breaks_off_is_not_begun_anew(
    name: str, said: str, generator: Generator, remote: Callable[..., RemoteGenerator], server_url: str
) -> None:
    (prompt,), _ = asked_by(generator, "breaks off")
    pieces: list[Any] = []
    with pytest.raises(ServerError, match=said):
        pieces.extend(remote(name).stream(prompt, Writing(24)))
    assert told_by(server_url, "state")[name] == 1


def test_one_failure_ends_all_that_were_asked_at_once(
    generator: Generator, remote: Callable[..., RemoteGenerator]
) -> None:
    prompts, _ = asked_by(generator, *(f"question {i}" for i in range(5)), "a trap", *(f"q {i}" for i in range(9)))
    asks = remote("trap", timeout=15.0)
    threads, started = set(threading.enumerate()), time.monotonic()
    with pytest.raises(ServerError, match="It snapped"):
        asks.free(prompts, Writing(12))
    assert time.monotonic() - started < 2.0
    assert set(threading.enumerate()) == threads


def test_a_request_can_be_ended_from_another_thread(server_url: str) -> None:
    completions = Completions(Server(server_url, "slow", timeout=15.0))
    call, started = completions.call(), time.monotonic()
    ending = threading.Timer(0.2, call.end)
    ending.start()
    with pytest.raises(ServerError, match="broke off"):
        completions.complete(call, {"prompt": "wait", "max_tokens": 1})
    assert time.monotonic() - started < 2.0
    ending.join()


def test_where_no_server_is_that_is_said(nobody: str, served_model: Path) -> None:
    with pytest.raises(ServerError, match=r"no server answers there .*start it, or name another; tried 2 times"):
        connect(Server(nobody, retries=1), str(served_model))
    asks, _ = connect(Server(nobody, "tiny", retries=0), str(served_model))
    prompts, _ = asked_by(asks, "anybody?", "there?")
    with pytest.raises(ServerError, match=f"^{nobody}/completions: no server answers there"):
        asks.free(prompts, Writing(12))


@pytest.mark.parametrize(("name", "least"), [("tiny-twice", 0.3), ("tiny-once", 1.0)])
def test_what_passes_is_waited_for_as_long_as_the_server_says(
    name: str, least: float, generator: Generator, remote: Callable[..., RemoteGenerator]
) -> None:
    (prompt,), _ = asked_by(generator, "once more")
    started = time.monotonic()
    assert remote(name).free([prompt], Writing(12))[0].text == generator.free([prompt], Writing(12))[0].text
    assert least <= time.monotonic() - started < 3


def test_the_only_model_needs_no_name(server_url: str, served_model: Path) -> None:
    one = server_url.replace("/v1", "/one/")
    asks, source = connect(Server(one), str(served_model))
    (prompt,), _ = asked_by(asks, "which model")
    asks.free([prompt], Writing(3))
    assert told_by(server_url, "asked")[-1]["model"] == "tiny"
    assert source.folder == served_model
    assert asks.max_positions == 4096
    with pytest.raises(ServerError, match="has 'tiny', 'tiny-all'; name one with --server-model"):
        connect(Server(server_url), str(served_model))
    with pytest.raises(ServerError, match="answered no list of models"):
        connect(Server(server_url.replace("/v1", "/odd")), str(served_model))
    with pytest.raises(ServerError, match="there is no such page; a server's address ends in /v1"):
        connect(Server(server_url.replace("/v1", "/"), "tiny"), str(served_model))[0].free([prompt], Writing(3))


def test_the_key_is_sent_and_never_told(
    server_url: str, served_model: Path, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    server = Server(server_url, "key")
    assert KEY not in repr(server)
    asks, _ = connect(server, str(served_model))
    (prompt,), _ = asked_by(generator, "secret")
    with pytest.raises(ServerError, match=r"Bearer \*\*\*.*does not take the key in OPENAI_API_KEY") as raised:
        asks.free([prompt], Writing(3))
    assert told_by(server_url, "asked")[-1]["key"] == f"Bearer {KEY}"
    error: BaseException | None = raised.value
    while error:
        assert KEY not in str(error)
        error = error.__cause__
    with pytest.raises(InputError, match="is not shown here") as odd:
        Server(server_url, key=f"{KEY}\nx: y")
    assert KEY not in str(odd.value)
    connect(Server(server_url, "tiny", key=""), str(served_model))[0].free([prompt], Writing(3))
    assert told_by(server_url, "asked")[-1]["key"] is None


@pytest.mark.parametrize(
    "bad",
    ["", "localhost:8000/v1", "ftp://localhost/v1", "http://", "http:///v1", "http://host:port/v1", "http://host:99999",
     "http://host:0/v1", "http://host/v1?key=1", "http://host/v1#a", "http://ho st/v1", "http://host/v1\n", "http://[::1/v1"],
)  # fmt: skip
def test_what_is_no_address_is_refused(bad: str) -> None:
    with pytest.raises(InputError, match="no server's address; give one such as http://localhost:8000/v1"):
        Server(bad)


def test_an_address_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError, match="holds a name or password") as raised:
        Server("https://me:hunter2@host/v1")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("bad", [{"timeout": 0}, {"timeout": float("nan")}, {"retries": -1}, {"retries": True}])
def test_impatience_without_end_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"the server's {next(iter(bad))} must be"):
        Server("http://host/v1", **bad)


def test_a_server_has_its_models_name_itself() -> None:
    server = Server("http://host/v1", "its own")
    assert as_server(server, None) is server
    assert as_server("http://host/v1", "another") == Server("http://host/v1", "another")
    for given in (server, None):
        with pytest.raises(InputError, match="server_model goes with the server's address"):
            as_server(given, "another")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (httpx2.ConnectTimeout("x"), "no machine answers there; is the address right"),
        (httpx2.InvalidURL("x"), r"cannot be asked \(InvalidURL\); is the address right"),
        (httpx2.DecodingError("x"), r"cannot be asked \(DecodingError\); is the address right"),
    ],
)
def test_an_address_that_cannot_be_asked_is_told(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(*_: Any, **__: Any) -> None:
        raise error

    connection = Connection(Server("http://host/v1", retries=0))
    monkeypatch.setattr(connection._client, "stream", stream)
    with pytest.raises(ServerError, match=f"^http://host/v1/completions: {said}"):
        connection.whole(connection.call(), "/completions", {})


def test_of_an_error_page_without_an_end_only_the_beginning_is_read() -> None:
    parts = iter([b"No\n", *[b"x" * 2**12] * 100])
    said = Connection(Server("http://host/v1"))._said(httpx2.Response(400, content=parts))
    assert said.startswith("No xxxx")
    assert len(list(parts)) == 100 - 16
