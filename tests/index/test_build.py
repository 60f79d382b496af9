import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import patch

import pytest

from benchmarks.toys import toy_embedder
from ragqa import Answerer, build_index, open_index
from ragqa.errors import BusyError, CatalogueError, InputError, ModelError, StorageError
from ragqa.index.build import build_into
from ragqa.index.folder import Folder
from ragqa.index.generations import CURRENT, live_generation
from ragqa.index.lock import writing_lock
from ragqa.index.recipe import Budgets
from ragqa.retrieval.embed import SentenceEmbedder
from tests.conftest import DEMO, ROOT

if TYPE_CHECKING:
    from ragqa.index.engine import Engine
    from ragqa.index.target import Embedded

ROWS = [{"uid": str(i), "title": f"Product {i}", "content": f"Number {i} of the row"} for i in range(12)]


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip


def test_the_same_catalogue_gives_the_same_bytes(demo_index: Path, tmp_path: Path) -> None:
    again = build_index(DEMO, tmp_path / "again")
    assert again.manifest["content_sha256"] == open_index(demo_index).manifest["content_sha256"]


def test_a_finished_build_leaves_one_generation_and_no_remains(tmp_path: Path) -> None:
    build_index(ROWS, tmp_path / "x")
    assert entries(tmp_path / "x") == {CURRENT, "g000001", ".lock"}
    assert entries(tmp_path / "x" / "g000001") == {
        "manifest.json", "products.arrow", "vectors.faiss", "titles.bin", "title-words.bin", "description-words.bin",
        "spelling.bin", "confidence.json", "cleaning.json",
    }  # fmt: skip


def test_building_again_replaces_the_live_generation_and_keeps_one_old(tmp_path: Path) -> None:
    for count in (3, 4, 5):
        build_index(ROWS[:count], tmp_path / "x")
    assert entries(tmp_path / "x") == {CURRENT, "g000002", "g000003", ".lock"}
    assert len(open_index(tmp_path / "x")) == 5


def test_a_reader_of_the_old_index_goes_on_reading_it(tmp_path: Path) -> None:
    old = build_index(ROWS[:3], tmp_path / "x")
    for count in (4, 5, 6):
        build_index(ROWS[:count], tmp_path / "x")
    assert [product.id for product in old.store] == ["0", "1", "2"]
    assert len(old.dense) == 3


def test_the_limit_takes_the_first_products(tmp_path: Path) -> None:
    index = build_index(ROWS, tmp_path / "x", limit=5)
    assert [product.id for product in index.store] == ["0", "1", "2", "3", "4"]
    with pytest.raises(InputError, match="--limit must be at least 1"):
        build_index(ROWS, tmp_path / "y", limit=0)


@pytest.mark.weights
def test_a_recipe_is_built_tuned_and_told(tmp_path: Path) -> None:
    index = build_index(DEMO, tmp_path / "x", recipe="IVF8,SQ8", budgets=Budgets(recall=0.9))
    dense = index.manifest["dense"]
    assert (dense["recipe"], dense["factory"]) == ("IVF8,SQ8", "IVF8,SQ8")
    assert dense["parameters"].startswith("nprobe=")
    assert dense["recall_at_10"] >= 0.89
    assert dense["questions"] > 100
    assert dense["bytes"] == (index.folder / "vectors.faiss").stat().st_size
    assert dense["predicted"]["memory"] == pytest.approx(dense["bytes"], rel=0.2)
    assert open_index(tmp_path / "x").dense.parameters == dense["parameters"]
    exact = build_index(DEMO, tmp_path / "y")
    assert exact.manifest["dense"]["factory"] == "Flat"
    title = exact.store[7].title
    for one in (index, exact):
        found = Answerer.from_pretrained(one.folder.parent).retriever.retrieve([title])
        assert found[0].candidates[0].product.title == title


@pytest.mark.weights
def test_a_budget_that_cannot_be_kept_says_what_can_and_nothing_is_embedded_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x"
    with pytest.raises(InputError, match=r"--max-latency-ms 1e-06: IVF8,PQ4x4 reaches 0\.\d+ in \d"):
        build_index(DEMO, out, recipe="IVF8,PQ4x4", budgets=Budgets(latency_ms=1e-6))
    with pytest.raises(InputError, match=r"--min-recall 0\.99: IVF8,PQ4x4 reaches 0\.\d+ in .*--recipe ivf or flat"):
        build_index(DEMO, out, recipe="IVF8,PQ4x4", budgets=Budgets(recall=0.99))
    assert not (out / CURRENT).exists()
    monkeypatch.setattr(SentenceEmbedder, "embed_titles", None)
    assert build_index(DEMO, out, budgets=Budgets(recall=0.99)).manifest["dense"]["factory"] == "Flat"


