"""A folder is replaced in one step: at no moment there is none, and what a killed writer left is put right."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from ragqa import folders
from ragqa.errors import StorageError
from ragqa.folders import copy_folder, exchange, readable, recover, replace_folder, sync_tree


def folder(path: Path, text: str) -> Path:
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "file").write_text(text)
    return path


def text(path: Path) -> str:
    return (path / "inner" / "file").read_text()


def names(path: Path) -> list[str]:
    return sorted(one.name for one in path.iterdir())


@pytest.fixture(params=["exchanged", "renamed"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the system's call that exchanges two names, and without it."""
    if request.param == "renamed":
        monkeypatch.setattr(folders, "_exchanger", lambda: None)
    return str(request.param)


def test_a_folder_takes_the_place_of_another(tmp_path: Path, way: str) -> None:
    folder(tmp_path / "x", "old")
    replace_folder(folder(tmp_path / "new", "new"), tmp_path / "x")
    assert text(tmp_path / "x") == "new"
    assert names(tmp_path) == ["x"]


def test_a_folder_takes_an_empty_place(tmp_path: Path, way: str) -> None:
    replace_folder(folder(tmp_path / "new", "new"), tmp_path / "x")
    assert text(tmp_path / "x") == "new"
    assert names(tmp_path) == ["x"]


def test_names_are_exchanged_in_one_step_on_this_system(tmp_path: Path) -> None:
    folder(tmp_path / "a", "1")
    folder(tmp_path / "b", "2")
    assert exchange(tmp_path / "a", tmp_path / "b")
    assert (text(tmp_path / "a"), text(tmp_path / "b")) == ("2", "1")


def test_a_file_system_that_cannot_exchange_names_is_no_error(tmp_path: Path) -> None:
    import errno

    def refuse(one: bytes, other: bytes) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1

    folder(tmp_path / "x", "old")
    with mock.patch.object(folders, "_exchanger", return_value=refuse):
        assert not exchange(tmp_path / "x", tmp_path / "y")
        replace_folder(folder(tmp_path / "new", "new"), tmp_path / "x")
    assert text(tmp_path / "x") == "new"


def test_another_error_of_the_exchange_is_told_and_the_old_folder_stays(tmp_path: Path) -> None:
    folder(tmp_path / "x", "old")
    folder(tmp_path / "new", "new")
    with (
        mock.patch.object(folders, "exchange", side_effect=OSError(5, "Input/output error")),
        pytest.raises(StorageError, match=r"cannot write .*/x \(Input/output error\)"),
    ):
        replace_folder(tmp_path / "new", tmp_path / "x")
    assert text(tmp_path / "x") == "old"


def test_a_rename_that_fails_brings_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_exchanger", lambda: None)
    folder(tmp_path / "x", "old")
    with pytest.raises(StorageError, match="cannot write"), mock.patch.object(folders, "sync_tree"):
        replace_folder(tmp_path / "missing", tmp_path / "x")
    assert text(tmp_path / "x") == "old"


def test_between_two_renames_a_reader_finds_the_old_folder_and_a_writer_puts_it_back(tmp_path: Path) -> None:
    folder(tmp_path / ".x.old", "old")
    assert readable(tmp_path / "x") == tmp_path / ".x.old"
    recover(tmp_path / "x")
    assert text(readable(tmp_path / "x")) == "old"
    assert names(tmp_path) == ["x"]


def test_what_was_replaced_already_is_cleaned_up(tmp_path: Path) -> None:
    folder(tmp_path / ".x.old", "old")
    folder(tmp_path / "x", "new")
    assert readable(tmp_path / "x") == tmp_path / "x"
    recover(tmp_path / "x")
    assert names(tmp_path) == ["x"]
    assert text(tmp_path / "x") == "new"


def test_a_folder_that_is_not_there_stays_so(tmp_path: Path) -> None:
    assert readable(tmp_path / "x") == tmp_path / "x"
    assert readable(Path()) == Path()


def test_every_file_and_every_folder_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append(str(Path(f"/proc/self/fd/{number}").readlink())))
    sync_tree(folder(tmp_path / "x", "1"))
    assert flushed == [f"{tmp_path}/x/inner/file", f"{tmp_path}/x/inner", f"{tmp_path}/x"]


def test_a_folder_is_flushed_before_its_name_promises_that_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    def fail(number: int) -> None:
        raise OSError(5, "Input/output error")

    folder(tmp_path / "x", "old")
    folder(tmp_path / "new", "new")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError):
        replace_folder(tmp_path / "new", tmp_path / "x")
    assert text(tmp_path / "x") == "old"


def test_files_are_copied_with_their_folders_and_what_is_no_file_is_passed_over(tmp_path: Path) -> None:
    os.mkfifo(folder(tmp_path / "x", "1") / "pipe")
    (tmp_path / "x" / "empty").mkdir()
    copy_folder(tmp_path / "x", tmp_path / "y")
    assert [path.relative_to(tmp_path / "y") for path in sorted((tmp_path / "y").rglob("*"))] == [
        Path("inner"),
        Path("inner/file"),
    ]
    assert text(tmp_path / "y") == "1"


def test_an_error_of_the_systems_own_call_names_the_place(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"No such file or directory: '{tmp_path}/missing'"):
        exchange(folder(tmp_path / "x", "1"), tmp_path / "missing")
    assert names(tmp_path) == ["x"]


class Library:
    """The calls that another system's C library has."""

    def __init__(self, **calls: object) -> None:
        self.__dict__.update(calls)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Library], None]]:
    """Put a system and its library in the place of this one's."""

    def put(system: str, calls: Library) -> None:
        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: calls)
        folders._exchanger.cache_clear()

    yield put
    folders._exchanger.cache_clear()


def test_a_library_without_a_call_that_exchanges_names_exchanges_none(
    tmp_path: Path, library: Callable[[str, Library], None]
) -> None:
    library("linux", Library())
    assert not exchange(folder(tmp_path / "x", "1"), folder(tmp_path / "y", "2"))
    assert text(tmp_path / "x") == "1"


def test_on_macos_names_are_exchanged_by_its_own_call(library: Callable[[str, Library], None]) -> None:
    asked: list[tuple[bytes, bytes, int]] = []

    def renamex_np(one: bytes, other: bytes, how: int) -> int:
        asked.append((one, other, how))
        return 0

    library("darwin", Library(renamex_np=renamex_np))
    assert exchange(Path("/a"), Path("/b"))
    assert asked == [(b"/a", b"/b", 2)]
