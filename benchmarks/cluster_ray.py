"""What Ray costs and bears, for `benchmarks.cluster`; each stage a process: ``python -m benchmarks.cluster_ray STAGE N FOLDER``.

Memory is the proportional set size of the process and all it started, so that what they share is counted once; looked at
twice a second.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from benchmarks.road import ROOT
from benchmarks.scale_catalogue import make_catalogue
from ragqa.versions import installed_versions, setting

FILES: Final = 8  # that the catalogue is in
WORKERS: Final = 2
MARK: Final = 0.85
STAGES: Final = ("make", "one", "ray", "killed")
_PACKAGES: Final = ("ray", "torch", "faiss-cpu", "pyarrow", "numpy")
_KILLED_AFTER: Final = 0.3  # share of the blocks that are there when a worker is killed
_CLOSE: Final = 1e-5  # largest difference of two vectors' numbers that are the same


def measure(sizes: Sequence[int], work: Path, again: bool, killed_at: Sequence[int]) -> dict[str, Any]:
    """Every stage at every size, each in a process of its own; what is kept in the work folder is not measured again.

    A worker is killed only at the sizes of `killed_at`.
    """
    result: dict[str, Any] = {
        "machine": setting(),
        "versions": installed_versions(_PACKAGES),
        "workers": WORKERS,
        "files": FILES,
        "sizes": {},
    }
    for size in sizes:
        for stage in STAGES:
            if stage == "killed" and size not in killed_at:
                continue
            kept = work / f"{size}-{stage}.json"
            if again or not kept.exists():
                print(f"{time.strftime('%H:%M:%S')} {stage} at {size:,}", file=sys.stderr, flush=True)
                done = subprocess.run(
                    [sys.executable, "-m", "benchmarks.cluster_ray", stage, str(size), str(work)],
                    cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"}, stdout=subprocess.PIPE, text=True, check=True,
                )  # fmt: skip
                kept.write_text(done.stdout.splitlines()[-1] + "\n", "utf-8")
            result["sizes"].setdefault(str(size), {})[stage] = json.loads(kept.read_text("utf-8"))
    return result


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    machine, threads = result["machine"], next(iter(result["sizes"].values()))["one"]["threads"]
    versions = ", ".join(f"{name} {v}" for name, v in result["versions"].items() if name not in ("python", "ragqa"))
    lines = [
        f"Measured on {machine['date']} at commit `{machine['commit']}`: {machine['machine']}, Python {machine['python']}, "
        f"no GPU; {versions}. The same catalogue, in {result['files']} files: by one process with {threads} "
        f"threads; by a Ray of its own with {result['workers']} workers of a thread each; and by two Ray nodes of a worker "
        "each, one of which is killed when a third of the blocks are there. Titles a second: of embedding, and of the whole "
        "command with the start of Ray; memory: the most that the command and all it started held.",
        "",
        "| titles | by | start of Ray | cleaning | embedding | all | titles/s embedded | titles/s in all | of one process's "
        "| memory |",
        "|---" * 10 + "|",
    ]
    for size, at in result["sizes"].items():
        for stage in (name for name in STAGES if name in _BY and name in at):
            found, share = at[stage], at["one"]["total"] / at[stage]["total"]
            seconds = found["seconds"]
            lines.append(
                f"| {int(size):,} | {_BY[stage]} | {found['connecting']:.1f} s | {seconds['clean']:.1f} s | "
                f"{seconds['embed']:.1f} s | {found['total']:.1f} s | {found['products'] / seconds['embed']:,.0f} | "
                f"{found['products'] / found['total']:,.0f} | {share:.2f} | {found['peak'] / 1e6:,.0f} MB |"
            )
    return "\n".join([*lines, "", _marks(result)])


_BY: Final = {"one": "one process", "ray": "Ray, two workers", "killed": "two Ray nodes, a worker killed"}


def _marks(result: dict[str, Any]) -> str:
    largest = str(max(map(int, result["sizes"])))
    share = result["sizes"][largest]["one"]["total"] / result["sizes"][largest]["ray"]["total"]
    compared = [one for at in result["sizes"].values() for one in at.values() if "apart" in one]
    apart, same = max(one["apart"] for one in compared), all(one["same_products"] for one in compared)
    lost = [at["killed"]["lost"] for at in result["sizes"].values() if "killed" in at]
    rows = [
        (
            f"titles/s in all of one process's, {int(largest):,} titles",
            f"at least {MARK}",
            f"{share:.2f}",
            share >= MARK,
        ),
        (
            "products lost with a killed worker",
            "0",
            f"{sum(lost)}" if lost else "not tried",
            bool(lost) and not sum(lost),
        ),
        ("products and their order as one process's", "the same", "the same" if same else "others", same),
        ("largest difference of a vector's number", f"under {_CLOSE:g}", f"{apart:.1e}", apart < _CLOSE),
    ]
    lines = ["| mark | wanted | found | reached |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {a} | {b} | {c} | {'yes' if met else '**no**'} |" for a, b, c, met in rows])


def make(size: int, work: Path) -> dict[str, Any]:
    """The catalogue, in files of as many lines."""
    whole, folder = work / f"catalogue-{size}.jsonl", work / f"catalogue-{size}"
    made = make_catalogue(size, whole)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    each = -(-size // FILES)
    with whole.open("rb") as lines:
        for number in range(FILES):
            with (folder / f"{number}.jsonl").open("wb") as part:
                part.writelines(line for _, line in zip(range(each), lines))  # noqa: B905  (the lines go on)
    whole.unlink()
    return made


def one(size: int, work: Path) -> dict[str, Any]:
    """By this process."""
    return _built(size, work, "one", None, None)


def ray(size: int, work: Path) -> dict[str, Any]:
    """By Ray on this machine."""
    return _built(size, work, "ray", None, WORKERS) | _compared(size, work, "ray")


def killed(size: int, work: Path) -> dict[str, Any]:
    """By two Ray nodes, of which a worker is killed."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    from ragqa.index.blocks import SIZE
    from ragqa.index.shards import Shards

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    after, write, died = max(int(_KILLED_AFTER * size / SIZE), 1), Shards.write, list[int]()

    def writing(self: Shards, start: int, vectors: Any) -> None:
        nonlocal after
        write(self, start, vectors)
        after -= 1
        if after == 0:
            died.append(min(_workers()))
            os.kill(died[0], signal.SIGKILL)

    Shards.write = writing  # type: ignore[method-assign]
    try:
        found = _built(size, work, "killed", cluster.address, WORKERS)
    finally:
        cluster.shutdown()
    return found | {"killed": len(died)} | _compared(size, work, "killed")


