"""What `benchmarks.scale` measures, each stage in a process of its own: ``python -m benchmarks.scale_stages STAGE N FOLDER``.

The stage's figures are the last line of its output, as JSON. Times are in milliseconds where they are of questions and in
seconds elsewhere, memory and files in bytes.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.scale_catalogue import SEED, make_catalogue, make_questions

SINGLE: Final = 200  # questions asked one by one
MANY: Final = 256  # asked at once
WARM: Final = 20  # asked before anything is timed
ASKED: Final = WARM + SINGLE + MANY  # each about a product of its own
K: Final = 10
STARTS: Final = {"cold": 3, "warm": 5}  # in this order: a cold one leaves in the cache what the next one reads
EMBEDDED: Final = 3000
CHANGED: Final = 0.01  # share of the products that an update finds changed
REPETITIONS: Final = 5

# What a program does that asks one question; started without anything of the benchmark's.
_START: Final = """
import sys, time
from ragqa import Answerer
imported = time.monotonic()
answerer = Answerer.from_pretrained(sys.argv[1])
opened = time.monotonic()
answerer.retriever.retrieve([sys.argv[2]], 5)
print(imported, opened, time.monotonic())
"""


def catalogue_of(size: int, work: Path) -> Path:
    """Where the catalogue of so many products is."""
    return work / f"catalogue-{size}.jsonl"


def index_of(size: int, work: Path) -> Path:
    """Where its index is."""
    return work / f"index-{size}"


def questions_of(size: int, work: Path) -> dict[str, list[dict[str, Any]]]:
    """The questions about its products: to warm up with, to ask one by one, and to ask at once."""
    asked = json.loads((work / f"questions-{size}.json").read_text("utf-8"))
    return {"warm": asked[:WARM], "single": asked[WARM : WARM + SINGLE], "many": asked[WARM + SINGLE :]}


def make(size: int, work: Path) -> dict[str, Any]:
    """The catalogue."""
    started = time.perf_counter()
    found = make_catalogue(size, catalogue_of(size, work))
    return found | {"bytes": catalogue_of(size, work).stat().st_size, "seconds": time.perf_counter() - started}


def build(size: int, work: Path) -> dict[str, Any]:
    """The index, and the questions about its products."""
    from ragqa import build_index

    folder = index_of(size, work)
    resumed = (folder / ".partial" / "key.json").exists()
    if not resumed:
        shutil.rmtree(folder, ignore_errors=True)
    started = time.perf_counter()
    index = build_index(catalogue_of(size, work), folder, recipe="auto")
    seconds, peak = time.perf_counter() - started, peak_memory()
    manifest = index.manifest
    rows = random.Random(SEED).sample(range(len(index)), ASKED)  # noqa: S311  (not for secrets)
    asked = make_questions([index.store[row] for row in rows])
    (work / f"questions-{size}.json").write_text(json.dumps(asked, indent=0), "utf-8")
    return {
        "products": len(index),
        "resumed": resumed,
        "seconds": manifest["seconds"] | {"total": round(seconds, 3)},
        "peak": peak,
        "parts": {name: part["size"] for name, part in manifest["parts"].items()},
        "dense": manifest["dense"],
        "dimension": manifest["dimension"],
        "embedded_in": manifest["embedder"]["dtype"],
    }


def search(size: int, work: Path) -> dict[str, Any]:
    """Questions one by one and at once, and the memory that is held meanwhile."""
    import numpy as np

    from ragqa.answerer import Answerer
    from ragqa.retrieval.question import parse_question
    from ragqa.retrieval.terms import terms

    answerer = Answerer.from_pretrained(index_of(size, work))
    retriever, index = answerer.retriever, answerer.index
    opened = memory(index.folder)
    asked = {name: [q["text"] for q in some] for name, some in questions_of(size, work).items()}
    subjects = {name: [parse_question(text).subject for text in some] for name, some in asked.items()}
    for text in asked["warm"]:
        retriever.retrieve([text], 5)
    times, rates = {}, {}
    # First, so that no part of a question was looked up before.
    times["retrieve"] = timed(lambda text: retriever.retrieve([text], 5), asked["single"])
    times["embed"] = timed(lambda subject: retriever.embed([subject]), subjects["single"])
    vectors = {name: retriever.embed(some) for name, some in subjects.items()}
    times["dense"] = timed(lambda vector: index.dense.search(vector[None], K), list(vectors["single"]))
    words = {name: [terms(subject) for subject in some] for name, some in subjects.items()}
    times["lexical"] = timed(lambda words: index.words.search(words, K), words["single"])
    titles = index.words.without_descriptions()
    times["titles"] = timed(lambda words: titles.search(words, K), words["single"])
    rates["retrieve"] = rate(lambda: retriever.retrieve(asked["many"], 5), MANY)
    rates["dense"] = rate(lambda: index.dense.search(vectors["many"], K), MANY)
    held = memory(index.folder)
    np.savez(work / f"vectors-{size}.npz", allow_pickle=False, **vectors)  # for peers that take vectors
    return {
        "ms": {name: summary(found) for name, found in times.items()},
        "many": rates,
        "memory": {"opened": opened, "searching": held},
        "peak": peak_memory(),
    }


def start(size: int, work: Path) -> dict[str, Any]:
    """From the start of a process to its first retrieval: without the index's files in the system's cache, and with."""
    texts = iter(q["text"] for q in questions_of(size, work)["single"])
    folder = index_of(size, work)
    found: dict[str, list[list[float]]] = {}
    for name, count in STARTS.items():
        for _ in range(count):
            if name == "cold":
                drop_from_cache(folder)
            started = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-c", _START, str(folder), next(texts)], stdout=subprocess.PIPE, text=True, check=True
            )
            # The clock is the same in all processes.
            moments = map(float, done.stdout.split()[-3:])
            found.setdefault(name, []).append([round(moment - started, 3) for moment in moments])
    return {
        name: dict(zip(("imported", "opened", "retrieved"), zip(*runs, strict=True), strict=True))
        for name, runs in found.items()
    }


def update(size: int, work: Path) -> dict[str, Any]:
    """The index brought to a catalogue of which one product in a hundred was changed, deleted, or added; on a copy."""
    from ragqa import update_index

    old, new, folder = catalogue_of(size, work), work / f"changed-{size}.jsonl", work / f"updated-{size}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(index_of(size, work), folder, copy_function=os.link)  # of the files: an update changes none
    random_ = random.Random(SEED)  # noqa: S311  (not for secrets)
    with old.open(encoding="utf-8") as lines, new.open("w", encoding="utf-8") as out:
        for line in lines:
            if random_.random() >= CHANGED:
                out.write(line)
                continue
            product, kind = json.loads(line), random_.randrange(3)
            if kind == 0:
                product["content"] += " Now with a longer guarantee."
            elif kind == 1:
                out.write(line)
                product |= {"uid": f"{product['uid']}-new", "title": f"{product['title']} refurbished"}
            if kind < 2:
                out.write(json.dumps(product) + "\n")
    started = time.perf_counter()
    report = update_index(folder, new)
    seconds = time.perf_counter() - started
    shutil.rmtree(folder)
    new.unlink()
    found = report.to_dict()
    return found | {"seconds": found["seconds"] | {"total": round(seconds, 3)}, "peak": peak_memory()}


def embedding(size: int, work: Path) -> dict[str, Any]:
    """Titles a second of ours and of sentence-transformers used as its documentation shows, turn by turn; what they find."""
    from importlib.util import find_spec

    from sentence_transformers import SentenceTransformer

    from ragqa import models
    from ragqa.index.quantise import quantised
    from ragqa.index.storage import open_index
    from ragqa.index.tune import made_questions
    from ragqa.retrieval.embed import SentenceEmbedder, unit

    store = open_index(index_of(size, work), verify="sizes").store
    rows = random.Random(SEED).sample(range(len(store)), min(EMBEDDED, len(store)))  # noqa: S311
    titles = [store[row].title for row in rows]
    stock = SentenceTransformer(str(models.find_model(models.DEFAULT_EMBEDDER).folder), device="cpu")
    model = models.load_embedder(models.DEFAULT_EMBEDDER)[0]
    ours = SentenceEmbedder(model)
    both: dict[str, Callable[[list[str]], Any]] = {
        "ragqa": ours.embed_titles,
        "sentence-transformers": lambda some: stock.encode(some, show_progress_bar=False),
    }
    dtypes = {"ragqa": models.dtype_name(model), "sentence-transformers": models.dtype_name(stock)}
    if find_spec("nncf") and find_spec("openvino"):
        # Quantised on other titles than most of these: a random sample of all.
        with tempfile.TemporaryDirectory() as folder:
            fast, _ = quantised(models.DEFAULT_EMBEDDER, ours, store, Path(folder), SEED)
        both["ragqa, int8"], dtypes["ragqa, int8"] = fast.embed_titles, "int8"
    rates: dict[str, list[float]] = {name: [] for name in both}
    vectors = {}
    for embed in both.values():
        embed(titles[:64])
    for _ in range(REPETITIONS):
        for name, embed in both.items():
            started = time.perf_counter()
            vectors[name] = embed(titles)
            rates[name].append(round(len(titles) / (time.perf_counter() - started), 1))
    vectors = {name: unit(found) for name, found in vectors.items()}
    cosines = {
        name: (found * vectors["sentence-transformers"]).sum(axis=1)
        for name, found in vectors.items()
        if name != "sentence-transformers"
    }
    questions = made_questions([store[row] for row in rows], SEED)
    asked = dict.fromkeys(both, ours.embed_questions(questions))  # in 8 bits are titles alone
    asked["sentence-transformers"] = unit(stock.encode(questions, show_progress_bar=False))
    nearest = {name: (asked[name] @ vectors[name].T).argmax(axis=1) for name in both}
    return {
        "titles": len(titles),
        "of": size,
        "dtype": dtypes,
        "rates": rates,
        "cosine": {name: {"least": float(one.min()), "mean": float(one.mean())} for name, one in cosines.items()},
        "recall": {name: float((found == range(len(rows))).mean()) for name, found in nearest.items()},
    }


def timed(ask: Callable[[Any], Any], arguments: Sequence[Any]) -> list[float]:
    """Milliseconds of each."""
    found = []
    for argument in arguments:
        started = time.perf_counter()
        ask(argument)
        found.append(1000 * (time.perf_counter() - started))
    return found


def rate(ask: Callable[[], Any], count: int) -> float:
    """So many a second, the median of three times."""
    return count / statistics.median(timed(lambda _: ask(), range(3))) * 1000


def summary(times: Sequence[float]) -> dict[str, float]:
    """The median, the time that 95 % stay within, and the mean."""
    import numpy as np

    p50, p95 = np.quantile(times, [0.5, 0.95])
    return {"p50": float(p50), "p95": float(p95), "mean": float(np.mean(times))}


def memory(folder: Path | None = None) -> dict[str, int]:
    """Resident bytes of this process: its own (anonymous), pages of files in `folder`, pages of other files.

    Pages of files are a copy of what is on disk: the system takes them back when it needs room.
    """
    found = {"anonymous": 0, "index_files": 0, "other_files": 0}
    prefix, kind, resident = f"{folder.resolve()}{os.sep}" if folder else None, "other_files", 0
    for line in Path("/proc/self/smaps").read_text("utf-8", "replace").splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            path = line.split(maxsplit=5)[5] if len(line.split(maxsplit=5)) == 6 else ""
            kind = "index_files" if prefix and path.startswith(prefix) else "other_files"
        elif line.startswith("Rss:"):
            resident = int(line.split()[1]) << 10
        elif line.startswith("Anonymous:"):
            own = int(line.split()[1]) << 10
            found["anonymous"] += own
            found[kind] += resident - own
    return found | {"resident": sum(found.values())}


def peak_memory() -> int:
    """The most bytes this process had resident at once.

    Not `resource.getrusage`: its figure begins with that of the process that started this one.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("utf-8"))
    return int(found[1]) << 10 if found else 0


def forget_peak() -> None:
    """Let `peak_memory` count from now on, and give back what is not used."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def drop_from_cache(folder: Path) -> None:
    """Let the system forget the files of a folder, so that they are read from the disk again."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> int:
    """Run one stage."""
    stage, size, work = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    stages = {
        "make": make, "build": build, "search": search, "start": start, "update": update, "embedding": embedding,
    }  # fmt: skip
    if stage in stages:
        found = stages[stage](size, work)
    else:
        from benchmarks.scale_peers import measure

        found = measure(stage, size, work)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
