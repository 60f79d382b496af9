"""Many readers and one writer: while an index is updated, every reader sees one whole state."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from unittest import mock

from benchmarks import toys
from benchmarks.reliability_crash import in_child, value, wait
from ragqa import Answerer, build_index, open_index, update_index
from ragqa.index import storage

_COUNT: Final = 50
_STATE: Final = re.compile(r"State (\d+)\.")


def read_during_updates(scratch: Path, updates: int) -> dict[str, Any]:
    """Update an index so many times, each time all its products, while threads and processes open and ask it."""
    index = scratch / "index"
    build_index(toys.catalogue(scratch / "0.jsonl", 0, _COUNT), index)
    stop = scratch / "stop"
    children = {
        "process that opens anew each time": lambda: _read(index, stop.exists),
        "process that opens slowly": lambda: _read_slowly(index, stop.exists),
        "process that keeps what it opened": lambda: _keep(index, stop.exists),
    }
    started = {}
    for name, work in children.items():
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            with os.fdopen(writing, "w") as pipe:
                json.dump(work(), pipe)
            os._exit(0)
        os.close(writing)
        started[name] = (child, reading)
    found: dict[str, Any] = {}
    shared = [toys.toy_answerer(open_index(index))]
    threads = {
        "thread that opens anew each time": lambda: _read(index, stop.exists),
        "two threads that share an Answerer": lambda: _share(shared[0], stop.exists),
        "the other of them": lambda: _share(shared[0], stop.exists),
    }
    running = [threading.Thread(target=_into, args=(found, name, work)) for name, work in threads.items()]
    for thread in running:
        thread.start()
    failures = []
    try:
        for state in range(1, updates + 1):
            done = update_index(index, toys.catalogue(scratch / "next.jsonl", state, _COUNT), allow_deletions=True)
            if not done.changed:
                failures.append(f"update {state} changed nothing")
    finally:
        stop.touch()
        for thread in running:
            thread.join()
    found |= {name: wait(*one) for name, one in started.items()}
    failures += [f"{name}: {line}" for name, one in found.items() for line in one.pop("failures", [str(one)])]
    shared.clear()  # and with it the hold on the first generation
    update_index(index, toys.catalogue(scratch / "next.jsonl", updates + 1, _COUNT), allow_deletions=True)
    generations = sorted(path.name for path in index.glob("g*"))
    if len(generations) != 2:
        failures.append(f"generations left once no reader holds any: {generations}")
    return {"updates": updates, "readers": dict(sorted(found.items())), "failures": failures}


def _into(found: dict[str, Any], name: str, work: Callable[[], Any]) -> None:
    found[name] = work()


class _Seen:
    """What a reader counts."""

    def __init__(self) -> None:
        self.opened = self.answers = self.mixed = self.errors = 0
        self.states: set[int] = set()
        self.failures: list[str] = []

    def ask(self, answerer: Any) -> None:
        """Ask, and look whether all products that are told and all of the store are of one state."""
        answers = answerer.ask_many(toys.QUESTIONS, min_confidence=0.1)
        texts = [source.description for answer in answers for source in answer.sources]
        texts += [product.description for product in answerer.index.store]
        states = {int(found[1]) for text in texts if (found := _STATE.match(text))}
        self.answers += len(answers)
        self.states |= states
        if len(states) != 1:
            self.mixed += 1
            self.failures.append(f"states {sorted(states)} at once")

    def told(self) -> dict[str, Any]:
        """All counts."""
        return {
            "opened": self.opened, "answers": self.answers, "states": len(self.states), "mixed": self.mixed,
            "errors": self.errors, "failures": self.failures[:5],
        }  # fmt: skip


def _read(index: Path, stopped: Callable[[], bool]) -> dict[str, Any]:
    seen = _Seen()
    while not stopped():
        try:
            seen.ask(toys.toy_answerer(open_index(index)))
            seen.opened += 1
        except Exception as error:  # noqa: BLE001  (none is to be)
            seen.errors += 1
            seen.failures.append(f"{type(error).__name__}: {error}")
    return seen.told()


def _read_slowly(index: Path, stopped: Callable[[], bool]) -> dict[str, Any]:
    """A reader between whose steps of opening several updates have time to happen."""
    real = storage.read_manifest

    def slow(*arguments: Any) -> Any:
        time.sleep(0.5)
        found = real(*arguments)
        time.sleep(0.5)
        return found

    with mock.patch.object(storage, "read_manifest", slow):
        return _read(index, stopped)


def _keep(index: Path, stopped: Callable[[], bool]) -> dict[str, Any]:
    """A reader that goes on with what it opened at first; then all its generation's files must still be there."""
    seen = _Seen()
    opened = open_index(index)
    seen.opened, answerer = 1, toys.toy_answerer(opened)
    before = toys.told(answerer)
    while not stopped():
        seen.ask(answerer)
    if toys.told(answerer) != before or toys.told(toys.toy_answerer(_again(opened))) != before:
        seen.failures.append("what was kept answers otherwise than at first")
    return seen.told()


def _again(opened: Any) -> Any:
    """The same generation, opened once more from its files."""
    with mock.patch.object(storage, "hold_live", return_value=((opened.folder, None), None)):
        return open_index(opened.folder.parent)


def _share(answerer: Any, stopped: Callable[[], bool]) -> dict[str, Any]:
    seen = _Seen()
    while not stopped():
        seen.ask(answerer)
    return seen.told()


def forked(scratch: Path) -> dict[str, Any]:
    """Open and ask with several threads, fork, ask in the child and in the parent, at once; and in a spawned process."""
    import faiss
    import torch

    tiny = str(toys.save_tiny_model(scratch / "tiny"))
    threads = faiss.omp_get_max_threads(), torch.get_num_threads()
    for use in (faiss.omp_set_num_threads, torch.set_num_threads):
        use(max(2, os.cpu_count() or 2))
    try:
        answerer = Answerer.from_pretrained(scratch / "index", generator=tiny, device="cpu", dtype="float32")
        questions = toys.QUESTIONS * 4
        right = toys.told(answerer, questions)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            signal.alarm(60)  # one that waits for its parent's threads waits for ever
            with os.fdopen(writing, "w") as pipe:
                json.dump({"value": toys.told(answerer, questions) == right}, pipe)
            os._exit(0)
        os.close(writing)
        here = toys.told(answerer, questions) == right
        there = wait(child, reading).get("value") is True
        once_more = value(in_child(lambda: toys.told(answerer, questions) == right))
    finally:
        faiss.omp_set_num_threads(threads[0])
        torch.set_num_threads(threads[1])
    same = [here, there, once_more]
    failures = [f"after a fork: {same} (parent, child, another child)"] if not all(same) else []
    return {"asked": 3 * len(questions), "same": sum(same) * len(questions), "failures": failures}
