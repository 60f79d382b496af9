"""Files cleaned apart and joined are what one process makes of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragqa.catalogue.clean import CleaningReport
from ragqa.catalogue.columns import ReadOptions
from ragqa.catalogue.export import clean_catalogue
from ragqa.catalogue.parts import Joined, clean_file
from ragqa.catalogue.places import place
from ragqa.catalogue.read import Catalogue
from ragqa.errors import CatalogueError, MissingDependencyError
from ragqa.records import Product
from ragqa.settings import CleaningSettings

# Few texts, so that rows share ids and texts in every way.
row = st.fixed_dictionaries(
    {
        "uid": st.sampled_from(["", "1", " 1", "2", "3"]),
        "title": st.sampled_from(["", "A &amp; B", "a & b", "C", "Long " * 30, "D"]),
        "content": st.sampled_from(["", "text", "<b>Text</b>", "other", "much " * 20]),
    }
) | st.just("{")
SETTINGS = CleaningSettings(max_title_chars=100, max_description_chars=80)
SKIP = ReadOptions(on_error="skip")


def both(folder: Path) -> list[tuple[list[Product], dict[str, Any]]]:
    """Products and report, by one process and by parts."""
    found: list[tuple[list[Product], CleaningReport]] = []
    products: list[Product] = []
    found.append((products, clean_catalogue(Catalogue(folder, SKIP), SETTINGS, products.extend)))
    joined, apart = Joined(str(folder)), list[Product]()
    for path in sorted(folder.iterdir()):
        for table in clean_file(str(path), SKIP, SETTINGS):
            joined.add(table, apart.extend)
    found.append((apart, joined.report))
    return [(some, report.to_dict() | {"seconds": 0}) for some, report in found]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(row, max_size=8), min_size=1, max_size=4))
def test_any_files_cleaned_apart_and_joined_are_those_cleaned_by_one_process(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[Any]]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    kept = {"uid": "kept", "title": "Kept", "content": "in any case"}
    for number, rows in enumerate([*files, [kept]]):
        lines = [one if isinstance(one, str) else json.dumps(one) for one in rows]
        (folder / f"{number}.json").write_text("".join(f"{line}\n" for line in lines))
    one, apart = both(folder)
    assert apart == one


def test_a_catalogue_named_by_a_url_is_read_as_by_its_path(tmp_path: Path) -> None:
    pytest.importorskip("upath")
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"uid": str(i), "title": f"T {i}", "content": f"text {i}"} for i in range(5)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b.parquet")
    by_path, by_url = Catalogue(tmp_path), Catalogue(f"file://{tmp_path}")
    assert list(by_url.rows()) == list(by_path.rows())
    assert by_url.fingerprint() == by_path.fingerprint()
    assert by_url.total_bytes == by_path.total_bytes


def test_a_catalogue_in_another_store_is_read_as_well() -> None:
    import fsspec

    pytest.importorskip("upath")
    memory = fsspec.filesystem("memory")
    memory.pipe("/shop/a.csv", b"sku,name,description\n1,Lamp,Shines.\n2,Pot,Holds.\n")
    assert [row.title for row in Catalogue("memory://shop/a.csv").rows()] == ["Lamp", "Pot"]
    assert [row.title for row in Catalogue("memory://shop").rows()] == ["Lamp", "Pot"]
    with pytest.raises(CatalogueError, match="memory://none: no such file or folder"):
        Catalogue("memory://none")


def test_a_url_that_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("upath")
    with pytest.raises(CatalogueError, match="nope://x/y: not a URL that fsspec reads"):
        place("nope://x/y")
    with pytest.raises(MissingDependencyError, match=r"s3://bucket/x: the package that reads .*s3fs"):
        place("s3://bucket/x")
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "ragqa\[ray\]"'):
        place("s3://bucket/x")
