import importlib.metadata
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragqa.errors import IndexDamagedError, MissingDependencyError
from ragqa.files import HashingFile
from ragqa.retrieval import dense
from ragqa.retrieval.dense import DenseIndex, import_faiss
from ragqa.retrieval.embed import unit
from ragqa.retrieval.text import fold
from ragqa.retrieval.titles import TitleTable


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=40))
def test_every_title_is_found_among_the_rows_that_fold_alike(titles: list[str]) -> None:
    table = TitleTable.build(titles)
    for row, title in enumerate(titles):
        assert row in table.rows(title)
        alike = [
            i for i, other in enumerate(titles) if (fold(other) or other.strip()) == (fold(title) or title.strip())
        ]
        assert table.rows(title) == alike


def test_a_saved_table_answers_as_before(tmp_path: Path) -> None:
    table = TitleTable.build(["Low Tide", "High Tide", "low  tide"])
    with HashingFile(tmp_path / "titles.bin") as file:
        table.save(file)
    loaded = TitleTable.load(tmp_path / "titles.bin")
    assert len(loaded) == 3
    assert loaded.rows("LOW TIDE") == [0, 2]
    assert loaded.rows("no tide") == []


some_titles = st.lists(st.sampled_from(["Low Tide", "LOW  TIDE", "High Tide", "Ebb", "Flow", "!!!", "Spring tide"]))


@given(some_titles.filter(len), some_titles, st.data())
def test_an_updated_table_is_the_table_of_all_titles(old: list[str], new: list[str], data: st.DataObject) -> None:
    kept = sorted(data.draw(st.sets(st.integers(0, len(old) - 1))))
    updated = TitleTable.build(old).updated(np.array(kept, np.int64), new)
    whole = [old[row] for row in kept] + new
    assert len(updated) == len(whole)
    for title in {*old, *new}:
        assert updated.rows(title) == TitleTable.build(whole).rows(title)
    np.testing.assert_array_equal(updated._hashes, TitleTable.build(whole)._hashes)
    np.testing.assert_array_equal(updated._rows, TitleTable.build(whole)._rows)


def test_a_table_cut_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "titles.bin").write_bytes(b"\0" * 17)
    with pytest.raises(IndexDamagedError, match="17 bytes"):
        TitleTable.load(tmp_path / "titles.bin")


@settings(max_examples=20)
@given(st.integers(1, 300), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_dense_search_agrees_with_numpy(count: int, k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    titles, questions = (unit(random.normal(size=(n, 16)).astype(np.float32)) for n in (count, 3))
    index = DenseIndex.empty(16)
    index.add(titles)
    scores, rows = index.search(questions, k)
    expected = -np.sort(-(questions @ titles.T), axis=1)[:, :k]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    for question, found in zip(questions, rows, strict=True):
        np.testing.assert_allclose(titles[found] @ question, sorted(titles[found] @ question, reverse=True), atol=1e-6)
    assert float(index.vectors([int(rows[0, 0])])[0] @ questions[0]) == pytest.approx(float(scores[0, 0]), abs=1e-5)


def test_a_saved_dense_index_finds_the_same(tmp_path: Path) -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32))
    index = DenseIndex.empty(8)
    index.add(vectors)
    with HashingFile(tmp_path / "v.faiss") as file:
        index.save(file)
    loaded = DenseIndex.load(tmp_path / "v.faiss")
    assert (len(loaded), loaded.dimension) == (50, 8)
    np.testing.assert_array_equal(loaded.search(vectors, 5)[1], index.search(vectors, 5)[1])


def test_a_file_that_is_no_faiss_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.faiss").write_bytes(b"no index at all")
    with pytest.raises(IndexDamagedError, match="not a whole FAISS index"):
        DenseIndex.load(tmp_path / "v.faiss")


def test_faiss_for_cpu_and_gpu_side_by_side_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "1.15.1")
    with pytest.raises(MissingDependencyError, match=r"both installed.*pip uninstall -y faiss-cpu faiss-gpu"):
        import_faiss()


def test_unit_vectors_have_length_one_and_zero_stays_zero() -> None:
    vectors = unit(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0.0, 0.0]], atol=1e-6)


