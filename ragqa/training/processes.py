"""Several processes that train together: which one this is, what one does for all, and how an error in one ends all.

`torchrun` and `accelerate launch` start them, on one machine or several, and tell each in its environment which one it
is. The first reads the index, makes the examples and writes; the others compute, and are given what they need.

What is given goes over connections of its own (gloo), which wait without a limit, for what the first does by itself may
take hours. A process that fails says so where the processes found one another, and lets go of its connections: that
ends every wait of the others at once, as does a process that is killed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Final, NoReturn, TypeVar

from ragqa.errors import InputError, ModelError, ProcessError, RagqaError, first_line
from ragqa.progress import say

_T = TypeVar("_T")
# As torchrun, Intel MPI, Open MPI and MVAPICH say it; accelerate launches processes without a GPU by one of the others.
_COUNT: Final = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_NUMBER: Final = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_LOCAL: Final = ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK")
_MEETING: Final = ("MASTER_ADDR", "MASTER_PORT")
_HOW: Final = "start them by torchrun or accelerate launch"
# An exchange of gradients waits for an evaluation or a checkpoint of another process; the rest for what takes hours.
_EXCHANGE: Final = timedelta(hours=1)
_ANYTHING: Final = timedelta(days=365)
_FAILED: Final = "ragqa/failed"
_LEAVE: Final = 5.0  # seconds for the one that failed to say why, before its launcher ends it, too


class Processes:
    """The processes of a training, as one of them sees them; by itself where there is one.

    Attributes:
        number: of this one, from 0.
        count: how many there are.
        local: number of this one on its machine, from 0.
    """

    def __init__(self, number: int = 0, count: int = 1, local: int = 0, group: Any = None) -> None:
        self.number, self.count, self.local = number, count, local
        self._group = group

    @property
    def first(self) -> bool:
        """Whether this is the one that reads, writes and speaks."""
        return self.number == 0

    def share(self, value: Any = None) -> Any:
        """What the first process gives, in every process; anything that pickle takes."""
        if self.count == 1:
            return value
        import torch.distributed as dist

        box = [value if self.first else None]
        dist.broadcast_object_list(box, src=0, group=self._group)
        return box[0]

    def once(self, work: Callable[[], _T]) -> _T:
        """What `work` gives in the first process, which alone does it, in every process."""
        shared: _T = self.share(work() if self.first else None)
        return shared

    def gather(self, value: _T) -> list[_T]:
        """What each process gives, in every process, in their order."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value, group=self._group)
        return found

    def let_go(self) -> None:
        """Close the connections; what waits for this process fails."""
        group, self._group = self._group, None
        if group is not None:
            import torch.distributed as dist

            dist.destroy_process_group(group)


ALONE: Final = Processes()


def is_helper() -> bool:
    """Whether this process is one of several and not the first, by its environment."""
    with suppress(ValueError):
        return _given(_COUNT, 1) > 1 and _given(_NUMBER, 0) > 0
    return False


def wait_to_be_ended() -> None:
    """Let the process that failed say why: its launcher ends all as soon as one has ended."""
    time.sleep(_LEAVE)


def one_process(what: str) -> None:
    """Refuse to do something in several processes.

    Raises:
        InputError: in the first of several.
        ProcessError: in the others.
    """
    if _given(_COUNT, 1) > 1:
        _refuse(f"{what} works in one process; run it without torchrun or accelerate launch")


def _refuse(why: str) -> NoReturn:
    """Raise what all processes find wrong, so that one of them says it."""
    raise ProcessError("refused by the first process", told=True) if is_helper() else InputError(why)


@contextmanager
def joined(device: str = "auto") -> Iterator[Processes]:
    """The processes that were started together with this one, found and connected; they part at the end.

    Args:
        device: as the user gave it; on GPUs gradients are exchanged by NCCL, else by gloo.

    Raises:
        InputError: the environment speaks of several processes and not of how they meet, or wants a way to share a
            training that is not there.
        ProcessError: they do not find one another; or, within, another one failed or was killed.
    """
    import torch.distributed as dist

    _check_sharing()
    there = dist.is_available() and dist.is_initialized()
    count = dist.get_world_size() if there else _given(_COUNT, 1)
    if count == 1:
        yield ALONE
        return
    if not there:
        _meet(device, count)
    processes = Processes(dist.get_rank(), count, _given(_LOCAL, 0))
    ours = not there
    try:
        processes._group = dist.new_group(backend="gloo", timeout=_ANYTHING)
        yield processes
    except BaseException as error:
        cause = _cause(error, processes)
        # NCCL would wait here for what the others will not send; the end of this process ends it.
        ours &= dist.get_backend() != "nccl"
        if cause is error:
            raise
        raise cause from error
    finally:
        processes.let_go()
        if ours:
            with suppress(Exception):
                dist.destroy_process_group()


