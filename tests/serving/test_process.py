"""The command as a process: its signals, its status, one line for every mistake."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from ragqa.cli import main
from ragqa.commands import serve
from ragqa.errors import IndexNotFoundError, InputError
from tests.conftest import ROOT
from tests.serving.conftest import LT350, until


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`ragqa serve` at a free port; its process and address."""
    command = [sys.executable, "-m", "ragqa.serve", *arguments, "--port", "0", "--decoding", "copy"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ
    ) as running:
        try:
            assert running.stdout
            url = running.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
            yield running, url
        finally:
            running.kill()


def ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz").status_code == 200
    except httpx2.ConnectError:
        return False


def test_sigterm_finishes_what_was_accepted_and_refuses_the_rest(demo_index: Path, titles: list[str]) -> None:
    with process(str(demo_index), "--max-batch", "1") as (running, url):
        until(lambda: ready(url))
        # So much that it is still at work when the signal comes.
        body = {"questions": (titles * 4)[:64], "settings": {"top_k": 50}}
        statuses: list[int] = []

        def ask() -> None:
            statuses.append(httpx2.post(f"{url}/v1/ask", json=body, timeout=60).status_code)

        asking = threading.Thread(target=ask)
        with httpx2.Client(base_url=url, timeout=60) as client:
            asking.start()
            until(lambda: "ragqa_queue_length 0.0" not in client.get("/metrics").text)
            running.send_signal(signal.SIGTERM)
            until(lambda: client.get("/readyz").status_code == 503)
            refused = client.post("/v1/ask", json={"question": LT350})
            assert (refused.status_code, refused.json()["code"]) == (503, "draining")
            assert client.get("/healthz").status_code == 200
        asking.join()
        assert running.wait(60) == 0
        assert running.stderr
        said = running.stderr.read()
    assert statuses == [200]
    assert "finishing what was accepted; new requests are refused" in said
    assert said.splitlines()[-1] == "stopped"
    assert titles[0] not in said


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["serve", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_a_mistake_is_one_line(demo_index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = str(demo_index)
    assert "no such index; build it: python -m ragqa.build_index" in fails([str(tmp_path / "no")], capsys)
    assert "no finished index in this folder" in fails([str(tmp_path)], capsys)
    assert "max_queue must be a whole number of at least 1" in fails([index, "--max-queue", "0"], capsys)
    assert "top_k must be a whole number of at least 1" in fails([index, "--top-k", "0"], capsys)
    assert "cannot be read" in fails([index, "--api-key-file", str(tmp_path / "no")], capsys)
    assert "--port 65536: a port is from 0, which takes any that is free, to 65535" in fails(
        [index, "--port", "65536"], capsys
    )
    assert "--server-model: there is no server" in fails([index, "--port", "0", "--server-model", "x"], capsys)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = fails([index, "--port", str(port)], capsys)
        assert told == (
            f"error: 127.0.0.1:{port}: Address already in use; choose another --port, or 0 for any that is free"
        )


def test_what_shows_when_the_models_are_loaded_is_one_line_too(
    demo_index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(demo_index), "--port", "0", "--generator", "no/such", "-q"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no/such: not in the Hub's cache")


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn", "prometheus_client"])
def test_a_package_that_is_missing_is_named_with_the_extra(
    missing: str, demo_index: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert fails([str(demo_index)], capsys) == (
        f"error: the service needs the package {missing}; install it with: pip install 'ragqa[serve]'"
    )


@contextmanager
def listening(host: str, port: int) -> Iterator[SimpleNamespace]:
    """No socket, though it has an address."""
    yield SimpleNamespace(getsockname=lambda: (host, port))


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The statuses with which the process was left at once; what is to be served is served no time."""
    statuses: list[int] = []
    monkeypatch.setattr("ragqa.serving.server.open_socket", listening)
    monkeypatch.setattr("ragqa.serving.server.Server.run", lambda server, sockets: None)
    monkeypatch.setattr("ragqa.serving.server.log_to_stderr", lambda quiet: None)
    monkeypatch.setattr(sys, "setswitchinterval", lambda seconds: None)
    monkeypatch.setattr(os, "_exit", statuses.append)
    return statuses


@pytest.mark.parametrize(
    ("host", "keys", "warned"),
    [("127.0.0.1", False, False), ("::1", False, False), ("0.0.0.0", False, True), ("0.0.0.0", True, False)],
)
def test_an_address_that_others_reach_is_warned_of_unless_keys_are_asked_for(
    host: str,
    keys: bool,
    warned: bool,
    left: list[int],
    demo_index: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "keys").write_text("k" * 40 + "\n")
    more = ["--api-key-file", str(tmp_path / "keys")] if keys else []
    main(["serve", str(demo_index), "--host", host, "--port", "8765", *more])
    told = capsys.readouterr()
    assert told.out == f"http://[{host}]:8765\n" if ":" in host else f"http://{host}:8765\n"
    warning = ["warning: whoever reaches this address may ask; --api-key-file asks for keys"] * warned
    assert told.err.splitlines() == [*warning, "stopped"]


@pytest.mark.parametrize("ended", [True, False])
def test_a_service_whose_workers_do_not_end_is_left_at_once(
    ended: bool, left: list[int], demo_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ragqa.serving.service import Service

    make = Service.__init__

    def made(service: Service, *given: Any, **more: Any) -> None:
        make(service, *given, **more)
        service.ended = ended

    monkeypatch.setattr(Service, "__init__", made)
    assert main(["serve", str(demo_index), "--port", "8765", "-q"]) == 0
    assert left == [0] * (not ended)


def test_an_index_on_the_hub_or_in_milvus_is_looked_for_when_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    serve._check_index("someone/index")
    serve._check_index("milvus://localhost:19530/shop")
    with pytest.raises(InputError, match="milvus://"):
        serve._check_index("milvus://")
    (tmp_path / "someone" / "index").mkdir(parents=True)
    with pytest.raises(IndexNotFoundError, match="no finished index in this folder"):
        serve._check_index("someone/index")
