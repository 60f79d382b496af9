"""Does Milvus find what FAISS finds? ``python -m benchmarks.milvus --keep``.

An index on disk and the same products and vectors in Milvus (Milvus Lite's server, in a process of its own, over gRPC on
loopback) are asked the made questions of `benchmarks.retrieval`, one after the other, through the same `Answerer`. Counted is
how often the first candidate is the same product, and each difference is told with its reason. A server given by ``--uri`` takes
the place of Milvus Lite's, such as ``--uri milvus://host:19530/bestbuy``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.pages import put
from benchmarks.retrieval import SEED
from benchmarks.road import CATALOGUES, HERE, README
from ragqa import build_index, build_milvus
from ragqa.answerer import Answerer
from ragqa.errors import RagqaError
from ragqa.files import sha256_of
from ragqa.index.storage import on_disk
from ragqa.records import Product, Retrieval
from ragqa.training.questions import LabelledQuestion
from ragqa.training.splits import SplitSettings, make_split
from ragqa.versions import installed_versions, setting

RESULT: Final = HERE / "results" / "milvus.json"
MARK: Final = 0.99
_TOP: Final = 10
_PACKAGES: Final = ("pymilvus", "milvus-lite", "faiss-cpu", "torch", "sentence-transformers")
# Scores that differ by less are one score.
_EQUAL: Final = 1e-5


def main() -> int:
    """Measure, and keep the result where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogue", default="bestbuy", choices=CATALOGUES)
    parser.add_argument("--questions", type=int, default=1000, help="(default: %(default)s)")
    parser.add_argument("--indexes", type=Path, default=Path("indexes"), help="where the index is, or is built")
    parser.add_argument("--uri", help="of a Milvus to take in the place of Milvus Lite's server")
    parser.add_argument("--keep", action="store_true", help="make it the committed result")
    parser.add_argument("--tables", action="store_true", help="only write the table from the committed result")
    chosen = parser.parse_args()
    if chosen.tables:
        put(README, "milvus", table(json.loads(RESULT.read_text("utf-8"))))
        return 0
    folder = chosen.indexes / chosen.catalogue
    try:
        if not folder.exists():
            build_index(CATALOGUES[chosen.catalogue], folder, recipe="flat")
        served = contextlib.nullcontext(chosen.uri) if chosen.uri else lite(chosen.indexes / "milvus", chosen.catalogue)
        with served as uri:
            found = measure(folder, uri, chosen.questions)
    except RagqaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    about = {"name": chosen.catalogue, "sha256": sha256_of(CATALOGUES[chosen.catalogue])}
    result = {
        "machine": setting(),
        "versions": installed_versions(_PACKAGES),
        "seed": SEED,
        "catalogue": about,
        **found,
    }
    print(table(result))
    if chosen.keep:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        put(README, "milvus", table(result))
    return 0