def _given(names: tuple[str, ...], default: int) -> int:
    said = next((os.environ[name] for name in names if os.environ.get(name)), None)
    try:
        return default if said is None else int(said)
    except ValueError:
        raise InputError(f"{names[0]}={said}: is no number of processes; {_HOW}") from None


def _meet(device: str, count: int) -> None:
    """Find the others."""
    import torch
    import torch.distributed as dist

    number = _given(_NUMBER, -1)
    missing = [name for name in _MEETING if not os.environ.get(name)] + (["RANK"] if number < 0 else [])
    if missing:
        raise InputError(
            f"{count} processes are to train together, and {', '.join(missing)} does not say how they meet; {_HOW}, or "
            "unset WORLD_SIZE to train in one process"
        )
    # By these names transformers and accelerate know, too.
    os.environ |= {"RANK": str(number), "WORLD_SIZE": str(count), "LOCAL_RANK": str(_given(_LOCAL, 0))}
    at = ":".join(os.environ[name] for name in _MEETING)
    if number == 0:
        say(f"the first of {count} processes, which meet at {at}")
    gpu = torch.cuda.is_available() and (device == "auto" or device.startswith("cuda"))
    try:
        dist.init_process_group("nccl" if gpu else "gloo", timeout=_EXCHANGE)
    except (RuntimeError, ValueError) as error:
        raise ProcessError(
            f"process {number} of {count} does not find the others at {at} ({first_line(error)}); see that all are "
            "started, with one address, and that no firewall parts them"
        ) from error


def _check_sharing() -> None:
    """Refuse what accelerate's configuration may ask for beyond data-parallel training."""
    names = {
        "ACCELERATE_USE_FSDP": "FSDP",
        "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
        "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
        "ACCELERATE_USE_PARALLELISM_CONFIG": "another parallelism",
    }
    wanted = [name for variable, name in names.items() if os.environ.get(variable, "").lower() in ("true", "1")]
    if wanted:
        _refuse(
            f"accelerate's configuration asks for {wanted[0]}; an adapter is trained with the whole base model in each "
            "process (DDP): answer `accelerate config` with multi-GPU alone, or use torchrun"
        )


def own_device(place: str, processes: Processes) -> str:
    """The device of this process, of the kind that was chosen: each has a GPU of its own.

    Raises:
        ModelError: there are more processes on this machine than GPUs, or these cannot be shared.
    """
    if processes.count == 1 or place == "cpu":
        return place
    if place != "cuda":
        raise ModelError(
            f"--device {place}: several processes train on CPUs or NVIDIA GPUs; start one, or --device cpu"
        )
    import torch

    if processes.local >= torch.cuda.device_count():
        raise ModelError(
            f"process {processes.local} of this machine has no GPU of its own, torch sees {torch.cuda.device_count()}; "
            "start as many processes as there are GPUs (--nproc-per-node), or --device cpu"
        )
    torch.cuda.set_device(processes.local)
    return f"cuda:{processes.local}"


def check_alike(processes: Processes, about: Mapping[str, Any]) -> None:
    """Refuse processes that would not compute the same, as another base model on another machine.

    Args:
        processes: all of them.
        about: what must be the same, by what it is called.

    Raises:
        InputError: in the first process; the others fail when they next hear of it.
    """
    for number, other in enumerate(processes.gather(dict(about))):
        different = [name for name in about if other[name] != about[name]]
        if processes.first and different:
            raise InputError(
                f"process {number} of {processes.count} has another {', another '.join(different)} than the first; give "
                "all machines the same models and packages"
            )


def _cause(error: BaseException, processes: Processes) -> BaseException:
    """The error to raise for one that ended this process: its own, or that another one spoke before it."""
    import torch.distributed as dist

    if not isinstance(error, Exception):
        return error
    with suppress(Exception):  # what they met by may be gone, too
        if dist.distributed_c10d._get_default_store().add(_FAILED, 1) > 1:
            return ProcessError("another process of this training failed", told=True)
    if _is_cut(error):
        return ProcessError(
            f"process {processes.number} of {processes.count} lost another one, which was killed or whose machine is "
            "gone; the same command with --resume goes on from the last checkpoint"
        )
    return error


def _is_cut(error: BaseException | None) -> bool:
    """Whether an error comes of a connection that fell."""
    import torch.distributed as dist

    while error is not None:
        said = str(error).lower()
        words = ("connection closed", "connection reset", "broken pipe", "gloo", "nccl")
        if isinstance(error, dist.DistError) or (
            isinstance(error, RuntimeError) and not isinstance(error, RagqaError) and any(w in said for w in words)
        ):
            return True
        error = error.__cause__
    return False