@pytest.mark.parametrize(
    "factory",
    [
        "Flat",
        "SQfp16",
        "SQ8",
        "IVF16,Flat",
        "IVF16,SQ8",
        "IVF16,PQ8",
        "IVF16,PQ8x4fs,Refine(SQ8)",
        "IVF16,SQ8,Refine(Flat)",
        "HNSW8,SQ8",
    ],
)
@pytest.mark.parametrize("mapped", [True, False])
def test_an_updated_index_has_the_rows_that_stay_and_then_the_new_ones(
    factory: str, mapped: bool, tmp_path: Path
) -> None:
    faiss = import_faiss()
    random_ = np.random.default_rng(4)
    first, more = (unit(random_.standard_normal((n, 16)).astype(np.float32)) for n in (900, 70))
    index = faiss.index_factory(16, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(first)
    index.add(first)
    parameters = "nprobe=16" if "IVF" in factory else ""
    old = DenseIndex(index, parameters)
    if mapped:
        with HashingFile(tmp_path / "v.faiss") as file:
            old.save(file)
        old = DenseIndex.load(tmp_path / "v.faiss", parameters)
    before = old.vectors(range(900))
    kept = np.flatnonzero(random_.random(900) < 0.8)
    new = old.updated(kept, more)
    assert (len(new), len(old)) == (len(kept) + 70, 900)
    assert (old.vectors(range(900)) == before).all()
    stored = new.vectors(range(len(new)))
    assert np.abs(stored[: len(kept)] - before[kept]).max() < 0.01
    assert np.median((unit(stored[len(kept) :]) * more).sum(1)) > 0.85
    # Each row is found under its own number, the last ones and those before a gap as well.
    asked = np.r_[0, 17, len(kept) - 1, len(kept), len(new) - 1]
    rows = new.search(unit(stored[asked]), 3)[1]
    assert [row in found for row, found in zip(asked.tolist(), rows.tolist(), strict=True)].count(True) >= 4


def test_a_faiss_that_cannot_be_imported_is_told_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(
        MissingDependencyError, match=r"^faiss cannot be imported \(.*\); install it: pip install faiss"
    ):
        import_faiss()


def test_a_forked_child_computes_with_one_thread_where_there_are_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[Callable[[], None]] = []
    monkeypatch.setattr(os, "register_at_fork", lambda after_in_child: registered.append(after_in_child), raising=False)
    dense._mind_forks.__wrapped__()
    monkeypatch.delattr(os, "register_at_fork")
    dense._mind_forks.__wrapped__()
    (in_child,) = registered
    threads: list[int] = []
    faiss = SimpleNamespace(omp_set_num_threads=threads.append)
    monkeypatch.setattr(dense, "sys", SimpleNamespace(modules={"faiss": faiss}))
    in_child()
    assert threads == [1]


def test_an_index_whose_vectors_have_no_length_is_refused(tmp_path: Path) -> None:
    with HashingFile(tmp_path / "v.faiss") as file:
        DenseIndex.empty(0).save(file)
    with pytest.raises(IndexDamagedError, match=r"v\.faiss: not a whole FAISS index; build the index anew"):
        DenseIndex.load(tmp_path / "v.faiss")


def test_an_index_is_read_by_a_faiss_that_has_no_limits_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    faiss = import_faiss()
    for name in [name for name in vars(faiss) if re.fullmatch(r"[gs]et_deserialization_\w+_limit", name)]:
        monkeypatch.delattr(faiss, name)
    index = DenseIndex.empty(8)
    index.add(np.eye(8, dtype=np.float32))
    with HashingFile(tmp_path / "v.faiss") as file:
        index.save(file)
    np.testing.assert_array_equal(DenseIndex.load(tmp_path / "v.faiss").vectors(range(8)), np.eye(8))


def test_an_updated_index_has_lists_that_nothing_is_in() -> None:
    faiss = import_faiss()
    random_ = np.random.default_rng(2)
    vectors = unit(random_.standard_normal((400, 8)).astype(np.float32))
    index = faiss.index_factory(8, "IVF8,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors[:3])
    old = DenseIndex(index, "nprobe=8")
    assert [index.invlists.list_size(number) for number in range(8)].count(0) >= 5
    new = old.updated(np.array([0, 2], np.int64), vectors[3:4])
    np.testing.assert_allclose(new.vectors(range(3)), vectors[[0, 2, 3]])
    assert new.search(vectors[[0, 2, 3]], 1)[1].tolist() == [[0], [1], [2]]
