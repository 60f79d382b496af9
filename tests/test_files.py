from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragqa.errors import StorageError
from ragqa.files import HashingFile, ends_sha256, replacing, sha256_of, storage_errors, sync_folder, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def no_room() -> Iterator[None]:
    """No file of this process may grow beyond 64 KiB: the system itself refuses, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_a_hashing_file_knows_size_and_sha256_of_what_it_wrote(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("files") / "f"
    with HashingFile(path) as file:
        for part in parts:
            assert file.write(part) == len(part)
        assert file.tell() == len(b"".join(parts))
    assert path.read_bytes() == b"".join(parts)
    assert (file.size, file.sha256) == (path.stat().st_size, sha256_of(path))


def test_sha256_of_a_file_longer_than_a_block_is_right(tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 5
    (tmp_path / "f").write_bytes(data)
    assert sha256_of(tmp_path / "f") == hashlib.sha256(data).hexdigest()


def test_a_hashing_file_makes_its_folders(tmp_path: Path) -> None:
    HashingFile(tmp_path / "a" / "b" / "f").close()
    assert (tmp_path / "a" / "b" / "f").read_bytes() == b""


def test_a_hashing_file_does_not_write_over_another(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("precious")
    with pytest.raises(StorageError, match=r"cannot write .*/f \(File exists\); choose another place with --out"):
        HashingFile(tmp_path / "f")
    assert (tmp_path / "f").read_text() == "precious"


def test_closing_flushes_to_the_disk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    file = HashingFile(tmp_path / "f")
    file.close()
    file.close()
    assert len(flushed) == 1


def test_replacing_puts_the_new_file_in_the_place_of_the_old(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    with replacing(tmp_path / "f") as file:
        file.write(b"new")
        assert (tmp_path / "f").read_text() == "old"
    assert (tmp_path / "f").read_text() == "new"
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError, SystemExit])
def test_what_fails_while_replacing_leaves_the_old_file_alone(tmp_path: Path, failure: type[BaseException]) -> None:
    def fail() -> None:
        with replacing(tmp_path / "f") as file:
            file.write(b"half of the n")
            raise failure

    (tmp_path / "f").write_text("old")
    with pytest.raises(failure):
        fail()
    assert (tmp_path / "f").read_text() == "old"
    assert names(tmp_path) == ["f"]


def test_a_leftover_of_a_killed_process_of_the_same_number_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f".f.{os.getpid()}.tmp").write_text("left over")
    with replacing(tmp_path / "f") as file:
        file.write(b"new")
    assert names(tmp_path) == ["f"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_leftover_of_a_dead_process_is_removed_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    for process in (child, os.getppid()):
        (tmp_path / f".f.{process}.tmp").write_text("half")
    (tmp_path / f".g.{child}.tmp").write_text("of another file")
    with replacing(tmp_path / "f") as file:
        file.write(b"new")
    assert names(tmp_path) == sorted(["f", f".f.{os.getppid()}.tmp", f".g.{child}.tmp"])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_file_that_a_process_elsewhere_is_writing_is_not_removed(tmp_path: Path) -> None:
    """Its number says nothing here; its lock does."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    with HashingFile(tmp_path / f".f.{child}.tmp") as other:
        other.lock()
        with replacing(tmp_path / "f") as file:
            file.write(b"new")
        assert names(tmp_path) == sorted(["f", f".f.{child}.tmp"])


def test_both_ends_of_a_file_have_a_hash(tmp_path: Path) -> None:
    data = bytearray(os.urandom(1 << 18))
    (tmp_path / "f").write_bytes(data)
    before = ends_sha256(tmp_path / "f")
    assert before == hashlib.sha256(data[: 1 << 16] + data[-(1 << 16) :]).hexdigest()
    for place, seen in ((0, True), (1 << 16, False), (-(1 << 16), True), (-1, True)):
        changed = bytearray(data)
        changed[place] ^= 1
        (tmp_path / "f").write_bytes(changed)
        assert (ends_sha256(tmp_path / "f") != before) == seen


# The first is refused while writing, the second only when the rest of the buffer is flushed.
@pytest.mark.parametrize("size", [1 << 17, (1 << 16) + 1])
def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path: Path, size: int, no_room: None) -> None:
    def fill() -> None:
        with replacing(tmp_path / "f") as file:
            for _ in range(size):
                file.write(b"x")

    with pytest.raises(StorageError) as caught:
        fill()
    assert str(caught.value).startswith(f"no space left to write {tmp_path}/f (")
    assert str(caught.value).endswith(
        "MB free there); free some, or choose another place with --out, and run the same command again"
    )
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "no space left to write {0} ("),
        (errno.EDQUOT, "no space left to write {0} ("),
        (errno.EACCES, "cannot write {0} (Permission denied); choose a folder of yours with --out"),
        (errno.EROFS, "cannot write {0} (Read-only file system); choose a folder of yours with --out"),
        (errno.EIO, "cannot write {0} (Input/output error); choose another place with --out"),
        (errno.ELOOP, "cannot write {0} (Too many levels of symbolic links); choose another place with --out"),
    ],
)
def test_an_error_of_the_system_becomes_one_clear_line(tmp_path: Path, number: int, message: str) -> None:
    with pytest.raises(StorageError) as caught, storage_errors(tmp_path / "f"):
        raise OSError(number, os.strerror(number), "/some/inner/name")
    assert str(caught.value).startswith(message.format(tmp_path / "f"))
    assert "\n" not in str(caught.value)


def test_an_error_that_is_not_about_writing_passes(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError), storage_errors(tmp_path):
        raise TimeoutError


def test_a_place_below_a_regular_file_is_refused_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError) as caught, replacing(tmp_path / "file" / "sub" / "f"):
        pytest.fail("nothing can be written here")
    assert str(caught.value).startswith(f"cannot write {tmp_path}/file/sub/f (Not a directory);")


def test_a_folder_in_the_place_of_the_file_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    with pytest.raises(StorageError) as caught, replacing(tmp_path / "f") as file:
        file.write(b"x")
    assert str(caught.value) == f"cannot write {tmp_path}/f (Is a directory); choose another place with --out"
    assert names(tmp_path) == ["f"]


def test_a_name_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"\(File name too long\)"), replacing(tmp_path / ("x" * 250)):
        pytest.fail("no room for the temporary name")


def test_write_json_gives_back_size_and_sha256(tmp_path: Path) -> None:
    size, digest = write_json(tmp_path / "v.json", {"title": "Maçã"})
    assert (tmp_path / "v.json").read_bytes() == '{\n  "title": "Maçã"\n}\n'.encode()
    assert (size, digest) == ((tmp_path / "v.json").stat().st_size, sha256_of(tmp_path / "v.json"))


texts = st.text() | st.sampled_from(["\ud800", "a\udfff", "\x00", '"\\', "\u2028"])


@given(st.dictionaries(texts, texts | st.integers() | st.lists(texts), max_size=4))
def test_any_json_value_survives_write_json(tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "v.json"
    write_json(path, value)
    assert json.loads(path.read_text("utf-8")) == value


def test_syncing_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "missing")
