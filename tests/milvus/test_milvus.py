"""Against Milvus Lite's server over gRPC: the same answers as from disk, and nothing half-visible."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ragqa import Answerer, build_index, build_milvus
from ragqa.cli import main
from ragqa.errors import (
    IndexMismatchError,
    IndexNotFoundError,
    InputError,
    MilvusError,
    MissingDependencyError,
    RagqaError,
)
from ragqa.index.storage import on_disk
from ragqa.index.tune import made_questions
from ragqa.milvus import layout
from ragqa.milvus.address import Address
from ragqa.milvus.connection import Connection
from ragqa.milvus.index import MilvusIndex
from ragqa.milvus.load import note
from ragqa.serving.generations import Generation, next_generation
from ragqa.settings import CleaningSettings
from tests.conftest import DEMO, ROOT
from tests.milvus.conftest import LiteServer

LT350 = "What is the description of Lumen Trail Headlamp LT-350?"
# Loads the demonstration index in partitions of 100 and kills itself once two of them are whole.
KILLED = """
import os, signal, sys
from ragqa.milvus import load
from ragqa.milvus.build import build_milvus
load._PARTITION = 100
noted = load._Load._note
def note(self, key, value):
    noted(self, key, value)
    if key == "#part-1":
        os.kill(os.getpid(), signal.SIGKILL)
