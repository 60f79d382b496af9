"""What a build leaves behind and what it says of where the catalogue came from, without a server."""

from pathlib import Path
from typing import Any

import pytest

from ragqa.index.generations import CURRENT
from ragqa.milvus import build
from ragqa.milvus.build import _Milvus, build_milvus
from ragqa.milvus.index import MilvusIndex


def test_the_folder_of_the_work_goes_unless_it_is_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "Connection", lambda address: address)
    monkeypatch.setattr(build, "build_into", lambda *_, **__: None)
    monkeypatch.setattr(MilvusIndex, "open", lambda address: address.name)
    for name, kept in (("work", False), ("index", True)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / (CURRENT if kept else "vectors")).write_text("g000001", "utf-8")
        assert build_milvus("c.json", "milvus://host/shop", out=folder) == "shop"
        assert folder.exists() is kept


@pytest.mark.parametrize(
    ("catalogue", "noted"), [({"name": "/home/ana/c.json", "rows": 3}, {"name": "c.json", "rows": 3}), ({}, {})]
)
def test_folders_of_this_machine_are_noted_nowhere(
    monkeypatch: pytest.MonkeyPatch, catalogue: dict[str, Any], noted: dict[str, Any]
) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(build, "load", lambda _, contents, *__: loaded.append(contents))
    connection: Any = None
    about = {"content_sha256": "0" * 64, "catalogue": catalogue}
    _Milvus(connection, "flat").load([], [], 2, about, None)
    (contents,) = loaded
    assert contents.about == about | {"catalogue": noted}
