"""What is done with a GPU, against a faiss whose GPU is another CPU index with little room; on a real one it is untried."""

import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ragqa.files import HashingFile
from ragqa.index import vectors as vectors_
from ragqa.index.blocks import Blocks
from ragqa.index.recipe import plan
from ragqa.progress import StageClock
from ragqa.retrieval import dense as dense_
from ragqa.retrieval.dense import DenseIndex, import_faiss
from ragqa.retrieval.embed import Vectors, unit
from ragqa.retrieval.gpu import to_gpu


class Card:
    """A copy of an index "on the card": no search for more questions, and no more rows, than it has room for."""

    def __init__(self, index: Any, questions: int, rows: int) -> None:
        self.index, self.questions, self.rows = import_faiss().clone_index(index), questions, rows
        self.asked: list[int] = []

    def train(self, sample: Vectors) -> None:
        self.index.train(sample)

    def add(self, vectors: Vectors) -> None:
        room = self.rows - self.index.ntotal
        self.index.add(vectors[:room])  # FAISS adds by pages: some may be there when the next does not fit
        if len(vectors) > room:
            raise RuntimeError("Error in StandardGpuResourcesImpl: out of memory\nmore")

    def search(self, questions: Vectors, k: int) -> Any:
        self.asked.append(len(questions))
        if len(questions) > self.questions:
            raise RuntimeError("out of memory")
        return self.index.search(questions, k)


class Cagra(Card):
    """A graph "on the card": as FAISS, it has vectors by training alone, and comes back as HNSW's kin."""

    def __init__(self, cards: list[Card], resources: str, dimension: int, metric: int, settings: Any) -> None:
        assert (resources, settings.device) == ("resources", 1)
        super().__init__(import_faiss().IndexHNSWCagra(dimension, 32, metric), 10**9, 10**9)
        cards.append(self)

    def train(self, sample: Vectors) -> None:
        if len(sample) > 2000:
            raise RuntimeError("out of memory")
        graph = import_faiss().IndexHNSWCagra(sample.shape[1], 32, self.index.metric_type)
        graph.add(sample)
        self.index = graph


def faiss_with(cards: list[Card], questions: int = 10**9, rows: int = 10**9, cagra: bool = False) -> Any:
    def copied(resources: Any, number: int, index: Any, options: Any) -> Card:
        assert (resources, number) == ("resources", 1)
        cards.append(Card(index, questions, rows))
        return cards[-1]

    more = {
        "StandardGpuResources": lambda: "resources",
        "get_num_gpus": lambda: 2,
        "GpuClonerOptions": SimpleNamespace,
        "index_cpu_to_gpu": copied,
        "index_gpu_to_cpu": lambda card: card.index,
    }
    real = import_faiss()
    if cagra:
        more |= {"GpuIndexCagra": functools.partial(Cagra, cards), "GpuIndexCagraConfig": SimpleNamespace}
    return type("Faiss", (), {"__getattr__": lambda _, name: more[name] if name in more else getattr(real, name)})()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    for module in ("ragqa.retrieval.gpu", "ragqa.retrieval.dense", "ragqa.index.vectors"):
        monkeypatch.setattr(f"{module}.say", found.append)
    return found


def some(count: int, seed: int = 0) -> Vectors:
    return unit(np.random.default_rng(seed).standard_normal((count, 16)).astype(np.float32))


def flat() -> DenseIndex:
    index = DenseIndex.empty(16)
    index.add(some(300))
    return index


def test_a_processor_is_no_gpu_and_faiss_cpu_has_none(said: list[str]) -> None:
    faiss = import_faiss()
    assert to_gpu(faiss, faiss.IndexFlatIP(4), "cpu") is None
    assert not said
    if not hasattr(faiss, "StandardGpuResources"):
        assert to_gpu(faiss, faiss.IndexFlatIP(4), "cuda") is None
        assert "faiss-gpu is not installed" in said[0]


