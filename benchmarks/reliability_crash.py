"""Writers that are killed, or whose disk fails, at each of their operations; and what a reader finds afterwards."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock

from benchmarks import toys
from benchmarks.faults import Faults, Kind, counted
from ragqa import Answerer, build_index, folders, open_index, update_index
from ragqa.catalogue.export import prepare
from ragqa.comparison import stages
from ragqa.errors import IndexNotFoundError, RagqaError
from ragqa.files import sha256_of, write_json
from ragqa.settings import AnswerSettings

_COUNT: Final = 40
_NOTHING: Final = "nothing"
_PATIENCE: Final = 120  # seconds, after which a child hangs


@dataclass(frozen=True)
class Writer:
    """Something that is written.

    Attributes:
        before: brings about the old state in an empty folder.
        write: the command that makes the new one of it.
        read: what a reader finds in the folder.
        renames: with names that cannot be exchanged.
    """

    name: str
    before: Callable[[Path], Any]
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    renames: bool = False


@dataclass
class Tried:
    """What trying one writer gave."""

    name: str
    operations: int
    points: int
    old: int
    new: int
    refused: int
    failures: list[str]


def in_child(work: Callable[[], Any]) -> dict[str, Any]:
    """Do some work in a forked child: its "value", or its "error" and whether that is one of the "project"'s, or its "signal"."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.close(reading)
        _end(writing, work)
    os.close(writing)
    return wait(child, reading)


def _end(writing: int, work: Callable[[], Any]) -> None:
    """The child's whole life."""
    signal.alarm(_PATIENCE)
    try:
        found: dict[str, Any] = {"value": work()}
    except BaseException as error:  # noqa: BLE001  (it is told to the parent)
        project = isinstance(error, RagqaError | KeyboardInterrupt)
        found = {"error": f"{type(error).__name__}: {error}", "project": project}
    with os.fdopen(writing, "w") as pipe:
        json.dump(found, pipe)
    os._exit(0)


def wait(child: int, reading: int) -> dict[str, Any]:
    """What a child tells at its end."""
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return {"signal": os.WTERMSIG(status)}
    return dict(json.loads(text))


def value(found: dict[str, Any]) -> Any:
    """A child's value."""
    if "value" not in found:
        raise RuntimeError(f"a child that was to give a value ended with {found}")
    return found["value"]


def entries(folder: Path) -> list[str]:
    """All names in a folder; of generations, of which there may be two, without their number."""
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*")}
    more = [name for name in names if re.fullmatch(r"(.*/)?g\d{6}", name)][2:]
    return sorted({re.sub(r"\bg\d{6}\b", "g", name) for name in names} | set(more))


def chosen(points: int, most: int | None) -> Iterable[int]:
    """The points that are tried: all, or so many spread over all."""
    if most is None or most >= points:
        return range(1, points + 1)
    return sorted({1 + round(i * (points - 1) / max(most - 1, 1)) for i in range(most)})


def try_all(writer: Writer, kinds: Sequence[Kind], scratch: Path, most: int | None) -> Tried:
    """Let a writer fail at each of its operations, once in each way, and look what is there."""
    base, place = scratch / "base", scratch / "place"
    base.mkdir(parents=True)

    def fresh() -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(base, place)

    def faulty(faults: Faults) -> list[str]:
        without = mock.patch.object(folders, "_exchanger", return_value=None)
        with without if writer.renames else contextlib.nullcontext(), counted(faults):
            writer.write(place)
        return faults.done

    def after() -> list[Any]:
        seen = writer.read(place)
        writer.write(place)
        return [seen, writer.read(place), entries(place)]

    value(in_child(lambda: writer.before(base)))
    fresh()
    old = value(in_child(lambda: writer.read(place)))
    operations = value(in_child(lambda: faulty(Faults())))
    new, left = value(in_child(lambda: [writer.read(place), entries(place)]))
    tried = Tried(writer.name, len(operations), 0, 0, 0, 0, [])
    if old == new:
        tried.failures.append(f"{writer.name}: old and new state cannot be told apart")
    for at in chosen(len(operations), most):
        for kind in kinds:
            fresh()
            where = f"{writer.name}, {kind} at {at} ({operations[at - 1]})"
            ended = in_child(lambda at=at, kind=kind: faulty(Faults(at, kind)))
            tried.points += 1
            tried.failures += [f"{where}: {line}" for line in wrong_end(ended, kind)]
            tried.refused += "error" in ended
            found = in_child(after)
            if "value" not in found:
                tried.failures.append(f"{where}: afterwards {found}")
                continue
            seen, again, names = found["value"]
            tried.old, tried.new = tried.old + (seen == old), tried.new + (seen == new)
            if seen not in (old, new):
                tried.failures.append(f"{where}: neither old nor new: {str(seen)[:200]}")
            if again != new:
                tried.failures.append(f"{where}: the same command gave another result: {str(again)[:200]}")
            if names != left:
                tried.failures.append(f"{where}: left over or missing: {sorted(set(names) ^ set(left))}")
    shutil.rmtree(scratch)
    print(f"{writer.name}: {tried.points} points, {len(tried.failures)} failures", file=sys.stderr, flush=True)
    return tried