@contextlib.contextmanager
def lite(folder: Path, name: str) -> Iterator[str]:
    """The address of a catalogue on a server of Milvus Lite, in a process of its own, while the block runs."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-u", "-m", "milvus_lite", "server", "--data-dir", str(folder), "--host", "127.0.0.1"]
    with subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.PIPE, text=True) as server:
        try:
            if server.stdout is None or "listening" not in server.stdout.readline():
                raise RagqaError("Milvus Lite's server does not start; install it: pip install 'ragqa[milvus]'")
            yield f"milvus://127.0.0.1:{port}/{name}?timeout=60"
        finally:
            server.terminate()


def measure(folder: Path, uri: str, count: int) -> dict[str, Any]:
    """Ask both the same questions."""
    here = Answerer.from_pretrained(folder, device="cpu")
    products = list(on_disk(here.index).store)
    split = make_split(products, SplitSettings(seed=SEED, train=200, validation=200, test=count // 2))
    asked = [q for part in ("seen", "unseen") for q in split.questions[f"test_{part}"] if q.product_id]
    loaded = build_milvus(folder, uri)
    there = Answerer.from_pretrained(uri, device="cpu")
    descriptions = {product.id: product.description for product in products}
    right = [descriptions[q.product_id or ""] for q in asked]
    faiss, milvus = (_asked(answerer, asked) for answerer in (here, there))
    started = time.perf_counter()
    there.retrieve([q.text for q in asked[:256]], top_k=_TOP)
    together = (time.perf_counter() - started) / min(len(asked), 256)
    differences = [
        {"question": number, "kind": question.kind, **_difference(one, other, wanted)}
        for number, (question, one, other, wanted) in enumerate(zip(asked, faiss[0], milvus[0], right, strict=True))
        if first(one) != first(other)
    ]
    return {
        "products": len(products),
        "questions": len(asked),
        "dense": {"faiss": here.index.manifest["dense"]["factory"], "milvus": loaded.manifest["dense"]["type"]},
        "server": loaded.manifest["versions"]["milvus"],
        "load_seconds": loaded.manifest["seconds"]["load"],
        "same_first": round(1 - len(differences) / len(asked), 4),
        "same_first_by_kind": _by_kind(asked, differences),
        "same_ten": round(statistics.fmean(map(_shared, faiss[0], milvus[0])), 4),
        "confidence_differs_by": round(max(abs(a.confidence - b.confidence) for a, b in zip(faiss[0], milvus[0], strict=True)), 4),
        "recall": {
            name: {f"@{k}": _recall(found, right, k) for k in (1, _TOP)}
            for name, (found, _) in (("faiss", faiss), ("milvus", milvus))
        },
        "milliseconds": {
            name: _times(seconds) for name, (_, seconds) in (("faiss", faiss), ("milvus", milvus))
        } | {"milvus, 256 at once, for one": round(1000 * together, 2)},
        "differences": differences,
    }  # fmt: skip


def first(found: Retrieval) -> Product | None:
    """The product that would be answered with."""
    return found.candidates[0].product if found.candidates else None


def _asked(answerer: Answerer, asked: Sequence[LabelledQuestion]) -> tuple[list[Retrieval], list[float]]:
    found, seconds = list[Retrieval](), list[float]()
    answerer.retrieve([asked[0].text], top_k=_TOP)  # the first search of all takes longer
    for question in asked:
        started = time.perf_counter()
        found += answerer.retrieve([question.text], top_k=_TOP)
        seconds.append(time.perf_counter() - started)
    return found, seconds


def _difference(one: Retrieval, other: Retrieval, right: str) -> dict[str, Any]:
    """Why two first candidates are not the same product."""
    mine, its = (first(found) for found in (one, other))
    scores = {c.product.id: c.score for c in one.candidates}
    if mine and mine.id not in {c.product.id for c in other.candidates}:
        why = "Milvus's search by words has not found FAISS's first"
    elif its and its.id not in scores:
        why = "FAISS's index has not found Milvus's first"
    elif mine and its and abs(scores[mine.id] - scores[its.id]) < _EQUAL:
        why = "both have one score"
    else:
        why = "scores differ"
    is_right = {"faiss": bool(mine and mine.description == right), "milvus": bool(its and its.description == right)}
    return {"why": why, "right": [name for name, fine in is_right.items() if fine]}


def _by_kind(asked: Sequence[LabelledQuestion], differences: Sequence[dict[str, Any]]) -> dict[str, float]:
    every, other = Counter(q.kind for q in asked), Counter(one["kind"] for one in differences)
    return {kind: round(1 - other[kind] / count, 4) for kind, count in sorted(every.items())}


def _shared(one: Retrieval, other: Retrieval) -> float:
    mine, its = ({c.row for c in found.candidates} for found in (one, other))
    return len(mine & its) / max(len(mine), len(its), 1)


def _recall(found: Sequence[Retrieval], right: Sequence[str], k: int) -> float:
    hits = [any(c.product.description == wanted for c in one.candidates[:k]) for one, wanted in zip(found, right, strict=True)]  # fmt: skip
    return round(statistics.fmean(hits), 4)


def _times(seconds: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50": round(1000 * cuts[49], 2), "p95": round(1000 * cuts[94], 2)}


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    machine, recall, took = result["machine"], result["recall"], result["milliseconds"]
    versions = ", ".join(f"{name} {v}" for name, v in result["versions"].items() if name not in ("python", "ragqa"))
    whys = Counter((one["why"], " and ".join(one["right"]) or "neither") for one in result["differences"])
    reached = "reached" if result["same_first"] >= MARK else "not reached"
    lines = [
        f"Measured on {machine['date']} at commit `{machine['commit']}`: {machine['machine']}, shared by both sides, no GPU; "
        f"{versions}; server {result['server']}. {result['catalogue']['name']}, {result['products']:,} products, "
        f"{result['questions']:,} questions, asked one after the other; a question's time is that of embedding, searching and ordering.",
        "",
        "| | FAISS | Milvus |",
        "|---|---|---|",
        f"| vectors searched by | {result['dense']['faiss']} | {result['dense']['milvus']} |",
        f"| recall@1 | {recall['faiss']['@1']:.3f} | {recall['milvus']['@1']:.3f} |",
        f"| recall@{_TOP} | {recall['faiss'][f'@{_TOP}']:.3f} | {recall['milvus'][f'@{_TOP}']:.3f} |",
        f"| a question, p50 and p95, ms | {took['faiss']['p50']:.1f}, {took['faiss']['p95']:.1f} | {took['milvus']['p50']:.1f}, {took['milvus']['p95']:.1f} |",
        f"| 256 at once, ms a question | | {took['milvus, 256 at once, for one']:.1f} |",
        f"| loading | | {result['load_seconds']:.0f} s |",
        "",
        f"The same first candidate on **{result['same_first']:.1%}** of the questions (wanted: at least {MARK:.0%}; {reached}); by kind "
        + ", ".join(f"{kind} {share:.1%}" for kind, share in result["same_first_by_kind"].items())
        + f". Of the first {_TOP}, {result['same_ten']:.1%} are the same. Confidences differ by at most "
        f"{result['confidence_differs_by']:.4f}.",
    ]  # fmt: skip
    if whys:
        lines += ["", "| the first candidate differs because | right is | questions |", "|---|---|---|"]
        lines += [f"| {why} | {right} | {count} |" for (why, right), count in whys.most_common()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
