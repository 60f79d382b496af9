"""Training in several real processes, over gloo on the CPU: what one does, what ends all, and that they are as one."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from ragqa import fine_tune, fine_tune_retriever
from ragqa.comparison.run import compare
from ragqa.errors import InputError, ModelError, ProcessError
from ragqa.training import fit, processes
from ragqa.training.shares import Dealt
from ragqa.training.workplace import work_folder
from tests.conftest import DEMO, ROOT

# Two epochs of five batches, three in a step: the last step of an epoch is shorter, and none can be dealt evenly.
RECIPE = {
    "examples": 10, "validation": 20, "watched": 3, "judged": 2, "test": 8, "questions_per_context": 2, "number_questions": 0,
    "epochs": 2.0, "batch_size": 2, "accumulation": 3, "evaluations": 4, "context_tokens": 800, "max_new_tokens": 48,
    "batch_tokens": 2000, "rank": 4, "dropout": 0.1, "learning_rate": 0.002,
}  # fmt: skip
# The command, in processes that may be made to fail at a batch, or be told of other folders than the first one. Started by
# no launcher they are forks of one that has imported what takes long, and are told which they are as Open MPI does.
SCRIPT = """
import os, signal, sys
from pathlib import Path
import ragqa.training.fine_tune
from ragqa.cli import run_command
from ragqa.errors import ModelError
from ragqa.training import fit, processes

signal.alarm(200)
ways, folder, port, *arguments = sys.argv[1:]
ways, children = ways.split(","), []
for number, way in enumerate(ways if len(ways) > 1 else ()):
    child = os.fork()
    if child == 0:
        signal.alarm(200)
        told = {"SIZE": len(ways), "RANK": number, "LOCAL_RANK": number}
        os.environ |= {f"OMPI_COMM_WORLD_{name}": str(value) for name, value in told.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        said = os.open(Path(folder, f"said-{number}"), os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 1), os.dup2(said, 2)
        ways = [way]
        break
    children.append(child)
if children and len(ways) > 1:
    print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
    sys.exit()
how, at = ways[0].split(":")
if how == "apart" and processes.is_helper():
    place = arguments.index("--out") + 1
    arguments[0], arguments[place] = "nowhere", "elsewhere/adapter"
step, seen = fit.Trainer.training_step, []
def broken(self, *given, **more):
    seen.append(1)
    if len(seen) == int(at) and how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if len(seen) == int(at) and how == "error":
        raise ModelError("the model is tired")
    return step(self, *given, **more)
fit.Trainer.training_step = broken
sys.exit(run_command("fine-tune", arguments, "fine-tune"))
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]  # fmt: skip
ACCELERATE = [
    sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no",
]  # fmt: skip


