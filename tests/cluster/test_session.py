"""What Ray cannot do is told in one line, before anything is read."""

from __future__ import annotations

import platform
import socket
import sys
import threading
from pathlib import Path

import pytest

from ragqa.cli import main
from ragqa.cluster.faults import from_text, to_text
from ragqa.cluster.session import Session
from ragqa.errors import CatalogueError, ClusterError, InputError


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_without_ray_the_command_that_installs_it_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    line = told(["build-index", "c.json", "--out", str(tmp_path / "x"), "--engine", "ray", "--quiet"], capsys)
    assert line.startswith("error: --engine ray needs Ray (")
    assert line.endswith('install it: pip install "ragqa[ray]"')
    assert not (tmp_path / "x").exists()


def test_options_for_ray_without_it_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for option in (["--address", "a:1"], ["--workers", "2"], ["--shards", "s"]):
        assert "is for Ray; add --engine ray" in told(["build-index", "c.json", *option, "--quiet"], capsys)


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:port", "http://head:1"])
def test_what_is_no_address_is_told(address: str) -> None:
    with pytest.raises(InputError, match=r"HOST:PORT of the cluster's head is accepted, or auto"):
        Session(address).__enter__()


def test_an_address_at_which_nothing_listens_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        line = told(["build-index", "c.json", "--engine", "ray", "--address", address, "--quiet"], capsys)
    assert line.startswith(f"error: --address {address}: no Ray can be reached there")


def test_an_address_at_which_something_else_answers_is_told() -> None:
    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ClusterError, match="something else than the head of a Ray cluster answers there"):
            Session(address).__enter__()
        thread.join()


def test_no_workers_are_refused() -> None:
    with pytest.raises(InputError, match="--workers must be at least 1, not 0"):
        Session(workers=0)


def test_an_error_comes_from_another_machine_as_what_it_was() -> None:
    error = from_text(to_text(CatalogueError("c.json: line 3: no"), "elsewhere"))
    assert type(error) is CatalogueError
    assert str(error).startswith("c.json: line 3: no (on ")
    assert str(from_text(to_text(ClusterError("lost"), platform.node()))) == "lost"
