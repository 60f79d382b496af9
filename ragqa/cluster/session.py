"""Ray, found and started, or one line that says why not.

Ray's report of its use goes nowhere, its dashboard is not started, and no other process's output is mixed into this one's.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ragqa.errors import ClusterError, InputError, MissingDependencyError, first_line
from ragqa.progress import say

# Of a Ray that is started here, in bytes: what lies between the works, which waits for room where there is none.
_OBJECT_STORE: Final = 512 * 2**20
_CONNECT_SECONDS: Final = 5.0
# The first words of HTTP/2, by which gRPC speaks and so Ray: a greeting with no settings, to be answered by settings.
_GREETING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS: Final = b"\4"
# A worker on a CPU asks for half of one, so that those of a machine that is lost find room on the ones that are left.
_CPU_SHARE: Final = 0.5
# Rows of a block that goes from one work to the next, in bytes; Ray's own 128 MB would be held by each of them.
_BLOCK_BYTES: Final = 16 * 2**20


def import_ray() -> Any:
    """The module ray, with Ray Data.

    Raises:
        MissingDependencyError: it is not installed.
    """
    # Read when Ray starts: nothing is reported, and what its C++ part says of itself is left to its own log files.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingDependencyError(
            f'--engine ray needs Ray ({first_line(error)}); install it: pip install "ragqa[ray]"'
        ) from error
    return ray


class Session:
    """A connection to Ray: to a cluster by its address, or to a Ray of its own on this machine.

    Args:
        address: ``HOST:PORT`` of a cluster's head, or "auto" for the one that this machine is part of; None takes
            ``RAY_ADDRESS`` from the environment, and without it starts Ray here, for as long as the session lasts.
        workers: how many processes embed or answer; None: one a GPU, or where there is none, one a CPU.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise InputError(f"--workers must be at least 1, not {workers}")
        self._address = address or os.environ.get("RAY_ADDRESS") or None
        self._workers = workers
        self._ours = False
        self._ray: Any = None

    def __enter__(self) -> Self:
        self._ray = import_ray()
        if not self._ray.is_initialized():
            self._connect()
            self._ours = True
        found = self._ray.cluster_resources()
        machines = sum(bool(node["Alive"]) for node in self._ray.nodes())
        say(
            f"Ray {self._ray.__version__}: {machines} machines, {found.get('CPU', 0):g} CPUs, {found.get('GPU', 0):g} GPUs"
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster, or end the Ray that was started here. Afterwards the session can do nothing more."""
        if self._ours:
            self._ours = False
            self._ray.shutdown()

    def _connect(self) -> None:
        quietly: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if self._address is None:
            quietly |= {"num_cpus": max(self._workers or 0, os.cpu_count() or 1), "include_dashboard": False}
            quietly |= {"object_store_memory": _OBJECT_STORE}
        else:
            _check(self._address)
        try:
            self._ray.init(self._address or "local", **quietly)
        except Exception as error:
            where = f"--address {self._address}" if self._address else "Ray could not be started here"
            hint = (
                "; the same versions of Ray and of Python are needed on all machines"
                if "ersion mismatch" in str(error)
                else "; start it on this machine with ray start, and give the address that it shows"
                if self._address
                else ""
            )
            raise ClusterError(f"{where}: {' '.join(str(error).split())[:300]}{hint}") from error

    def pool(self, device: str) -> tuple[str, int, dict[str, Any]]:
        """For works on a device: the device, how many are done at once, and what each asks Ray for.

        Raises:
            ClusterError: a GPU is asked for, and the cluster has none.
        """
        found = self._ray.cluster_resources()
        gpus, cpus = int(found.get("GPU", 0)), int(found.get("CPU", 1))
        if device.startswith("cuda") and not gpus:
            raise ClusterError(f"--device {device}: no machine of the cluster has a GPU; leave it out")
        if gpus and device in ("auto", "cuda"):
            # Each sees the one that it was given.
            return "cuda", min(self._workers or gpus, gpus), {"num_gpus": 1}
        return ("cpu" if device == "auto" else device), self._workers or cpus, {"num_cpus": _CPU_SHARE}

    @property
    def here(self) -> dict[str, str]:
        """What makes a work run on this machine."""
        return {"ray.io/node-id": self._ray.get_runtime_context().get_node_id()}

    def items(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """A data set of a few rows, each a block by itself."""
        return self._ray.data.from_items(list(rows), override_num_blocks=len(rows))

    def actors(self, size: int) -> Any:
        """A pool of so many, each with the next block at hand."""
        return self._ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=2)

    def tables(self, make: Any, in_order: bool = False) -> Iterator[Any]:
        """The Arrow tables of a data set as they come.

        Args:
            make: gives the data set.
            in_order: in the order of the blocks that it began with.

        Raises:
            ClusterError: Ray failed. What a work raises on purpose comes as data, see `ragqa.cluster.faults`.
        """
        data = self._ray.data
        context = data.DataContext.get_current().copy()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.target_max_block_size = _BLOCK_BYTES
        context.execution_options.preserve_order = in_order
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        try:
            with data.DataContext.current(context):
                yield from make().iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        except Exception as error:
            raise ClusterError(
                f"Ray failed ({_last_line(error)}); run the same command again: it goes on from what was written"
            ) from error


def _check(address: str) -> None:
    """Refuse an address at which nothing listens; Ray itself would try for minutes.

    Raises:
        InputError: it is no address.
        ClusterError: nothing listens there.
    """
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise InputError(
            f"--address {address!r}: HOST:PORT of the cluster's head is accepted, or auto, on a machine that is part of "
            "the cluster (ray start --address HOST:PORT)"
        )
    try:
        with socket.create_connection((host, int(port)), _CONNECT_SECONDS) as connection:
            connection.sendall(_GREETING)
            spoken = connection.recv(9)
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"--address {address}: no Ray can be reached there ({error}); is it running (ray status), and may this machine "
            "connect to it?"
        ) from error
    if spoken[3:4] != _SETTINGS:
        raise ClusterError(
            f"--address {address}: something else than the head of a Ray cluster answers there; ray start shows the address, "
            "with the port 6379 if none was chosen"
        )


def _last_line(error: BaseException) -> str:
    """What a remote traceback says at its end."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


def absolute(name: str) -> str:
    """A file or folder of this machine by its whole path, as other processes need it; another name as it is."""
    path = Path(name)
    return str(path.absolute()) if path.exists() else name
