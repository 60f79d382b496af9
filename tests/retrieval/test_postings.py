"""Postings: what is written, and that updating them writes what writing them anew would."""

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragqa.errors import IndexDamagedError
from ragqa.files import HashingFile
from ragqa.retrieval import postings as postings_module
from ragqa.retrieval.postings import K1, B, Postings, PostingsWriter, term_hash

Texts = list[list[str]]


def write(folder: Path, name: str, writer: PostingsWriter, texts: Texts, most_common: float) -> Path:
    for start in range(0, len(texts), 3):
        writer.add(texts[start : start + 3])
    path = folder / name
    with HashingFile(path) as file:
        writer.write(file, most_common)
    assert list((folder / "scratch").iterdir()) == []
    return path


def built(folder: Path, name: str, texts: Texts, most_common: float = 1.0) -> Path:
    return write(folder, name, PostingsWriter(folder / "scratch"), texts, most_common)


def updated(folder: Path, name: str, old: Path, kept: list[int], texts: Texts, most_common: float = 1.0) -> Path:
    writer = PostingsWriter(folder / "scratch", Postings.load(old), np.array(kept, np.int64))
    return write(folder, name, writer, texts, most_common)


def rows_of(postings: Postings, term: str) -> list[int] | None:
    place = postings.find(term)
    return None if place is None else postings.entries(place)[0].tolist()


def scores(postings: Postings, place: int) -> npt.NDArray[np.float32]:
    return postings.rarity(place) * postings.saturation[postings.entries(place)[1]]


some_texts = st.lists(st.lists(st.sampled_from([f"w{n}" for n in range(40)]), max_size=12), max_size=25)


@settings(deadline=None, max_examples=150)
@given(some_texts, st.data())
def test_updated_postings_are_byte_for_byte_those_of_all_texts(old: Texts, data: st.DataObject) -> None:
    kept = sorted(data.draw(st.sets(st.integers(0, len(old) - 1)))) if old else []
    new = data.draw(some_texts)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = built(folder, "before", old)
        after = updated(folder, "after", before, kept, new)
        assert after.read_bytes() == built(folder, "anew", [old[row] for row in kept] + new).read_bytes()


@settings(deadline=None, max_examples=100)
@given(some_texts.filter(len), some_texts, st.floats(0.1, 0.9), st.data())
def test_a_term_once_left_out_stays_left_out_and_all_else_is_as_written_anew(
    old: Texts, new: Texts, most_common: float, data: st.DataObject
) -> None:
    kept = sorted(data.draw(st.sets(st.integers(0, len(old) - 1))))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = Postings.load(built(folder, "before", old, most_common))
        after = Postings.load(updated(folder, "after", folder / "before", kept, new, most_common))
        anew = Postings.load(built(folder, "anew", [old[row] for row in kept] + new, most_common))
        for term in {term for text in old + new for term in text}:
            if rows_of(before, term) == []:
                assert rows_of(after, term) == []
                continue
            assert rows_of(after, term) == rows_of(anew, term)
            if (place := after.find(term)) is not None:
                other = anew.find(term)
                assert other is not None
                np.testing.assert_array_equal(scores(after, place), scores(anew, other))
                assert after.most[place] == anew.most[other]
        np.testing.assert_array_equal(after.lengths, anew.lengths)


def test_updating_twice_is_updating_once(tmp_path: Path) -> None:
    texts = [[f"w{n % 7}", f"w{n % 3}", "all"] for n in range(30)]
    first = built(tmp_path, "first", texts)
    second = updated(tmp_path, "second", first, list(range(0, 30, 2)), [["new", "w1"]])
    third = updated(tmp_path, "third", second, list(range(5, 16)), [["newer"]])
    whole = [*texts[10:30:2], ["new", "w1"], ["newer"]]
    assert third.read_bytes() == built(tmp_path, "whole", whole).read_bytes()


def test_a_term_that_too_many_texts_have_is_known_and_has_no_rows(tmp_path: Path) -> None:
    postings = Postings.load(built(tmp_path, "p", [["the", "lamp"], ["the"], ["the"], ["kettle"]], most_common=0.5))
    assert rows_of(postings, "the") == []
    assert rows_of(postings, "lamp") == [0]
    assert rows_of(postings, "unheard") is None
    assert postings.most[postings.find("the")] == 0


def test_lengths_and_counts_are_those_of_the_texts_and_a_count_of_255_stands_for_more(tmp_path: Path) -> None:
    texts = [["a"] * 300 + ["b"], [], ["a", "a"]]
    postings = Postings.load(built(tmp_path, "p", texts))
    assert postings.lengths.tolist() == [301, 0, 2]
    place = postings.find("a")
    assert place is not None
    assert postings.counts[postings.entries(place)[1]].tolist() == [255, 2]
    # BM25 by hand: the average length is 101, two of three texts have the term.
    often, lengths = np.array([255, 2]), np.array([301, 2])
    expected = np.log(4 / 2) * often * (K1 + 1) / (often + K1 * (1 - B + B * lengths / 101))
    np.testing.assert_allclose(scores(postings, place), expected, rtol=1e-6)
    np.testing.assert_allclose(postings.most[place], max(expected), rtol=1e-6)


def test_many_pairs_of_count_and_length_take_four_bytes_and_give_the_same_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [["w"] * (n % 9 + 1) + ["x"] * (n % 7) + ["all"] for n in range(200)]
    few = Postings.load(built(tmp_path, "few", texts))
    assert few.pairs.dtype == np.uint16
    assert len(few.counts) < 200
    monkeypatch.setattr(postings_module, "_MOST_IN_TWO_BYTES", 10)
    many = Postings.load(built(tmp_path, "many", texts))
    assert many.pairs.dtype == np.uint32
    for term in ("w", "x", "all"):
        one, other = few.find(term), many.find(term)
        assert one is not None
        assert other is not None
        np.testing.assert_array_equal(scores(few, one), scores(many, other))
    again = updated(tmp_path, "again", tmp_path / "many", list(range(100)), texts[100:])
    assert again.read_bytes() == (tmp_path / "many").read_bytes()


def test_a_term_that_no_row_has_any_more_is_forgotten(tmp_path: Path) -> None:
    old = built(tmp_path, "old", [["lamp"], ["kettle"], ["lamp"]])
    postings = Postings.load(updated(tmp_path, "new", old, [0, 2], [["chair"]]))
    assert postings.terms.tolist() == sorted([term_hash("lamp"), term_hash("chair")])
    assert postings.count == 3


def test_postings_of_nothing_are_postings(tmp_path: Path) -> None:
    empty = built(tmp_path, "empty", [])
    assert Postings.load(empty).count == 0
    assert updated(tmp_path, "still", empty, [], []).read_bytes() == empty.read_bytes()
    assert updated(tmp_path, "more", empty, [], [["a"]]).read_bytes() == built(tmp_path, "a", [["a"]]).read_bytes()


def test_a_file_of_the_format_before_is_refused(tmp_path: Path) -> None:
    path = built(tmp_path, "p", [["lamp"]])
    content = path.read_bytes()
    (tmp_path / "q").write_bytes(content.replace(b"ragqa-p3", b"ragqa-p2"))
    with pytest.raises(IndexDamagedError, match="not whole postings; build the index anew"):
        Postings.load(tmp_path / "q")
