"""A file that another machine cannot read is told as it was named, without Ray."""

from __future__ import annotations

import platform
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from ragqa.catalogue.columns import ReadOptions
from ragqa.cluster.cleaning import CleanFile, HashFile, hash_files
from ragqa.cluster.faults import from_text
from ragqa.errors import CatalogueError
from ragqa.settings import CleaningSettings


def named(path: Path) -> pa.Table:
    return pa.Table.from_pylist([{"path": str(path), "named": "shared/c.json"}])


def test_a_file_that_is_not_seen_there_ends_the_hashing_with_its_name(tmp_path: Path) -> None:
    told = HashFile(platform.node())(named(tmp_path / "nowhere.json"))
    session: Any = SimpleNamespace(tables=lambda make, in_order: iter([told]))
    with pytest.raises(
        CatalogueError, match=r"^shared/c\.json: cannot be read \(No such file or directory\); all mach"
    ):
        hash_files(session, [Path("shared/c.json")])


def test_a_file_that_cannot_be_cleaned_gives_one_row_with_its_error_and_no_product(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.json"
    path.write_text("no JSON\n", "utf-8")
    (table,) = CleanFile(ReadOptions(), CleaningSettings(), platform.node())(named(path))
    (row,) = table.to_pylist()
    error = from_text(row.pop("error"))
    assert type(error) is CatalogueError
    assert "shared/c.json" in str(error)
    assert str(tmp_path) not in str(error)
    assert set(row.values()) == {None}
