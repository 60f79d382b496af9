"""The peers of `benchmarks.scale`: each searches the same titles for the same questions, in a process of its own.

Those that search by words get the terms that ragqa makes of titles and questions (`ragqa.retrieval.terms`) and its BM25
constants; those that search by vectors get the vectors out of ragqa's index, so that nothing is embedded twice; txtai is
given the titles and does all by itself. Once a peer's memory has been read, ragqa's index is opened beside it, and the
two are asked the same questions turn by turn, so that whatever else slows the machine slows both.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from benchmarks.scale_stages import (
    K,
    forget_peak,
    index_of,
    memory,
    peak_memory,
    questions_of,
    rate,
    summary,
    timed,
)
from ragqa.evaluation.significance import percentile_interval
from ragqa.index.storage import ProductIndex, open_index
from ragqa.retrieval.postings import K1, B
from ragqa.retrieval.question import parse_question
from ragqa.retrieval.terms import terms

# A peer's name -> what it searches by, and the packages it needs.
PEERS: Final = {
    "rank-bm25": ("words", ("rank_bm25",)),
    "bm25s": ("words", ("bm25s",)),
    "bm25s, mapped": ("words", ("bm25s",)),  # what "bm25s" saved, memory-mapped as ours is
    "bm25s, numba": ("words", ("bm25s", "numba")),
    "FAISS flat": ("vectors", ("faiss",)),
    "semantic_search": ("vectors", ("sentence_transformers",)),
    "txtai hybrid": ("text", ("txtai",)),
}
ROUNDS: Final = 3
# One that reads all titles for each question is asked fewer of them: so many titles are read in all.
_READ: Final = 20_000_000
_ONCE_FROM: Final = 20.0  # seconds of one round, from which on there is but one
_BLOCK: Final = 8192
_RESAMPLES: Final = 2000

# A question -> rows and scores, best first.
Ask = Callable[[Any], tuple[Any, Any]]


class Search(NamedTuple):
    """A peer that is ready: asked one question, and many at once if it can be."""

    one: Ask
    many: Callable[[Any], Any] | None = None


def installed(name: str) -> bool:
    """Whether a peer's packages are."""
    return all(importlib.util.find_spec(package) for package in PEERS[name][1])