def test_a_recipe_that_is_none_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--recipe 'nope': .* accepted are auto, flat"):
        build_index(DEMO, tmp_path / "x", recipe="nope")
    assert not (tmp_path / "x").exists()


KILLED = """
    import os, signal, sys
    import ragqa.index.blocks as blocks_
    import ragqa.index.build as build
    from ragqa.retrieval.embed import SentenceEmbedder
    blocks_.SIZE = 64
    blocks = int(sys.argv[3])
    embed = SentenceEmbedder.embed_titles
    def counting(self, titles, progress=None):
        global blocks
        print("embedding", len(titles))
        sys.stdout.flush()
        if blocks == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        blocks -= 1
        return embed(self, titles, progress)
    SentenceEmbedder.embed_titles = counting
    index = build.build_index(sys.argv[1], sys.argv[2])
    print(index.manifest["content_sha256"])
"""


def test_a_build_killed_while_embedding_goes_on_and_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = run_python(KILLED, DEMO, tmp_path / "whole", 99)
    assert whole.stdout.count("embedding 64") == 5, whole.stderr
    killed = run_python(KILLED, DEMO, tmp_path / "killed", 3)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "killed" / ".partial").exists()
    assert not (tmp_path / "killed" / CURRENT).exists()
    resumed = run_python(KILLED, DEMO, tmp_path / "killed", 99)
    assert resumed.stdout.count("embedding 64") == 2, resumed.stderr
    assert resumed.stdout.splitlines()[-1] == whole.stdout.splitlines()[-1]