def wrong_end(ended: dict[str, Any], kind: Kind) -> Iterator[str]:
    """What is wrong with how a faulty writer ended."""
    if kind == "kill" and ended != {"signal": signal.SIGKILL}:
        yield f"ended with {str(ended)[:200]}"
    if kind != "kill" and "signal" in ended:
        yield f"died of signal {ended['signal']}"
    if "error" in ended and not ended["project"]:
        yield f"not one of the project's errors: {ended['error'][:200]}"


def read_index(place: Path) -> Any:
    """The state of an index, with its answers."""
    try:
        index = open_index(place / "index")
    except IndexNotFoundError:
        return _NOTHING
    return [index.manifest["content_sha256"], toys.told(toys.toy_answerer(index))]


def writers(scratch: Path) -> Iterator[Writer]:
    """All that is written without training; within `toy_embedder`."""
    scratch.mkdir()
    first, second = (toys.catalogue(scratch / f"state{n}.jsonl", n, _COUNT) for n in (1, 2))
    tiny = str(toys.save_tiny_model(scratch / "tiny"))

    def build(source: Path) -> Callable[[Path], Any]:
        return lambda place: build_index(source, place / "index") and None

    yield Writer("build, the first", lambda _: None, build(first), read_index)
    yield Writer("build over an index", build(first), build(second), read_index)
    yield Writer("update", build(first), lambda place: update_index(place / "index", second) and None, read_index)

    def read_prepared(place: Path) -> Any:
        file = place / "out.csv"  # a report that is of another file says so
        return sha256_of(file) if file.exists() else _NOTHING

    yield Writer("prepare", lambda p: prepare(first, p / "out.csv") and None, lambda p: prepare(second, p / "out.csv") and None, read_prepared)  # fmt: skip

    def stage(place: Path) -> None:
        with mock.patch.object(stages, "_in_process", lambda _, work, folder, inputs: work(folder, inputs)):
            stages.Stages(place, {}).run("toy", _toy_stage, {"seed": 1}, {})

    yield Writer("a stage of a comparison", lambda _: None, stage, lambda p: [sha256_of(f) for f in p.glob("*/stage.json")] or _NOTHING)  # fmt: skip

    opened: dict[int, Answerer] = {}
    for number, source in ((1, first), (2, second)):
        index = build_index(source, scratch / f"index{number}")
        settings = AnswerSettings(top_k=number + 2)
        opened[number] = Answerer.from_pretrained(index.folder.parent, generator=tiny, device="cpu", dtype="float32", settings=settings)  # fmt: skip
        _ = opened[number].generator

    def read_saved(place: Path) -> Any:
        answerer = Answerer.from_pretrained(place / "saved", device="cpu", dtype="float32")
        answered = toys.told(answerer, toys.QUESTIONS[:2])
        return [answerer.index.manifest["content_sha256"], answerer.settings.to_dict(), answered]

    def save(number: int) -> Callable[[Path], Any]:
        return lambda place: opened[number].save_pretrained(place / "saved")

    yield Writer("save_pretrained over a saved Answerer", save(1), save(2), read_saved)
    yield Writer("the same where names cannot be exchanged", save(1), save(2), read_saved, renames=True)


def _toy_stage(folder: Path, inputs: Any) -> dict[str, Any]:
    write_json(folder / "kept.json", {"kept": True})
    return {"result": inputs["seed"], "seconds": 0.0, "peak_mb": 0, "commit": ""}


SMALL: Final = {
    "examples": 12, "validation": 12, "watched": 6, "test": 8, "steps": 4, "evaluations": 2, "context_tokens": 600,
    "max_new_tokens": 48, "batch_tokens": 2500, "batch_size": 4, "accumulation": 1, "rank": 4, "learning_rate": 0.02,
}  # fmt: skip


class _Over(BaseException):
    """All points were tried."""