def measure(name: str, size: int, work: Path) -> dict[str, Any]:
    """One peer beside ragqa."""
    kind = PEERS[name][0]
    folder = work / f"bm25s-{size}"
    started = time.perf_counter()
    given = _given(name, size, work)
    prepared = time.perf_counter() - started
    for package in PEERS[name][1]:
        importlib.import_module(package)
    forget_peak()
    started = time.perf_counter()
    peer, behind = _ready(name, given, folder)
    built, peak = time.perf_counter() - started, peak_memory()
    if name == "bm25s":
        behind.save(folder, show_progress=False)
    del given
    asked = _arguments(kind, size, work)
    if name == "rank-bm25":
        asked["single"] = asked["single"][: max(10, _READ // size)]
    started = time.perf_counter()
    timed(peer.one, asked["single"])
    rounds = 1 if time.perf_counter() - started > _ONCE_FROM else ROUNDS
    forget_peak()
    held = memory(folder)
    ours = _ours(kind, size, work)
    for ask in ours.values():
        timed(ask, asked["warm"])
    times = turns({name: peer.one} | ours, asked["single"], rounds)
    return {
        "questions": len(asked["single"]),
        "rounds": rounds,
        "prepared_in": prepared,
        "built_in": built,
        "peak": peak,
        "memory": held,
        "bytes": sum(file.stat().st_size for file in folder.iterdir()) if name in ("bm25s", "bm25s, mapped") else None,
        "ms": summary(times[name]),
        "many": rate(functools.partial(peer.many, asked["many"]), len(asked["many"])) if peer.many else None,
        "ours": {
            mine: {
                "ms": summary(times[mine]),
                "ratio": ratio(times[name], times[mine]),
                "alike": _alike(kind, mine, ask, peer.one, asked["single"]),
            }
            for mine, ask in ours.items()
        },
    }


def _given(name: str, size: int, work: Path) -> Any:
    """What a peer is made from: the titles, their terms, or the index that has the vectors."""
    index = open_index(index_of(size, work), verify="sizes")
    if PEERS[name][0] == "vectors":
        return index
    titles = index.store.column("title", 0, len(index)) if name != "bm25s, mapped" else []
    return [terms(title) for title in titles] if PEERS[name][0] == "words" else titles


def _ready(name: str, given: Any, folder: Path) -> tuple[Search, Any]:
    """The peer, and what is behind it."""
    if name == "rank-bm25":
        return _rank_bm25(given)
    if name == "bm25s, mapped":
        if not folder.exists():
            raise SystemExit(f"{folder} is not there: bm25s writes it, measure that first")
        import bm25s

        return _bm25s(bm25s.BM25.load(folder, mmap=True, show_progress=False))
    if name.startswith("bm25s"):
        import bm25s

        backend = "numba" if name == "bm25s, numba" else "numpy"
        # rank_bm25's delta is 1; like the rest it adds the same to all titles.
        scores = bm25s.BM25(k1=K1, b=B, delta=1.0, method="bm25+", backend=backend)
        scores.index(given, show_progress=False)
        return _bm25s(scores)
    if name == "txtai hybrid":
        return _txtai(given)
    return _flat(given) if name == "FAISS flat" else _semantic_search(given)


def _rank_bm25(words: Sequence[Sequence[str]]) -> tuple[Search, Any]:
    from rank_bm25 import BM25Plus

    reference = BM25Plus(words, k1=K1, b=B)

    def one(question: Sequence[str]) -> tuple[Any, Any]:
        scores = reference.get_scores(question)
        rows = np.argpartition(-scores, K)[:K]
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        return rows, scores[rows]

    return Search(one), reference


def _bm25s(index: Any) -> tuple[Search, Any]:
    def many(questions: Sequence[Sequence[str]]) -> Any:
        return index.retrieve([list(question) for question in questions], k=K, show_progress=False)

    def one(question: Sequence[str]) -> tuple[Any, Any]:
        rows, scores = many([question])
        return rows[0], scores[0]

    return Search(one, many), index


def _flat(index: ProductIndex) -> tuple[Search, Any]:
    import faiss

    flat = faiss.IndexFlatIP(index.dense.dimension)
    for block in _vectors(index):
        flat.add(block)

    def one(question: Any) -> tuple[Any, Any]:
        scores, rows = flat.search(question[None], K)
        return rows[0], scores[0]

    return Search(one, lambda questions: flat.search(questions, K)), flat


def _semantic_search(index: ProductIndex) -> tuple[Search, Any]:
    import torch
    from sentence_transformers import util

    titles = torch.empty((len(index), index.dense.dimension))
    for number, block in enumerate(_vectors(index)):
        titles[number * _BLOCK : number * _BLOCK + len(block)] = torch.from_numpy(block)

    def one(question: Any) -> tuple[Any, Any]:
        hits = util.semantic_search(torch.from_numpy(question[None]), titles, top_k=K)[0]
        return [hit["corpus_id"] for hit in hits], [hit["score"] for hit in hits]

    return Search(one, lambda questions: util.semantic_search(torch.from_numpy(questions), titles, top_k=K)), titles


def _txtai(titles: Sequence[str]) -> tuple[Search, Any]:
    from txtai import Embeddings

    from ragqa import models

    folder = models.find_model(models.DEFAULT_EMBEDDER).folder
    whole = Embeddings(path=str(folder), hybrid=True, method="sentence-transformers")
    whole.index(enumerate(titles))

    def one(question: str) -> tuple[Any, Any]:
        hits = whole.search(question, K)
        return [row for row, _ in hits], [score for _, score in hits]

    return Search(one, lambda questions: whole.batchsearch(questions, K)), whole


def _vectors(index: ProductIndex) -> Iterator[Any]:
    for start in range(0, len(index), _BLOCK):
        yield np.ascontiguousarray(index.dense.vectors(range(start, min(start + _BLOCK, len(index)))))


def _arguments(kind: str, size: int, work: Path) -> dict[str, Any]:
    """The questions as a peer of this kind takes them."""
    if kind == "vectors":
        return dict(np.load(work / f"vectors-{size}.npz"))
    asked = questions_of(size, work)
    if kind == "text":
        return {name: [q["text"] for q in some] for name, some in asked.items()}
    return {name: [terms(parse_question(q["text"]).subject) for q in some] for name, some in asked.items()}


def _ours(kind: str, size: int, work: Path) -> dict[str, Ask]:
    """What of ragqa does the same work as a peer of this kind, or more."""
    if kind == "text":
        from ragqa.answerer import Answerer

        retriever = Answerer.from_pretrained(index_of(size, work)).retriever

        def retrieve(question: str) -> tuple[Any, Any]:
            found = retriever.retrieve([question], K)[0].candidates
            return [c.row for c in found], [c.score for c in found]

        return {"retrieve": retrieve}
    index = open_index(index_of(size, work), verify="sizes")
    if kind == "words":
        titles, words = index.words.without_descriptions(), index.words
        return {"titles": lambda asked: titles.search(asked, K), "lexical": lambda asked: words.search(asked, K)}

    def dense(question: Any) -> tuple[Any, Any]:
        scores, rows = index.dense.search(question[None], K)
        return rows[0], scores[0]

    return {"dense": dense}


def turns(ways: dict[str, Ask], arguments: Sequence[Any], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each question, the median over rounds in which all ways are asked all questions, one after another."""
    found: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, ask in ways.items():
            found[name].append(timed(ask, arguments))
    return {name: [statistics.median(each) for each in zip(*some, strict=True)] for name, some in found.items()}


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> list[float]:
    """How many times ours a peer's time is: the median over questions, and its 95 % interval (bootstrap by question)."""
    ratios = np.asarray(theirs) / np.asarray(ours)
    drawn = np.random.default_rng(0).integers(len(ratios), size=(_RESAMPLES, len(ratios)))
    low, high = percentile_interval(np.median(ratios[drawn], axis=1)[:, None])
    return [float(np.median(ratios)), float(low[0]), float(high[0])]


def _alike(kind: str, name: str, ours: Ask, theirs: Ask, asked: Sequence[Any]) -> float | None:
    """How far the two find the same, from 0 to 1; None where they do not mean to.

    Of searches by vectors the share of the peer's rows that ours finds, too. Of searches by words the share of questions
    with the same scores, less the first one's: BM25+ adds the same to all titles, and equal titles have no order.
    """
    if name in ("retrieve", "lexical"):
        return None
    shares = []
    for argument in asked:
        rows, scores = map(np.asarray, ours(argument))
        their_rows, their_scores = map(np.asarray, theirs(argument))
        if kind == "vectors":
            shares.append(float(np.isin(their_rows, rows).mean()))
        elif len(scores):
            apart = (scores - scores[0]) - (their_scores[: len(scores)] - their_scores[0])
            shares.append(float(np.abs(apart).max() < 1e-3 * scores[0]))
    return float(np.mean(shares))
