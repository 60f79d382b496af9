import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ragqa import open_index
from ragqa.errors import IndexDamagedError, IndexMismatchError, IndexNotFoundError, ProductIndexError
from ragqa.files import write_json
from ragqa.index.generations import CURRENT, MANIFEST, live_generation, write_current
from ragqa.index.storage import PARTS


def edit_manifest(index: Path, change: Callable[[dict], object]) -> None:
    path = live_generation(index) / MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    write_current(index, path.parent.name, write_json(path, manifest)[1])


def test_the_manifest_names_what_the_index_was_made_of(demo_index: Path) -> None:
    manifest = open_index(demo_index).manifest
    assert manifest["format_version"] == 4
    assert manifest["embedder"]["name"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert manifest["embedder"]["origin"] == "package"
    assert len(manifest["embedder"]["weights_sha256"]) == 64
    assert (manifest["count"], manifest["dimension"]) == (320, 384)
    assert manifest["metric"].startswith("cosine")
    assert set(manifest["parts"]) == set(PARTS)
    assert {"python", "torch", "faiss-cpu", "sentence-transformers"} <= set(manifest["versions"])


def test_no_part_is_a_pickle(demo_index: Path) -> None:
    for part in PARTS:
        assert not (live_generation(demo_index) / part).read_bytes().startswith(b"\x80")


def test_a_missing_index_names_the_command_that_builds_one(tmp_path: Path) -> None:
    with pytest.raises(IndexNotFoundError, match=r"no such index; build it: python -m ragqa\.build_index CATALOGUE"):
        open_index(tmp_path / "nothing")


def test_an_unfinished_index_names_the_command_that_goes_on(tmp_path: Path) -> None:
    (tmp_path / ".partial").mkdir()
    with pytest.raises(IndexNotFoundError, match="run the same build_index command again"):
        open_index(tmp_path)


@pytest.mark.parametrize("name", ["../elsewhere", "g000009", "", "x" * 300])
def test_a_pointer_to_nowhere_is_refused(own_index: Path, name: str) -> None:
    (own_index / CURRENT).write_text(name)
    with pytest.raises(IndexDamagedError, match="CURRENT names"):
        open_index(own_index)


def test_another_format_version_is_refused_with_the_command(own_index: Path) -> None:
    edit_manifest(own_index, lambda m: m.update(format_version=99))
    with pytest.raises(
        IndexMismatchError, match=r"index format 99, this ragqa reads format 4; build it anew: python -m"
    ):
        open_index(own_index)


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named(own_index: Path, part: str) -> None:
    (live_generation(own_index) / part).unlink()
    with pytest.raises(IndexDamagedError, match=f"{part}: missing"):
        open_index(own_index)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_cut_short_is_refused_even_by_the_quick_check(own_index: Path, part: str) -> None:
    path = live_generation(own_index) / part
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IndexDamagedError, match=rf"{part}: [\d,]+ bytes where the manifest says [\d,]+"):
        open_index(own_index, verify="sizes")


@pytest.mark.parametrize("part", PARTS)
def test_any_changed_byte_is_refused(own_index: Path, part: str) -> None:
    path = live_generation(own_index) / part
    whole = path.read_bytes()
    rng = random.Random(part)
    for position in rng.sample(range(len(whole)), 20):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(IndexDamagedError, match=f"{part}: its content changed"):
            open_index(own_index)


def test_any_changed_byte_of_the_manifest_is_refused(own_index: Path) -> None:
    path = live_generation(own_index) / MANIFEST
    whole = path.read_bytes()
    rng = random.Random(0)
    for position in rng.sample(range(len(whole)), 150):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(ProductIndexError, match="anew"):
            open_index(own_index)


def test_any_changed_byte_of_the_pointer_is_refused_or_changes_nothing(own_index: Path) -> None:
    """Also where it then names another generation that is there, and whole."""
    shutil.copytree(own_index / "g000001", own_index / "g000003")
    edited = json.loads((own_index / "g000003" / MANIFEST).read_text())
    write_json(own_index / "g000003" / MANIFEST, edited | {"seed": 77})
    path = own_index / CURRENT
    whole = path.read_bytes()
    refused = 0
    for position in range(len(whole)):
        for change in (1, 2, 4, 0x20, 0x80):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ change]) + whole[position + 1 :])
            try:
                assert open_index(own_index, "sizes").folder.name == "g000001"
            except ProductIndexError:
                refused += 1
    assert refused > 4 * len(whole)


def test_damage_at_either_end_is_refused_even_by_the_quick_check(own_index: Path) -> None:
    for part in PARTS:
        path = live_generation(own_index) / part
        whole = path.read_bytes()
        for place in (0, len(whole) - 1):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(IndexDamagedError, match=f"{part}: its content changed"):
                open_index(own_index, "sizes")
        path.write_bytes(whole)


def test_an_index_that_an_earlier_ragqa_wrote_is_opened(own_index: Path) -> None:
    def without_ends(manifest: dict) -> None:
        for part in manifest["parts"].values():
            del part["ends_sha256"]

    edit_manifest(own_index, without_ends)
    (own_index / CURRENT).write_text("g000001\n")
    assert len(open_index(own_index)) == 320


def test_a_store_of_another_index_beside_whole_vectors_is_refused(own_index: Path, tmp_path: Path) -> None:
    """Counts are compared even where sizes and hashes were made to agree."""
    from ragqa.catalogue.store import StoreWriter
    from ragqa.files import sha256_of
    from ragqa.records import Product

    store = live_generation(own_index) / "products.arrow"
    store.unlink()
    with StoreWriter(store) as writer:
        writer.add([Product("1", "Other", "Another catalogue")])
    part = {"size": store.stat().st_size, "sha256": sha256_of(store)}
    edit_manifest(own_index, lambda m: m["parts"].update({"products.arrow": part}))
    with pytest.raises(IndexDamagedError, match="do not belong together"):
        open_index(own_index)


def test_an_index_may_be_moved(own_index: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "renamed"
    moved.parent.mkdir()
    shutil.move(own_index, moved)
    assert len(open_index(moved)) == 320