@pytest.mark.parametrize("damaged", ["block-0000000064.npy", "generation/products.arrow", "generation/cleaning.json"])
def test_of_an_interrupted_build_only_what_is_whole_is_gone_on_with(
    damaged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.toys import ToyModel, catalogue, toy_embedder
    from ragqa.index import blocks

    source, out, embedded = catalogue(tmp_path / "c.jsonl", 1, 240), tmp_path / "x", []
    embed = ToyModel.encode_document

    def counting(self: ToyModel, texts: Sequence[str], **more: Any) -> Any:
        embedded.extend(texts)
        return embed(self, texts, **more)

    monkeypatch.setattr(ToyModel, "encode_document", counting)
    monkeypatch.setattr(blocks, "SIZE", 64)
    with toy_embedder(tmp_path / "toy"):
        expected = build_index(source, tmp_path / "whole").manifest["content_sha256"]
        interrupted = patch("ragqa.index.folder.build_dense", side_effect=KeyboardInterrupt)
        with interrupted, pytest.raises(KeyboardInterrupt):
            build_index(source, out)
        path = out / ".partial" / damaged
        written = bytearray(path.read_bytes())
        written[len(written) // 2] ^= 1
        path.write_bytes(written)
        embedded.clear()
        assert build_index(source, out).manifest["content_sha256"] == expected
    titles = [product.title for product in open_index(out).store]
    assert sorted(embedded) == sorted(titles[64:128] if damaged.startswith("block") else titles)


@pytest.mark.parametrize("few", [True, False])
def test_a_graph_is_made_by_one_thread_where_it_is_to_be_the_same_each_time(
    few: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import faiss

    from benchmarks.toys import rows, toy_embedder
    from ragqa import update_index
    from ragqa.retrieval import dense

    threads: list[int] = []
    add = faiss.IndexHNSWSQ.add

    def counting(self: Any, *arguments: Any) -> Any:
        threads.append(faiss.omp_get_max_threads())
        return add(self, *arguments)

    monkeypatch.setattr(faiss.IndexHNSWSQ, "add", counting)
    monkeypatch.setattr(dense, "_FEW", 1000 if few else 10)
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        with toy_embedder(tmp_path / "toy"):
            for deterministic in (False, True):
                build_index(rows(1, 40), tmp_path / "x", recipe="hnsw", deterministic=deterministic)
                update_index(tmp_path / "x", rows(2, 40))
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(before)
    half = len(threads) // 2
    assert set(threads[:half]) == ({1} if few else {2})
    assert set(threads[half:]) == {1}


def test_work_on_another_catalogue_is_not_gone_on_with(tmp_path: Path) -> None:
    killed = run_python(KILLED, DEMO, tmp_path / "x", 3)
    assert killed.returncode == -signal.SIGKILL
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert [product.id for product in build_index(other, tmp_path / "x").store] == [row["uid"] for row in ROWS]


def test_a_failed_rebuild_leaves_the_old_index_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_index(ROWS, tmp_path / "x")
    before = (live_generation(tmp_path / "x") / "manifest.json").read_bytes()
    with pytest.raises(CatalogueError):
        build_index([{"title": "no", "content": ""}], tmp_path / "x")
    assert (live_generation(tmp_path / "x") / "manifest.json").read_bytes() == before
    assert entries(tmp_path / "x") == {CURRENT, "g000001", ".lock"}


def test_a_failed_first_build_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError):
        build_index([{"title": "no", "content": ""}], tmp_path / "x")
    assert not (tmp_path / "x").exists()
    with pytest.raises(ModelError):
        build_index(ROWS, tmp_path / "x", embedder="no/such-model")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "failing", ["products.arrow", "block-", "vectors.faiss", "titles.bin", "manifest.json", CURRENT]
)
def test_a_full_disk_is_told_in_one_line_and_the_same_command_completes(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ragqa.files import HashingFile

    def full(self: HashingFile, data: Any) -> int:
        if failing in self.path.name:
            raise OSError(28, "No space left on device", str(self.path))
        return write(self, data)

    write = HashingFile.write
    catalogue = tmp_path / "c.jsonl"
    catalogue.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with monkeypatch.context() as patch:
        patch.setattr(HashingFile, "write", full)
        with pytest.raises((StorageError, OSError)) as caught:
            build_index(catalogue, tmp_path / "x")
    assert isinstance(caught.value, StorageError), repr(caught.value)
    assert "no space left to write" in str(caught.value)
    assert not (tmp_path / "x" / CURRENT).exists()
    assert len(build_index(catalogue, tmp_path / "x")) == 12
    assert entries(tmp_path / "x") == {CURRENT, live_generation(tmp_path / "x").name, ".lock"}


def test_a_second_writer_is_told_who_is_writing(tmp_path: Path) -> None:
    with writing_lock(tmp_path / "x"), pytest.raises(BusyError, match=f"process {os.getpid()} .* is writing there"):
        build_index(ROWS, tmp_path / "x")


def test_the_lock_of_a_dead_process_is_no_hindrance(tmp_path: Path) -> None:
    code = """
        import os, signal, sys
        from pathlib import Path
        from ragqa.index.lock import writing_lock
        with writing_lock(Path(sys.argv[1])):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run_python(code, tmp_path / "x").returncode == -signal.SIGKILL
    assert len(build_index(ROWS, tmp_path / "x")) == 12


def test_an_unwritable_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*choose"):
        build_index(ROWS, tmp_path / "file" / "x")
    with pytest.raises(StorageError, match=r"cannot write .*choose"):
        build_index(ROWS, tmp_path / "file")


@pytest.mark.parametrize("step", ["rename", "rmtree"])
def test_an_interrupt_at_the_very_end_loses_nothing(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the pointer is replaced the same command completes; after it the new index is there."""
    import shutil

    from ragqa.index import generations

    catalogue = tmp_path / "c.jsonl"
    catalogue.write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    remove = shutil.rmtree

    def interrupt(*arguments: Any, **named: Any) -> None:
        if step == "rmtree" and not (tmp_path / "x" / CURRENT).exists():
            return remove(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == "rename":
            patch.setattr(generations, "write_json", interrupt)
        else:
            patch.setattr(shutil, "rmtree", interrupt)
            (tmp_path / "x").mkdir()
        with pytest.raises(KeyboardInterrupt):
            build_index(catalogue, tmp_path / "x")
    if step == "rmtree":
        assert len(open_index(tmp_path / "x")) == 12
    else:
        assert (tmp_path / "x" / ".partial" / "block-0000000000.npy").exists(), "the embeddings are kept"
    assert len(build_index(catalogue, tmp_path / "x")) == 12
    assert not (tmp_path / "x" / ".partial").exists()


def test_int8_is_refused_where_several_machines_embed(tmp_path: Path) -> None:
    target, engine = Folder(tmp_path / "x", "flat", Budgets(), False), cast("Engine", object())
    message = r"^--dtype int8 is made and used on one machine; leave it out, or leave --engine out$"
    with toy_embedder(tmp_path / "toy"), pytest.raises(InputError, match=message):
        build_into(target, ROWS, tmp_path / "x", dtype="int8", engine=engine)
    assert not (tmp_path / "x").exists()


def test_an_index_is_not_written_before_it_is_planned(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^plan comes before write$"):
        Folder(tmp_path / "x", "flat", Budgets(), False).write(cast("Embedded", None))
    assert not (tmp_path / "x").exists()