class Run:
    """The command over the demonstration index, and what one process made of it."""

    def __init__(self, index: Path, model: Path, folder: Path) -> None:
        self.index, self.model, self.folder = index, model, folder
        self.whole = folder / "whole"
        self.script = folder / "process.py"
        self.script.write_text(SCRIPT)

    def here(self, out: Path, **more: Any) -> dict[str, Any]:
        """In this process."""
        return fine_tune(
            self.index, out, device="cpu", dtype="float32", generator=str(self.model), **(RECIPE | more)  # type: ignore[arg-type]
        )  # fmt: skip

    def arguments(self, out: Path, *more: str) -> list[str]:
        sizes = [part for name, value in RECIPE.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        return [
            str(self.index), "--mode", "retrieval", "--out", str(out), "--device", "cpu", "--dtype", "float32",
            "--generator", str(self.model), *sizes, *more,
        ]  # fmt: skip

    def launched(self, command: Sequence[str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """By a launcher, to its end."""
        known = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=cwd, env=known, capture_output=True, text=True, timeout=240, check=False)

    def forked(self, ways: Sequence[str], out: Path) -> tuple[list[int], list[str]]:
        """One process for each way to go, to their ends: how they ended, and what each said."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        with tempfile.TemporaryDirectory() as said:
            command = [sys.executable, str(self.script), ",".join(ways), said, port, *self.arguments(out, "--quiet")]
            done = self.launched(command)
            assert done.returncode == 0, done.stderr
            return [int(status) for status in done.stdout.split()], [
                Path(said, f"said-{number}").read_text() for number in range(len(ways))
            ]


@pytest.fixture(scope="module")
def run(demo_index: Path, family_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = Run(demo_index, family_model("llama"), tmp_path_factory.mktemp("processes"))
    made.here(made.whole)
    return made


def logged(out: Path) -> list[tuple[int, float | None, float | None]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(r["step"], r.get("loss"), r.get("eval_loss")) for r in rows if "loss" in r or "eval_loss" in r]


def assert_the_same(out: Path, whole: Path) -> None:
    """The same steps, losses and adapter, but for the order in which numbers are added."""
    found, expected = logged(out), logged(whole)
    assert len(expected) == 4 + 5
    assert [row[0] for row in found] == [row[0] for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert one[1:] == pytest.approx(other[1:], abs=1e-5)
    weights, right = (load_file(folder / "adapter_model.safetensors") for folder in (out, whole))
    assert weights.keys() == right.keys()
    for name, value in right.items():
        assert np.linalg.norm(weights[name] - value) <= 2e-3 * np.linalg.norm(value) + 1e-5, name


@pytest.mark.parametrize(("batches", "step"), [(1, 3), (6, 3), (11, 4), (7, 2)])
def test_the_order_and_the_steps_are_the_same_whatever_the_number_of_processes(batches: int, step: int) -> None:
    def steps(count: int, epoch: int) -> list[list[tuple[int, int]]]:
        """The batches of each step, in order, with what is drawn in them."""
        a_step, dealt = -(-step // count), []
        for number in range(count):
            mine = Dealt(batches, step, 0, seed=7, number=number, count=count)
            mine.set_epoch(epoch)
            dealt.append([share for [share] in mine])
            assert len(dealt[-1]) == len(mine)
        assert len({len(shares) for shares in dealt}) == 1
        rows = [[(s.batch, s.seed) for s in row if s.weighs] for row in zip(*dealt, strict=True)]
        return [list(chain.from_iterable(rows[at : at + a_step])) for at in range(0, len(rows), a_step)]

    for epoch in (0, 3):
        alone = steps(1, epoch)
        assert sorted(batch for row in alone for batch, _ in row) == list(range(batches))
        assert [len(row) for row in alone[:-1]] == [step] * (len(alone) - 1)
        assert len({seed for row in alone for _, seed in row}) == batches
        assert all(steps(count, epoch) == alone for count in range(2, step + 1))
    assert batches == 1 or steps(1, 0) != steps(1, 3)


def test_two_processes_end_as_one_and_the_first_alone_reads_and_writes(run: Run, tmp_path: Path) -> None:
    # The other knows of no index, and of another --out, in an empty folder of its own.
    out = tmp_path / "out"
    here = tmp_path / "empty"
    here.mkdir()
    done = run.launched([*ACCELERATE, str(run.script), "apart:0", "", "", *run.arguments(out)], cwd=here)
    assert done.returncode == 0, done.stderr
    assert_the_same(out, run.whole)
    assert list(here.iterdir()) == []
    assert not work_folder(out).exists()
    assert json.loads((out / "manifest.json").read_text())["plan"]["processes"] == 2
    assert done.stdout.count("validation loss") == done.stderr.count("plan: ") == 1
    assert "2 steps, shared by 2 processes" not in done.stderr
    assert "4 steps, shared by 2 processes" in done.stderr


def test_begun_by_two_killed_and_ended_by_one(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    statuses, (said, _) = run.forked(["whole:0", "killed:6"], out)
    assert statuses == [2, -signal.SIGKILL]
    assert [line for line in said.splitlines() if "rror" in line] == [
        "error: process 0 of 2 lost another one, which was killed or whose machine is gone; the same command with --resume "
        "goes on from the last checkpoint"
    ]
    assert "Traceback" not in said
    # In the middle of an epoch.
    assert run.here(out, resume=True)["trained"]["resumed_at"] == 3
    assert_the_same(out, run.whole)


def test_begun_by_one_interrupted_and_ended_by_two(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    step, seen = fit.Trainer.training_step, []

    def broken(self: Any, *given: Any, **more: Any) -> Any:
        seen.append(1)
        if len(seen) == 9:
            raise KeyboardInterrupt
        return step(self, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(fit.Trainer, "training_step", broken)
        with pytest.raises(KeyboardInterrupt):
            run.here(out)
    done = run.launched([*TORCHRUN, "-m", "ragqa.fine_tune", *run.arguments(out, "--resume")])
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "manifest.json").read_text())["trained"]["resumed_at"] == 3
    assert_the_same(out, run.whole)


def test_an_error_in_one_process_ends_all_with_its_line(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    statuses, said = run.forked(["whole:0", "error:2"], out)
    assert statuses == [2, 2]
    assert [line for line in "".join(said).splitlines() if "rror" in line] == ["error: the model is tired"]
    assert not out.exists()
    assert not work_folder(out).exists()


# The first alone reads the index, while the other waits; both want the model.
@pytest.mark.parametrize("wrong", ["index", "generator"])
def test_a_mistake_is_told_once(wrong: str, run: Run, tmp_path: Path) -> None:
    arguments = run.arguments(tmp_path / "out")
    arguments[0 if wrong == "index" else arguments.index("--generator") + 1] = str(tmp_path / "not-there")
    done = run.launched([*TORCHRUN, "-m", "ragqa.fine_tune", *arguments])
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "not-there" in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_more_processes_than_a_step_has_batches_are_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragqa.training.fine_tune.joined", lambda device: nullcontext(processes.Processes(0, 4)))
    with pytest.raises(InputError) as caught:
        run.here(tmp_path / "out")
    assert str(caught.value) == (
        "4 processes cannot share a step of 3 batches (accumulation); start at most 3, or cut the step into more batches: "
        "--accumulation 4 --batch-tokens 1500 --batch-size 1"
    )
    assert list(tmp_path.iterdir()) == []


def test_what_works_in_one_process_says_so_once(
    demo_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for number, kind in (("0", InputError), ("1", ProcessError)):
        monkeypatch.setenv("RANK", number)
        for work in (lambda: fine_tune_retriever(demo_index, tmp_path / "a"), lambda: compare(DEMO, tmp_path / "b")):
            with pytest.raises(kind) as caught:
                work()
            assert ("works in one process" in str(caught.value)) == (number == "0")
    assert list(tmp_path.iterdir()) == []


def test_each_process_wants_a_gpu_of_its_own_and_data_parallel_training(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    third = processes.Processes(2, 3, local=2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ModelError, match=r"process 2 of this machine has no GPU of its own, torch sees 2; .*--nproc"):
        processes.own_device("cuda", third)
    assert processes.own_device("cpu", third) == "cpu"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    assert processes.own_device("cuda", third) == "cuda:2"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match=r"asks for FSDP; .* \(DDP\)"):
        processes._check_sharing()


def test_a_training_of_several_processes_is_on_cpus_or_nvidia_gpus() -> None:
    with pytest.raises(ModelError, match="--device mps: several processes train on CPUs or NVIDIA GPUs; start one, or"):
        processes.own_device("mps", processes.Processes(0, 2))
    assert processes.own_device("mps", processes.ALONE) == "mps"


@pytest.mark.parametrize("number", [0, 1])
def test_the_first_process_tells_which_other_one_differs_and_in_what(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {"base model": "a", "device": "cpu", "number format": "float32"}
    one = processes.Processes(number, 2)
    monkeypatch.setattr(one, "gather", lambda about: [about, about | {"base model": "b", "device": "cuda"}])
    if number:
        processes.check_alike(one, here)
    else:
        with pytest.raises(
            InputError, match=r"^process 1 of 2 has another base model, another device than the first; "
        ):
            processes.check_alike(one, here)


def test_processes_that_have_met_already_part_from_their_own_group_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed as dist

    ended: list[str] = []
    values = {"is_initialized": True, "get_world_size": 2, "get_rank": 1, "get_backend": "gloo"}
    for name, value in values.items():
        monkeypatch.setattr(dist, name, lambda value=value: value)
    monkeypatch.setattr(dist, "new_group", lambda **_: "ours")
    monkeypatch.setattr(dist, "destroy_process_group", lambda group="all": ended.append(group))
    monkeypatch.setenv("LOCAL_RANK", "1")
    with processes.joined("cpu") as found:
        assert (found.number, found.count, found.local) == (1, 2, 1)
        assert ended == []
    found.let_go()
    assert ended == ["ours"]
    with pytest.raises(KeyboardInterrupt), processes.joined("cpu"):
        raise KeyboardInterrupt
    assert ended == ["ours"] * 2


def test_processes_that_do_not_meet_are_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed as dist

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the client socket has timed out\nat line 3")

    monkeypatch.setattr(dist, "init_process_group", fail)
    told = {"WORLD_SIZE": "two", "RANK": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"^WORLD_SIZE=two: is no number of processes; start them by torchrun"):
        processes.joined("cpu").__enter__()
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = r"^process 1 of 2 does not find the others at 127\.0\.0\.1:9 \(the client socket has timed out\); see that"
    with pytest.raises(ProcessError, match=said):
        processes.joined("cpu").__enter__()
