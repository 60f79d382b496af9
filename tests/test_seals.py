"""A manifest tells when it, or a file beside it, is not what it was."""

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ragqa.seals import SELF, changed_file, digest, file_parts, is_sealed, sealed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_a_sealed_manifest_is_whole_also_once_it_was_written_and_read(manifest: dict[str, Any]) -> None:
    assert is_sealed(json.loads(json.dumps(sealed(manifest))))
    assert sealed(sealed(manifest)) == sealed(manifest)


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 9), min_size=1, max_size=4), st.data())
def test_one_that_was_changed_is_not(manifest: dict[str, int], data: st.DataObject) -> None:
    whole = sealed(manifest)
    name = data.draw(st.sampled_from(sorted(whole)))
    assert not is_sealed(whole | {name: "other"})
    assert (
        not is_sealed({key: value for key, value in whole.items() if key != name} | {SELF: whole[SELF]}) or name == SELF
    )


def test_one_without_a_seal_is_taken_as_it_is() -> None:
    assert is_sealed({"kind": "older"})


def test_a_tuple_and_a_list_are_the_same_value() -> None:
    assert digest({"a": (1, 2)}) == digest({"a": [1, 2]}) != digest({"a": [2, 1]})


def test_files_that_changed_are_named_with_how(tmp_path: Path) -> None:
    for name in ("a.json", "b.bin", "c.txt"):
        (tmp_path / name).write_text(name)
    parts = file_parts(tmp_path, ("*.json", "*.txt"))
    assert list(parts) == ["a.json", "c.txt"]
    assert parts["a.json"]["size"] == 6
    assert changed_file(tmp_path, parts) is None
    (tmp_path / "b.bin").write_text("nobody depends on it")
    assert changed_file(tmp_path, parts) is None
    (tmp_path / "c.txt").write_text("C.txt")
    assert changed_file(tmp_path, parts) == f"{tmp_path}/c.txt: its content changed since it was written"
    (tmp_path / "c.txt").write_text("longer")
    assert changed_file(tmp_path, parts) == f"{tmp_path}/c.txt: 6 bytes where the manifest says 5"
    (tmp_path / "a.json").unlink()
    assert changed_file(tmp_path, parts) == f"{tmp_path}/a.json: missing"