def try_training(what: str, kinds: Sequence[Kind], scratch: Path, most: int | None) -> Tried:
    """The same for the save steps of a fine-tuning: its second "checkpoint", or its "adapter", over an older one.

    One run is brought to where the step begins; from there children are forked that go on.
    """
    module: Any = importlib.import_module("ragqa.training.fine_tune")
    fit: Any = importlib.import_module("ragqa.training.fit")
    scratch.mkdir()
    tiny = str(toys.save_tiny_model(scratch / "tiny"))
    build_index(toys.catalogue(scratch / "c.jsonl", 1, 120), scratch / "index")
    out, work = scratch / "run" / "adapter", scratch / "run" / ".adapter.training"
    asked: dict[str, Any] = SMALL | {"generator": tiny, "device": "cpu", "dtype": "float32", "overwrite": True}

    def train(resume: bool = False, seed: int = 1) -> str:
        return str(module.fine_tune(scratch / "index", out, resume=resume, seed=seed, **asked)["weights_sha256"])

    def read() -> Any:
        if what == "checkpoint":
            found = module.workplace.newest_sealed(work)
            return [found.name, sha256_of(found / "adapter_model.safetensors")] if found else _NOTHING
        answerer = Answerer.from_pretrained(scratch / "index", adapter=str(out), device="cpu", dtype="float32")
        return [sha256_of(out / "adapter_model.safetensors"), toys.told(answerer, toys.QUESTIONS[:1])]

    def after() -> list[Any]:
        seen = read()
        try:
            weights = train(resume=True)
        except RagqaError:  # there is nothing to go on with
            weights = train()
        return [seen, weights, entries(out.parent)]

    value(in_child(lambda: train(seed=2)))
    kept = scratch / "kept"
    shutil.copytree(out.parent, kept)
    expected = value(in_child(train))
    left = entries(out.parent)
    shutil.rmtree(out.parent)
    shutil.copytree(kept, out.parent)
    shutil.rmtree(kept)
    old_adapter = value(in_child(read)) if what == "adapter" else None
    tried = Tried(f"training: {what}", 0, 0, 0, 0, 0, [])
    pipe: list[int] = []  # of the child, in the child

    def each_point(step: Callable[[], Any]) -> Any:
        """In the parent all points; in a child what `step` gives, faults running."""
        shutil.copytree(out.parent, kept)

        def fork(faults: Faults) -> dict[str, Any] | None:
            reading, writing = os.pipe()
            child = os.fork()
            if child:
                os.close(writing)
                return wait(child, reading)
            os.close(reading)
            signal.alarm(_PATIENCE)
            pipe[:] = [writing]
            counting.enter_context(counted(faults))
            running[:] = [faults]
            return None

        def fresh() -> None:
            shutil.rmtree(out.parent)
            shutil.copytree(kept, out.parent)

        if (ended := fork(Faults())) is None:
            return step()
        operations = value(ended)
        tried.operations = len(operations)
        new = value(in_child(read))
        old = old_adapter
        if what == "checkpoint":
            fresh()
            old = value(in_child(read))
        for at in chosen(len(operations), most):
            for kind in kinds:
                fresh()
                where = f"{tried.name}, {kind} at {at} ({operations[at - 1]})"
                if (ended := fork(Faults(at, kind))) is None:
                    return step()
                tried.points += 1
                tried.failures.extend(f"{where}: {line}" for line in wrong_end(ended, kind))
                tried.refused += "error" in ended
                found = in_child(after)
                if "value" not in found:
                    tried.failures.append(f"{where}: afterwards {found}")
                    continue
                seen, weights, names = found["value"]
                tried.old, tried.new = tried.old + (seen == old), tried.new + (seen == new)
                if seen not in (old, new):
                    tried.failures.append(f"{where}: neither old nor new: {str(seen)[:200]}")
                if weights != expected:
                    tried.failures.append(f"{where}: the same command gave other weights")
                if names != left:
                    tried.failures.append(f"{where}: left over or missing: {sorted(set(names) ^ set(left))}")
        raise _Over

    running: list[Faults] = []
    counting = contextlib.ExitStack()  # never left: the child ends
    armed = [True]
    saved: list[int] = []
    save, trained = fit._Trainer._save_checkpoint, module.train_adapter

    def hooked_save(trainer: Any, model: Any, trial: Any) -> Any:
        saved.append(1)
        if what != "checkpoint" or len(saved) != 2:
            return save(trainer, model, trial)
        each_point(lambda: None)
        save(trainer, model, trial)
        raise _Over

    def hooked_train(*arguments: Any) -> Any:
        result = trained(*arguments)
        if what == "checkpoint" or not armed:
            return result
        armed.clear()
        return each_point(lambda: result)

    try:
        with mock.patch.object(fit._Trainer, "_save_checkpoint", hooked_save), mock.patch.object(module, "train_adapter", hooked_train):  # fmt: skip
            train()
    except _Over:
        pass
    except BaseException as error:
        if not pipe:
            raise
        _end(pipe[0], _raising(error))
    if pipe:
        _end(pipe[0], lambda: running[0].done)
    shutil.rmtree(scratch)
    return tried


def _raising(error: BaseException) -> Callable[[], Any]:
    def work() -> Any:
        raise error

    return work