@pytest.mark.parametrize(("room", "on_card"), [(100, [40]), (12, [40, 20, 10, 10, 20, 10, 10])])
def test_a_search_that_does_not_fit_is_done_by_halves(
    room: int, on_card: list[int], monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    cards: list[Card] = []
    faiss = faiss_with(cards, room)
    monkeypatch.setattr(dense_, "import_faiss", lambda: faiss)
    index, questions = flat(), some(40, 1)
    alone = index.search(questions, 5)
    index.use("cuda:1")
    found = index.search(questions, 5)
    assert cards[0].asked == on_card
    assert (found[1] == alone[1]).all()
    assert np.allclose(found[0], alone[0])
    assert not said


def test_a_card_without_any_room_leaves_the_work_to_the_processor(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    cards: list[Card] = []
    faiss = faiss_with(cards, 0)
    monkeypatch.setattr(dense_, "import_faiss", lambda: faiss)
    index, questions = flat(), some(3, 1)
    alone = index.search(questions, 5)
    index.use("cuda:1")
    assert (index.search(questions, 5)[1] == alone[1]).all()
    assert said == ["FAISS goes on on the CPU (out of memory)"]
    index.search(questions, 5)
    assert len(cards[0].asked) == 2


@pytest.mark.parametrize("room", [10**9, 20_000, 9000, 8192])
def test_an_index_is_built_whole_wherever_the_card_gets_full(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    vectors = some(20_500)
    for start in range(0, len(vectors), 8192):
        np.save(tmp_path / f"block-{start:010d}.npy", vectors[start : start + 8192])
    blocks, planned = Blocks(tmp_path, len(vectors), 16), plan(len(vectors), 16, "IVF16,Flat")
    cards: list[Card] = []
    monkeypatch.setattr(vectors_, "import_faiss", lambda: faiss_with(cards, rows=room))
    clock = StageClock()
    index = vectors_.build_dense(blocks, planned, len(vectors), 16, 0, clock, "cuda:1")
    assert len(cards) == 1
    assert index.ntotal == len(vectors)
    dense = DenseIndex(index, "nprobe=16")
    assert np.allclose(dense.vectors(range(len(vectors))), vectors)
    assert (dense.search(vectors[::500], 1)[1][:, 0] == np.arange(0, len(vectors), 500)).all()
    assert bool(said[1:]) == (room < len(vectors))


@pytest.mark.parametrize(
    ("count", "device", "has_cagra", "on_card", "why"),
    [
        (1500, "cuda:1", True, True, None),
        (2500, "cuda:1", True, False, "the graph is made on the CPU (out of memory)"),
        (1500, "cuda:1", False, False, "the graph is made on the CPU: this faiss-gpu was built without cuVS"),
        (1500, "cpu", True, False, None),
    ],
)
def test_a_graph_made_on_a_card_is_one_that_a_cpu_opens_searches_and_updates(
    count: int,
    device: str,
    has_cagra: bool,
    on_card: bool,
    why: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: list[str],
) -> None:
    vectors = some(count)
    np.save(tmp_path / "block-0000000000.npy", vectors)
    blocks, planned = Blocks(tmp_path, count, 16), plan(count, 16, "cagra")
    cards: list[Card] = []
    monkeypatch.setattr(vectors_, "import_faiss", lambda: faiss_with(cards, cagra=has_cagra))
    index = vectors_.build_dense(blocks, planned, count, 16, 0, StageClock(), device)
    assert isinstance(index, import_faiss().IndexHNSWCagra) == on_card
    assert said == ([why] if why else [])
    with HashingFile(tmp_path / "vectors.faiss") as file:
        DenseIndex(index).save(file)
    opened = DenseIndex.load(tmp_path / "vectors.faiss", "efSearch=64")
    assert np.allclose(opened.vectors(range(count)), vectors)
    assert (opened.search(vectors[::50], 1)[1][:, 0] == np.arange(0, count, 50)).all()
    kept = np.arange(0, count, 2)
    updated = opened.updated(kept, some(10, 1))
    assert (updated.search(vectors[kept[::50]], 1)[1][:, 0] == np.arange(0, len(kept), 50)).all()
    assert len(updated) == len(kept) + 10


class Untrained(Card):
    """A card on which there is no room for what training takes."""

    def train(self, sample: Vectors) -> None:
        raise RuntimeError("Error in StandardGpuResourcesImpl: out of memory\nmore")


def test_an_index_that_a_card_has_no_room_to_train_is_trained_and_filled_by_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    vectors = some(1000)
    np.save(tmp_path / "block-0000000000.npy", vectors)
    blocks, planned = Blocks(tmp_path, 1000, 16), plan(1000, 16, "IVF16,Flat")
    alone = vectors_.build_dense(blocks, planned, 1000, 16, 0, StageClock())
    said.clear()
    monkeypatch.setattr(vectors_, "to_gpu", lambda faiss, index, device: Untrained(index, 0, 0))
    index = vectors_.build_dense(blocks, planned, 1000, 16, 0, StageClock(), "cuda:1")
    assert said[1:] == ["FAISS goes on on the CPU (Error in StandardGpuResourcesImpl: out of memory)"]
    assert (index.search(vectors, 3)[1] == alone.search(vectors, 3)[1]).all()


def test_a_processor_that_cannot_train_an_index_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    np.save(tmp_path / "block-0000000000.npy", some(1000))
    planned = plan(1000, 16, "IVF16,Flat")
    monkeypatch.setattr(Blocks, "rows", lambda blocks, rows: some(4))
    with pytest.raises(RuntimeError, match="should be at least as large as number of clusters"):
        vectors_.build_dense(Blocks(tmp_path, 1000, 16), planned, 1000, 16, 0, StageClock())
    assert not [line for line in said if "goes on" in line]
