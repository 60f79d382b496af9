"""What Ray cannot do is told in one line, before anything is read."""

from __future__ import annotations

import platform
import socket
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from ragqa.cli import main
from ragqa.cluster import session
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


def fake_ray(monkeypatch: pytest.MonkeyPatch, runs: bool = True, **resources: float) -> SimpleNamespace:
    """In the place of Ray: what the cluster has is given, and what is asked of it kept in `asked`."""
    asked: list[str] = []
    ray = SimpleNamespace(
        asked=asked,
        is_initialized=lambda: runs,
        init=lambda address, **_: asked.append(address),
        shutdown=lambda: asked.append("shutdown"),
        cluster_resources=lambda: resources,
        nodes=list,
        __version__="0",
    )
    monkeypatch.setattr(session, "import_ray", lambda: ray)
    return ray


def test_a_ray_that_runs_is_used_and_left_running_and_one_that_was_joined_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = fake_ray(monkeypatch)
    with Session("auto"):
        pass
    assert ray.asked == []
    ray = fake_ray(monkeypatch, runs=False)
    with Session("auto"):
        pass
    assert ray.asked == ["auto", "shutdown"]


def test_a_cluster_with_gpus_is_used_by_one_worker_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ray(monkeypatch, GPU=2.0, CPU=8.0)
    with Session() as all_of_it, Session(workers=1) as one, Session(workers=5) as five:
        assert all_of_it.pool("auto") == all_of_it.pool("cuda") == ("cuda", 2, {"num_gpus": 1})
        assert one.pool("cuda")[1] == 1
        assert five.pool("auto")[1] == 2
        assert all_of_it.pool("cpu") == ("cpu", 8, {"num_cpus": 0.5})


def test_a_gpu_that_the_cluster_has_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ray(monkeypatch, CPU=8.0)
    with Session() as without, pytest.raises(ClusterError, match="--device cuda: no machine of the cluster has a GPU"):
        without.pool("cuda")


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("Version mismatch: 2.1\nand 2.2", "; the same versions of Ray and of Python are needed on all machines"),
        ("no session", "; start it on this machine with ray start, and give the address that it shows"),
    ],
)
def test_why_a_cluster_cannot_be_joined_is_one_line_with_what_helps(
    monkeypatch: pytest.MonkeyPatch, said: str, hint: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(said)

    fake_ray(monkeypatch, runs=False).init = fail
    with pytest.raises(ClusterError) as caught:
        Session("auto").__enter__()
    assert str(caught.value) == f"--address auto: {' '.join(said.split())}{hint}"
