"""Two real Ray nodes: what they build and answer is what one process does, whatever is killed on the way.

Ray's own connections are none that tests may have: whatever talks to it is a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.toys import rows
from ragqa import Answerer, build_index, open_index
from ragqa.index import blocks
from ragqa.index.storage import ProductIndex
from tests.conftest import ROOT
from tests.milvus.conftest import LiteServer

pytestmark = pytest.mark.weights
_SIZE = 64

# The command line, with small blocks, and something that happens when so many shards are written.
DRIVER = """
import os, signal, sys
from pathlib import Path
from ragqa import cli
from ragqa.batch import questions
from ragqa.cluster import engine
from ragqa.index import blocks, shards

blocks.SIZE, questions.SIZE, engine._FEW_BYTES = 64, 2, 0
what, left = sys.argv[1], int(sys.argv[2])

def workers():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::MapWorker(") and b"Embed" in path.read_bytes():
                yield int(path.parent.name)
        except OSError:
            pass

write = shards.Shards.write
def writing(self, start, vectors):
    global left
    write(self, start, vectors)
    left -= 1
    print("wrote", start, "by", *sorted(workers()), flush=True)
    if left == 0:
        if what == "kill":
            killed = min(workers())
            os.kill(killed, signal.SIGKILL)
            print("killed", killed, flush=True)
        elif what == "stop":
            os.kill(os.getpid(), signal.SIGINT)
        elif what == "lose":
            print("lose", flush=True)
            sys.stdin.readline()
shards.Shards.write = writing
sys.exit(cli.main(sys.argv[3:]))
"""


def run(*arguments: object, happens: tuple[str, int] = ("nothing", 0), **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *map(str, happens), *map(str, arguments)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more,
    )  # fmt: skip


def pipe(one: IO[str] | None) -> IO[str]:
    assert one is not None
    return one


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def nodes() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.nodes"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        yield process
        pipe(process.stdin).close()


@pytest.fixture(scope="module")
def address(nodes: subprocess.Popen[str]) -> str:
    return pipe(nodes.stdout).readline().strip()


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four files; each begins with rows of the one before, and with some that cleaning drops for other reasons."""
    folder = tmp_path_factory.mktemp("catalogue")
    made = rows(1, 800)
    for number in range(4):
        part = made[max(number * 170 - 20, 0) : (number + 1) * 170]
        part += [
            {"id": "", "title": "", "text": "no title"},
            {"id": part[3]["id"], "title": "Another", "text": f"{number}"},
        ]
        (folder / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return folder


@pytest.fixture(scope="module")
def expected(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> ProductIndex:
    """The index that one process builds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "SIZE", _SIZE)
        return build_index(catalogue, tmp_path_factory.mktemp("one") / "index")


def report(index: ProductIndex) -> dict[str, Any]:
    return json.loads((index.folder / "cleaning.json").read_text("utf-8")) | {"seconds": 0}


def assert_same(found: ProductIndex, expected: ProductIndex) -> None:
    assert list(found.store) == list(expected.store)
    mine, theirs = (index.dense.vectors(range(len(index.store))) for index in (found, expected))
    np.testing.assert_allclose(mine, theirs, atol=1e-5)
    varying = {"seconds", "created", "parts", "content_sha256", "dense"}
    assert {k: v for k, v in found.manifest.items() if k not in varying} == {
        k: v for k, v in expected.manifest.items() if k not in varying
    }
    same = ("products.arrow", "titles.bin", "title-words.bin", "description-words.bin", "spelling.bin")
    assert all(found.manifest["parts"][name] == expected.manifest["parts"][name] for name in same)
    assert report(found) == report(expected)


def test_a_worker_killed_in_the_middle_costs_no_product_and_the_index_is_that_of_one_process(
    address: str, catalogue: Path, expected: ProductIndex, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    build = (
        "build-index",
        catalogue,
        "--out",
        out,
        "--engine",
        "ray",
        "--address",
        address,
        "--shards",
        tmp_path / "shards",
    )
    status, told, err = ended(run(*build, happens=("kill", 2)))
    assert status == 0, err
    killed = told.partition("killed ")[2].split()[0]
    after = told.partition("killed ")[2]
    assert after.count("wrote") >= len(expected.store) // _SIZE - 2
    assert killed not in after.rpartition("wrote")[2], "the worker that was killed is not there any more"
    assert_same(open_index(out), expected)
    kept = pq.read_table(tmp_path / "shards")
    assert kept.column("id").to_pylist() == [product.id for product in expected.store]
    assert not (out / ".partial").exists()


def test_questions_are_answered_as_by_one_process(address: str, demo_index: Path, tmp_path: Path) -> None:
    asked = ("ask-many", demo_index, ROOT / "examples" / "questions.csv", "--decoding", "copy", "--quiet")
    status, _, err = ended(run(*asked, "--out", tmp_path / "one.parquet"))
    assert status == 0, err
    status, told, err = ended(run(*asked, "--out", tmp_path / "ray.parquet", "--engine", "ray", "--address", address))
    assert status == 0, err
    assert "4 asked in" in told
    assert pq.read_table(tmp_path / "ray.parquet").equals(pq.read_table(tmp_path / "one.parquet"))


@pytest.mark.skipif("RAGQA_LONG" not in os.environ, reason="takes two minutes; make torture runs it")
def test_what_ray_embeds_is_found_in_milvus(
    address: str, catalogue: Path, expected: ProductIndex, tmp_path: Path
) -> None:
    server = LiteServer(tmp_path / "milvus")
    try:
        uri = server.uri("by_ray", timeout=60)
        build = ("build-index", catalogue, "--out", tmp_path / "work", "--store", "milvus", "--uri", uri)
        status, told, err = ended(run(*build, "--engine", "ray", "--address", address))
        assert status == 0, err
        assert told.count("wrote") == -(-len(expected.store) // _SIZE)
        there = Answerer.from_pretrained(uri, device="cpu")
        here = Answerer.from_pretrained(expected.folder.parent, device="cpu")
        assert len(there.index) == len(expected.store)
        titles = [product.title for product in expected.store][::97]
        for mine, theirs in zip(there.retrieve(titles), here.retrieve(titles), strict=True):
            assert mine.candidates[0].product == theirs.candidates[0].product
            assert mine.candidates[0].score == pytest.approx(theirs.candidates[0].score, abs=1e-4)
    finally:
        server.kill()


@pytest.mark.skipif("RAGQA_LONG" not in os.environ, reason="needs both cores; make torture runs it")
def test_a_stopped_build_goes_on_from_its_shards_and_ends_the_same_though_a_machine_is_lost(
    address: str, nodes: subprocess.Popen[str], catalogue: Path, expected: ProductIndex, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    build = ("build-index", catalogue, "--out", out, "--engine", "ray", "--address", address)
    status, _, err = ended(run(*build, happens=("stop", 3)))
    assert (status, err.splitlines()[-1]) == (130, "interrupted; the same command goes on from what was finished")
    shards = {path.name: path.stat().st_mtime_ns for path in (out / ".partial" / "shards").glob("*.parquet")}
    assert len(shards) == 3
    again = run(*build, happens=("lose", 2))
    before = list(iter(pipe(again.stdout).readline, "lose\n"))
    pipe(nodes.stdin).write("lose\n")
    pipe(nodes.stdin).flush()
    assert pipe(nodes.stdout).readline() == "lost\n"
    status, told, err = ended(again)
    assert status == 0, err
    wrote = [f"shard-{int(line.split()[1]):010d}.parquet" for line in [*before, *told.splitlines()] if "wrote" in line]
    assert len(wrote) == -(-len(expected.store) // _SIZE) - 3
    assert not set(wrote) & set(shards), "what was embedded is not embedded again"
    assert "titles are embedded already" in err
    assert_same(open_index(out), expected)