load._Load._note = note
build_milvus(sys.argv[1], sys.argv[2])
"""


@pytest.fixture(scope="module")
def questions(here: Answerer) -> list[str]:
    """Titles whole, in part, mistyped and with words of the description, and what no product is."""
    products = [on_disk(here.index).store[row] for row in range(0, len(here.index), 6)]
    asked = [f"What is the description of {product.title}?" for product in products[::4]]
    return [*made_questions(products, 3), *asked, "a submarine with a view", "¿?!", "LT 35O hedlamp", "4K"]


def test_the_same_candidates_are_found_as_on_disk(here: Answerer, there: Answerer, questions: list[str]) -> None:
    expected, found = here.retrieve(questions, top_k=10), there.retrieve(questions, top_k=10)
    firsts = 0
    for one, other in zip(expected, found, strict=True):
        assert [c.product for c in one.candidates[:1]] == [c.product for c in other.candidates[:1]]
        assert other.confidence == pytest.approx(one.confidence, abs=0.01)
        firsts += bool(one.candidates)
        known = {c.row: c for c in one.candidates}
        for candidate in other.candidates:
            if candidate.row in known:
                wanted = known[candidate.row]
                assert candidate.product == wanted.product
                assert candidate.exact == wanted.exact
                for evidence in ("cosine", "coverage", "score"):
                    assert getattr(candidate, evidence) == pytest.approx(getattr(wanted, evidence), abs=1e-5)
    assert firsts > len(questions) // 2


def test_answers_are_the_same(here: Answerer, there: Answerer) -> None:
    for question in (LT350, "Qual é a descrição deste produto: Rede de Dormir Casal Maracatu, Azul?", "a submarine"):
        one, other = here.ask(question, decoding="copy"), there.ask(question, decoding="copy")
        assert (one.text, one.abstained, [s.id for s in one.sources]) == (
            other.text, other.abstained, [s.id for s in other.sources],
        )  # fmt: skip


def test_rows_held_out_and_the_other_fusion_are_as_on_disk(here: Answerer, there: Answerer) -> None:
    asked = ["Lumen Trail Headlamp LT-350", "tin whistle", "power bank 10000 mah"]
    gone = frozenset({here.retrieve(asked)[0].candidates[0].row})
    for how in ({"without": gone}, {"fusion": "reciprocal-rank"}):
        one, other = here.retriever.retrieve(asked, **how), there.retriever.retrieve(asked, **how)  # type: ignore[arg-type]
        assert [r.candidates[0].row for r in one] == [r.candidates[0].row for r in other]


def test_what_needs_the_files_is_refused_in_a_line(there: Answerer, tmp_path: Path, server: LiteServer) -> None:
    with pytest.raises(InputError, match="index folder is needed"):
        there.save_pretrained(tmp_path / "saved")
    with pytest.raises(InputError, match="--lexical rank-bm25 reads all titles"):
        there.ask(LT350, lexical="rank-bm25")
    assert not (tmp_path / "saved").exists()


def test_products_are_found_by_id_and_the_service_takes_the_next_collection(
    server: LiteServer, demo_index: Path, few: dict[int, Path], here: Answerer
) -> None:
    build_milvus(demo_index, server.uri("served"))
    live = Generation(Answerer.from_pretrained(server.uri("served"), device="cpu"))
    assert live.ids.find("RQK2TYH0P0") is not None
    assert live.ids.find("nobody's") is None
    assert next_generation(live, "auto") is None
    build_milvus(few[30], server.uri("served"))
    newer = next_generation(live, "auto")
    assert newer is not None
    assert (len(live.answerer.index), len(newer.answerer.index)) == (len(here.index), 30)


def test_readers_see_the_old_catalogue_or_the_new_one_and_older_ones_go(
    server: LiteServer, demo_index: Path, few: dict[int, Path], here: Answerer
) -> None:
    uri = server.uri("swapped")
    build_milvus(few[30], uri)
    old = Answerer.from_pretrained(uri, device="cpu")
    seen: list[tuple[int, str]] = []
    wrong: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        encoder = old.retriever.embedder
        while not done.is_set():
            try:
                index = MilvusIndex.open(uri)
                (found,) = index.retriever(encoder).retrieve([LT350])
                (before,) = old.retrieve([LT350])
                seen.append((len(index), found.candidates[0].product.title))
                assert before.candidates[0].product.title == title_of_30
            except (AssertionError, RagqaError, IndexError) as error:
                wrong.append(error)
                return

    title_of_30 = old.retrieve([LT350])[0].candidates[0].product.title
    reader = threading.Thread(target=read)
    reader.start()
    try:
        build_milvus(demo_index, uri)
        while not seen or seen[-1][0] == 30:
            assert reader.is_alive(), wrong
            time.sleep(0.05)
    finally:
        done.set()
        reader.join()
    assert wrong == []
    assert set(seen) == {(30, title_of_30), (len(here.index), "Lumen Trail Headlamp LT-350")}
    # A third one takes the place of the second, and the first is nobody's any more.
    build_milvus(few[20], uri)
    with pytest.raises(IndexNotFoundError, match="was replaced; open it anew"):
        old.retrieve([LT350])
    connection = Connection(Address.parse(uri))
    assert len([c for c in connection.call("list_collections") if c.startswith("swapped_")]) == 4


def test_a_killed_load_is_seen_by_nobody_and_gone_on_with(
    server: LiteServer, demo_index: Path, monkeypatch: pytest.MonkeyPatch, here: Answerer
) -> None:
    uri = server.uri("killed")
    ended = subprocess.run([sys.executable, "-c", KILLED, str(demo_index), uri], cwd=ROOT, check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    with pytest.raises(IndexNotFoundError, match="was not loaded to its end; the same command goes on with it"):
        MilvusIndex.open(uri)
    sent: list[int] = []
    call = Connection.call

    def counted(self: Connection, method: str, *args: Any, **kwargs: Any) -> Any:
        if method == "insert":
            sent.extend(row["row"] for row in args[1])
        return call(self, method, *args, **kwargs)

    monkeypatch.setattr(Connection, "call", counted)
    monkeypatch.setattr("ragqa.milvus.load._PARTITION", 100)
    index = build_milvus(demo_index, uri)
    assert sorted(sent) == list(range(200, 320))
    assert len(index) == 320
    again = index.retriever(here.retriever.embedder).retrieve(["larkmere tin wistle"])
    assert again[0].candidates[0].product.title == "larkmere tin whistle in d"
    # What is there already is not loaded again.
    sent.clear()
    build_milvus(demo_index, uri)
    assert sent == []


def test_what_another_killed_load_has_left_is_removed(
    server: LiteServer, demo_index: Path, few: dict[int, Path]
) -> None:
    uri = server.uri("other")
    subprocess.run([sys.executable, "-c", KILLED, str(demo_index), uri], cwd=ROOT, check=False, timeout=120)
    assert len(build_milvus(few[20], uri)) == 20
    connection = Connection(Address.parse(uri))
    assert len([c for c in connection.call("list_collections") if c.startswith("other_")]) == 2


def test_a_lost_connection_begins_its_partition_anew(
    server: LiteServer, demo_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, lost = Connection.call, [True]

    def losing(self: Connection, method: str, *args: Any, **kwargs: Any) -> Any:
        answer = call(self, method, *args, **kwargs)
        if method == "insert" and lost:
            lost.clear()
            raise MilvusError("the connection was lost")  # though the rows came through
        return answer

    monkeypatch.setattr(Connection, "call", losing)
    monkeypatch.setattr("ragqa.milvus.load._ROWS", 100)
    index = build_milvus(demo_index, server.uri("lost"))
    monkeypatch.undo()
    (answer,) = index.connection.read("query", index.name, filter="", output_fields=["count(*)"])
    assert answer["count(*)"] == 320


def test_the_server_dies_between_two_questions(tmp_path: Path, demo_index: Path) -> None:
    server = LiteServer(tmp_path / "own")
    try:
        build_milvus(demo_index, server.uri("demo"))
        answerer = Answerer.from_pretrained(server.uri("demo", timeout=1), device="cpu")
        before = answerer.ask(LT350, decoding="copy")
        server.kill()
        started = time.monotonic()
        with pytest.raises(MilvusError, match="Milvus cannot be reached for 1 s; the connection was lost"):
            answerer.ask("tin whistle", decoding="copy")
        assert time.monotonic() - started < 3
        server.start()
        connection = answerer.index.connection  # type: ignore[attr-defined]
        connection.address = replace(connection.address, timeout=60)  # what a server needs to begin is no matter here
        assert answerer.ask(LT350, decoding="copy").text == before.text
    finally:
        server.kill()


def test_no_server_and_one_that_does_not_answer_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(MilvusError, match=f"milvus://127.0.0.1:{port}/demo"):
            MilvusIndex.open(f"milvus://127.0.0.1:{port}/demo?timeout=1")
        assert time.monotonic() - started < 4
    with pytest.raises(MilvusError, match=r"cannot be reached for 1 s; is a server there\?"):
        MilvusIndex.open(f"milvus://127.0.0.1:{port}/demo?timeout=1")
    assert "Traceback" not in capfd.readouterr().err


def test_another_format_and_another_embedder_are_refused(server: LiteServer, demo_index: Path) -> None:
    index = build_milvus(demo_index, server.uri("changed"))
    words = f"{index.name}_words"
    manifest = json.loads(note(index.connection, words, layout.MANIFEST) or "")

    def write(changed: dict[str, Any]) -> None:
        index.connection.call("upsert", words, [layout.note_row(layout.MANIFEST, changed)])

    write(manifest | {"format_version": 99})
    with pytest.raises(IndexMismatchError, match="format 99 in Milvus, this ragqa reads format 1"):
        MilvusIndex.open(server.uri("changed"))
    write(manifest | {"embedder": manifest["embedder"] | {"weights_sha256": "0" * 64}})
    with pytest.raises(IndexMismatchError, match="name the right one with --embedder"):
        Answerer.from_pretrained(server.uri("changed"), device="cpu")


def test_a_name_that_is_something_elses_is_left_alone(server: LiteServer, demo_index: Path, there: Answerer) -> None:
    connection = Connection(Address.parse(server.uri("taken")))
    schema = layout.words_schema(sys.modules["pymilvus"])
    connection.call("create_collection", "taken", schema=schema)
    with pytest.raises(InputError, match="'taken' is something else, which is left alone"):
        build_milvus(demo_index, server.uri("taken"))
    with pytest.raises(IndexNotFoundError, match="no such catalogue in this Milvus; build it"):
        MilvusIndex.open(server.uri("nowhere"))
    assert connection.has("taken")


def test_the_command_builds_from_a_catalogue_and_asks(
    server: LiteServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"milvus://127.0.0.1:{server.port}"
    assert main(["build-index", str(DEMO), "--store", "milvus", "--uri", f"{uri}/shop", "--limit", "60", "-q"]) == 0
    out = capfd.readouterr().out
    assert f"{uri}/shop: 60 products, 384 dimensions" in out
    assert list((tmp_path / "indexes").iterdir()) == []  # the work was taken away
    assert main(["ask", f"{uri}/shop", "Bellbird clip on tuner", "--decoding", "copy", "-q"]) == 0
    assert "Bellbird Clip-On Tuner" in capfd.readouterr().out
    for arguments, wrong in (
        (["build-index", str(DEMO), "--uri", f"{uri}/shop"], "add --store milvus"),
        (["build-index", str(DEMO), "--store", "milvus"], "needs an address"),
        (["build-index", str(DEMO), "--store", "milvus", "--uri", f"{uri}/shop", "--max-memory", "1GB"], "about FAISS"),
        (["update", f"{uri}/shop", str(DEMO)], "an index folder is needed here"),
        (["serve", f"{uri}/shop-1"], "letters, digits and _ only"),
        (["ask", f"{uri}/none?timeout=5", "tuner"], "no such catalogue in this Milvus"),
    ):
        assert main(arguments) == 2
        told = capfd.readouterr()
        assert [wrong in line for line in told.err.splitlines() if line.startswith("error: ")] == [True], told.err
        assert "Traceback" not in told.err


def test_a_text_longer_than_milvus_takes_is_refused_before_anything_is_loaded(
    server: LiteServer, write_lines: Callable[..., Path], tmp_path: Path
) -> None:
    rows: Sequence[dict[str, Any]] = [{"uid": "1", "title": "A thing", "content": "word " * 20_000}]
    folder = tmp_path / "long"
    build_index(write_lines(rows), folder, cleaning=CleaningSettings(max_description_chars=200_000), device="cpu")
    with pytest.raises(InputError, match=r"product '1': its description has 99,999 bytes, Milvus takes 65,535"):
        build_milvus(folder, server.uri("long"))
    with pytest.raises(IndexNotFoundError, match="no such catalogue"):
        MilvusIndex.open(server.uri("long"))


def test_codes_in_the_place_of_vectors_are_not_loaded(server: LiteServer, tmp_path: Path) -> None:
    folder = tmp_path / "sq"
    build_index(DEMO, folder, limit=30, recipe="flat-fp16", device="cpu")
    with pytest.raises(InputError, match="keeps its vectors as SQfp16, not as they were made"):
        build_milvus(folder, server.uri("codes"))


def test_a_file_of_milvus_lite_needs_no_server(tmp_path: Path, demo_index: Path, here: Answerer) -> None:
    uri = f"milvus://{tmp_path}/lite.db/demo"
    index = build_milvus(demo_index, uri)
    (found,) = index.retriever(here.retriever.embedder).retrieve([LT350])
    assert found.candidates[0].exact


@pytest.mark.parametrize("package", ["pymilvus", "milvus_lite"])
def test_a_missing_package_is_named_with_its_extra(
    package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'ragqa\[milvus\]'"):
        MilvusIndex.open(f"milvus://{tmp_path}/lite.db/demo")
