"""Two replicas behind a balancer, of which one ends and one is killed: ``python -m benchmarks.replicas --keep``.

Two processes of `ragqa serve` on one index, and nginx with examples/replicas/nginx.conf before them. Clients ask without a
pause while a replica is told to end (SIGTERM), is started again, and the other is killed (SIGKILL); every answer is held
against what the same index gives in Python. nginx' own log says which replica answered, and what it asked twice.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.pages import put
from benchmarks.road import HERE, ROOT
from benchmarks.service_load import Client, Tally
from ragqa.versions import installed_versions, setting

RESULT: Final = HERE / "results" / "replicas.json"
PAGE: Final = ROOT / "docs" / "scale.md"
CONFIGURATION: Final = ROOT / "examples" / "replicas" / "nginx.conf"
_PORTS: Final = ("127.0.0.1:8001", "127.0.0.1:8002")  # as the configuration has them
_SETTINGS: Final = {"decoding": "copy"}
# What nginx needs beside it, to run anywhere and as anybody.
_MAIN: Final = """daemon off;
pid {folder}/pid;
worker_processes 2;
events {{}}
http {{
    {temporary}
    log_format replicas '$request_method|$upstream_addr';
    access_log {folder}/access.log replicas;
    include {folder}/ragqa.conf;
}}
"""


class Replica:
    """A process of `ragqa serve` at a port of its own."""

    def __init__(self, index: Path, port: int) -> None:
        self._index, self.address = index, f"127.0.0.1:{port}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        port = self.address.rpartition(":")[2]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ragqa.serve", str(self._index), "--port", port, "--decoding", "copy", "-q"],
            cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"}, stdout=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        while not _answers(f"http://{self.address}/readyz"):
            if self._process.poll() is not None:
                raise RuntimeError(f"the replica at {self.address} ended with status {self._process.returncode}")
            time.sleep(0.1)

    def end(self, by: signal.Signals = signal.SIGKILL) -> int:
        """Send it a signal, if it runs; returns its exit status, once it is gone."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(by)
        return self._process.wait(60)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310  (of our own server)
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    with ExitStack() as stack:
        return [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


@contextmanager
def balancer(replicas: Sequence[Replica], folder: Path) -> Iterator[str]:
    """A balancer with the example's configuration, but for its ports; its address."""
    (port,) = free_ports(1)
    text = CONFIGURATION.read_text("utf-8").replace("listen 127.0.0.1:8000;", f"listen 127.0.0.1:{port};")
    for written, replica in zip(_PORTS, replicas, strict=True):
        text = text.replace(f"server {written} ", f"server {replica.address} ")
    (folder / "ragqa.conf").write_text(text, "utf-8")
    temporary = " ".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(_MAIN.format(folder=folder, temporary=temporary), "utf-8")
    command = ["nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    with subprocess.Popen(command) as running:
        try:
            while not _answers(f"http://127.0.0.1:{port}/healthz"):
                if running.poll() is not None:
                    raise RuntimeError((folder / "error.log").read_text("utf-8"))
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            running.terminate()
            running.wait(30)


def asked(url: str, questions: Iterator[dict[str, Any]], clients: int, least: int, act: Callable[[], Any]) -> Tally:
    """Clients ask while `act` is done in the middle: `least` answers before, and as many after."""
    tally, done = Tally(), threading.Event()

    async def go() -> None:
        client = Client(url, _SETTINGS)
        while not (done.is_set() and len(tally.ends) >= after[0]):
            await tally.ask(client, next(questions))
        await client.close()

    async def middle() -> None:
        while len(tally.ends) < least:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(act)
        after[0] = len(tally.ends) + least
        done.set()

    async def together() -> None:
        await asyncio.wait_for(asyncio.gather(middle(), *(go() for _ in range(clients))), 120)

    after = [0]
    asyncio.run(together())
    return tally


def measure(index: Path, questions: Path, clients: int = 8, least: int = 400) -> dict[str, Any]:
    """Both replicas, one told to end, started again, the other killed, none; what clients and balancer saw of each."""
    listed = itertools.cycle(json.loads(questions.read_text("utf-8")))
    replicas = [Replica(index, port) for port in free_ports(2)]
    first, second = replicas
    statuses: list[int] = []
    steps: dict[str, Callable[[], Any]] = {
        "both answer": lambda: None,
        "the first is told to end (SIGTERM)": lambda: statuses.append(first.end(signal.SIGTERM)),
        "it is started again": first.start,
        "the second is killed (SIGKILL)": lambda: statuses.append(second.end()),
    }
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        log = Path(name, "access.log")
        for replica in replicas:
            stack.callback(replica.end)
        starting = [threading.Thread(target=replica.start) for replica in replicas]
        for thread in starting:
            thread.start()
        for thread in starting:
            thread.join()
        with balancer(replicas, Path(name)) as url:
            for step, act in steps.items():
                seen = log.stat().st_size
                tally = asked(url, listed, clients, least, act)
                found[step] = _told(tally) | _logged(log.read_text("utf-8")[seen:], replicas)
            first.end()
            found["none is there"] = _refusal(url, next(listed))
    return {"clients": clients, "exit_of_sigterm": statuses[0], "steps": found}


def _told(tally: Tally) -> dict[str, Any]:
    return {
        "answers": tally.statuses[200],
        "wrong": tally.wrong,
        "refused": sum(tally.statuses.values()) - tally.statuses[200],
        "lost": tally.lost + tally.hung,
        "longest": round(max(tally.seconds), 3),
    }


def _logged(lines: str, replicas: Sequence[Replica]) -> dict[str, Any]:
    """Answers by each replica, and requests that were sent to a second one."""
    rows = [line.split("|") for line in lines.splitlines() if line.startswith("POST")]
    last = Counter(row[1].split(", ")[-1] for row in rows)
    return {"by": [last[replica.address] for replica in replicas], "retried": sum(", " in row[1] for row in rows)}


def _refusal(url: str, question: dict[str, Any]) -> dict[str, Any]:
    """What a client is told when no replica is left."""

    async def ask() -> tuple[int, dict[str, str], bytes]:
        client = Client(url, _SETTINGS)
        try:
            return await client.ask(question)
        finally:
            await client.close()

    status, headers, body = asyncio.run(ask())
    return {"status": status, "retry_after": headers.get("retry-after"), "code": json.loads(body)["code"]}


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    steps = dict(result["steps"])
    none = steps.pop("none is there")
    lines = [
        "| | answers | by the first | by the second | asked a second time | wrong | refused | lost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for step, one in steps.items():
        cells = [one["answers"], *one["by"], one["retried"], one["wrong"], one["refused"], one["lost"]]
        lines.append(f"| {step} | {' | '.join(f'{cell:,}' for cell in cells)} |")
    lines += [
        "",
        f"With no replica left a client is told {none['status']} and `Retry-After: {none['retry_after']}`. Measured on "
        f"{result['date']} at commit `{result['commit']}`: {result['machine']}, {result['products']:,} products, "
        f"{result['clients']} clients, nginx {result['nginx']}.",
    ]
    return "\n".join(lines)


def main() -> int:
    """Try it, and keep the result where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, nargs="?", default=Path("indexes/demo"), help="(default: %(default)s)")
    parser.add_argument("--least", type=int, default=400, help="answers before and after each step (default: 400)")
    parser.add_argument("--keep", action="store_true", help="make it the committed result")
    parser.add_argument("--tables", action="store_true", help="only write the table from the committed result")
    chosen = parser.parse_args()
    if chosen.tables:
        put(PAGE, "replicas", table(json.loads(RESULT.read_text("utf-8"))))
        return 0
    from benchmarks.service import write_questions
    from ragqa.index.generations import live_generation
    from ragqa.index.storage import read_manifest

    with tempfile.TemporaryDirectory() as folder:
        questions = Path(folder, "questions.json")
        write_questions(str(chosen.index), "partial", str(questions))
        version = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr
        result = setting() | {
            "versions": installed_versions(("torch", "fastapi", "uvicorn")),
            "nginx": version.strip().rpartition("/")[2],
            "products": read_manifest(live_generation(chosen.index))["count"],
            **measure(chosen.index, questions, least=chosen.least),
        }
    print(table(result))
    if chosen.keep:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        put(PAGE, "replicas", table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