def _workers() -> Iterator[int]:
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        name = (process.info["cmdline"] or [""])[0]
        if name.startswith("ray::MapWorker(") and "Embed" in name:
            yield process.pid


def _built(size: int, work: Path, name: str, address: str | None, workers: int | None) -> dict[str, Any]:
    """Build the index as the command does, and measure it."""
    from contextlib import nullcontext

    from ragqa import build_index
    from ragqa.cluster import engine as engine_
    from ragqa.cluster.engine import RayEngine

    out = work / f"index-{size}-{name}"
    shutil.rmtree(out, ignore_errors=True)
    engine_._FEW_BYTES = 0  # also a small catalogue is cleaned by Ray
    started = time.perf_counter()
    with peak() as most, nullcontext() if workers is None else RayEngine(address, workers) as engine:
        connected = time.perf_counter() - started
        index = build_index(work / f"catalogue-{size}", out, engine=engine)
        total = time.perf_counter() - started
    return {
        "products": len(index),
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        "connecting": round(connected, 3),
        "seconds": index.manifest["seconds"],
        "total": round(total, 3),
        "peak": max(most),
    }


def _compared(size: int, work: Path, name: str) -> dict[str, Any]:
    """An index beside that of one process: products that are lost, whether all are the same, and how far vectors are apart."""
    import numpy as np

    from ragqa import open_index

    theirs, mine = open_index(work / f"index-{size}-one"), open_index(work / f"index-{size}-{name}")
    lost = {product.id for product in theirs.store} - {product.id for product in mine.store}
    same = len(mine.store) == len(theirs.store) and all(a == b for a, b in zip(mine.store, theirs.store, strict=True))
    apart = 0.0
    for start in range(0, len(theirs) if same else 0, 8192):
        count = min(8192, len(theirs) - start)
        rows = (index.dense.vectors(range(start, start + count)) for index in (mine, theirs))
        apart = max(apart, float(np.abs(np.subtract(*rows)).max()))
    return {"lost": len(lost), "same_products": same, "apart": apart}


@contextmanager
def peak() -> Iterator[list[int]]:
    """Within, the memory of this process and all it started is looked at, in bytes."""
    import psutil

    seen, over = [0], threading.Event()

    def look() -> None:
        me = psutil.Process()
        while not over.wait(0.5):
            held = 0
            for process in [me, *me.children(recursive=True)]:
                with suppress(psutil.Error):
                    held += process.memory_full_info().pss
            seen.append(held)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]))))
