"""The pointer vouches for everything, and nothing that is read is removed."""

import gc
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from ragqa.errors import IndexDamagedError, IndexNotFoundError
from ragqa.files import try_lock, write_json
from ragqa.index.generations import CURRENT, MANIFEST, Hold, hold_live, live_generation, publish, read_current


def published(path: Path, number: int) -> Path:
    path.mkdir(exist_ok=True)
    work = path / "work"
    work.mkdir()
    (work / "part").write_text(str(number))
    return publish(path, work, {"number": number})


def generations(path: Path) -> list[str]:
    return sorted(one.name for one in path.glob("g*"))


def test_the_pointer_has_the_hash_of_the_manifest(tmp_path: Path) -> None:
    generation = published(tmp_path / "x", 1)
    digest = hashlib.sha256((generation / MANIFEST).read_bytes()).hexdigest()
    assert (tmp_path / "x" / CURRENT).read_text() == f"g000001 {digest}\n"
    assert read_current(tmp_path / "x") == (generation, digest)


def test_a_pointer_of_an_earlier_ragqa_is_read(tmp_path: Path) -> None:
    generation = published(tmp_path / "x", 1)
    (tmp_path / "x" / CURRENT).write_text("g000001\n")
    assert read_current(tmp_path / "x") == (generation, None)


@pytest.mark.parametrize("text", ["g000001 abc", "g000001 " + "0" * 64 + " more", "g000001" + "0" * 64])
def test_a_changed_pointer_is_refused(text: str, tmp_path: Path) -> None:
    published(tmp_path / "x", 1)
    (tmp_path / "x" / CURRENT).write_text(text)
    with pytest.raises(IndexDamagedError, match="CURRENT"):
        read_current(tmp_path / "x")


def test_the_live_generation_and_the_one_before_stay(tmp_path: Path) -> None:
    for number in range(4):
        published(tmp_path / "x", number)
    assert generations(tmp_path / "x") == ["g000003", "g000004"]


def test_a_generation_that_is_held_stays_until_it_is_let_go(tmp_path: Path) -> None:
    published(tmp_path / "x", 1)
    live, hold = hold_live(tmp_path / "x")
    assert hold is not None
    for number in range(3):
        published(tmp_path / "x", number)
    assert generations(tmp_path / "x") == ["g000001", "g000003", "g000004"]
    assert (live.folder / "part").read_text() == "1"
    del hold
    gc.collect()
    published(tmp_path / "x", 9)
    assert generations(tmp_path / "x") == ["g000004", "g000005"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_holds_on_when_its_parent_lets_go(tmp_path: Path) -> None:
    published(tmp_path / "x", 1)
    _, hold = hold_live(tmp_path / "x")
    (go_reading, go), (told_reading, told) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.write(told, b".")
        os.read(go_reading, 1)
        os._exit(0)
    os.read(told_reading, 1)
    del hold
    gc.collect()
    for number in range(3):
        published(tmp_path / "x", number)
    assert "g000001" in generations(tmp_path / "x")
    os.write(go, b".")
    os.waitpid(child, 0)
    published(tmp_path / "x", 9)
    assert "g000001" not in generations(tmp_path / "x")
    for descriptor in (go_reading, go, told_reading, told):
        os.close(descriptor)


def test_a_reader_that_comes_while_its_generation_is_removed_takes_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = published(tmp_path / "x", 1)
    take = Hold.take

    def late(generation: Path) -> Hold | None:
        if generation == old:  # meanwhile it is replaced twice, and removed
            for number in (2, 3):
                published(tmp_path / "x", number)
            assert not old.exists()
        return take(generation)

    monkeypatch.setattr(Hold, "take", late)
    live, hold = hold_live(tmp_path / "x")
    assert hold is not None
    assert live.folder == live_generation(tmp_path / "x")
    assert json.loads((live.folder / MANIFEST).read_text())["number"] == 3


def test_a_generation_without_a_manifest_is_not_held(tmp_path: Path) -> None:
    generation = published(tmp_path / "x", 1)
    (generation / MANIFEST).unlink()
    assert hold_live(tmp_path / "x")[1] is None
    shutil.rmtree(generation)
    with pytest.raises(IndexDamagedError):
        hold_live(tmp_path / "x")
    with pytest.raises(IndexNotFoundError):
        hold_live(tmp_path / "y")


def test_a_generation_that_was_written_but_not_pointed_to_is_removed_by_the_next_write(tmp_path: Path) -> None:
    published(tmp_path / "x", 1)
    left = tmp_path / "x" / "g000002"
    left.mkdir()
    write_json(left / MANIFEST, {"number": 2})
    assert published(tmp_path / "x", 3).name == "g000003"
    assert generations(tmp_path / "x") == ["g000001", "g000003"]


@pytest.mark.parametrize("again", [True, False], ids=["replaced", "removed"])
def test_a_manifest_that_goes_between_opening_and_locking_is_not_held(
    again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = published(tmp_path / "x", 1)

    def lock(descriptor: int, shared: bool = False) -> bool | None:
        content = (generation / MANIFEST).read_bytes()
        (generation / MANIFEST).unlink()
        if again:
            (generation / MANIFEST).write_bytes(content)
        return try_lock(descriptor, shared)

    monkeypatch.setattr("ragqa.index.generations.try_lock", lock)
    assert Hold.take(generation) is None


def test_a_generation_that_is_being_removed_is_not_held(tmp_path: Path) -> None:
    generation = published(tmp_path / "x", 1)
    with (generation / MANIFEST).open("rb") as removing:
        assert try_lock(removing.fileno())
        assert Hold.take(generation) is None
    assert Hold.take(generation) is not None


def test_an_old_generation_without_a_manifest_is_removed_by_the_next_write(tmp_path: Path) -> None:
    first = published(tmp_path / "x", 1)
    published(tmp_path / "x", 2)
    (first / MANIFEST).unlink()
    published(tmp_path / "x", 3)
    assert generations(tmp_path / "x") == ["g000002", "g000003"]
