"""Spelling: what was meant, and that an updated table is one made anew."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ragqa.files import HashingFile
from ragqa.retrieval.postings import Postings, PostingsWriter
from ragqa.retrieval.spelling import Spelling, remainders

Texts = list[list[str]]


def postings(folder: Path, name: str, texts: Texts) -> Postings:
    writer = PostingsWriter(folder / "scratch")
    writer.add(texts)
    with HashingFile(folder / name) as file:
        writer.write(file)
    return Postings.load(folder / name, in_memory=True)


def words_of(texts: Texts) -> set[str]:
    return {word for text in texts for word in text}


# Words of few letters share remainders, so that equal hashes stand side by side.
some_texts = st.lists(st.lists(st.text("ab", min_size=3, max_size=6), max_size=6), max_size=12)


@settings(deadline=None, max_examples=150)
@given(some_texts, some_texts, st.data())
def test_an_updated_table_is_byte_for_byte_one_made_anew(old: Texts, new: Texts, data: st.DataObject) -> None:
    kept = sorted(data.draw(st.sets(st.integers(0, len(old) - 1)))) if old else []
    all_texts = [old[row] for row in kept] + new
    with tempfile.TemporaryDirectory() as folder:
        before, after = postings(Path(folder), "before", old), postings(Path(folder), "after", all_texts)
    table = Spelling.build(words_of(old), before).updated(before, after, words_of(new))
    anew = Spelling.build(words_of(all_texts), after)
    np.testing.assert_array_equal(table.hashes, anew.hashes)
    np.testing.assert_array_equal(table.places, anew.places)
    assert (table.hashes.dtype, table.places.dtype) == (np.uint64, np.uint32)


@given(st.permutations(["lamp", "lamps", "clamp", "kettle", "ab", "lt350"]))
def test_the_order_of_the_words_makes_no_difference(words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        of = postings(Path(folder), "p", [sorted(words)])
    table, other = Spelling.build(words, of), Spelling.build(sorted(words), of)
    np.testing.assert_array_equal(table.hashes, other.hashes)
    np.testing.assert_array_equal(table.places, other.places)


def test_remainders_are_the_word_and_it_without_each_letter_but_the_first() -> None:
    assert list(remainders("lamp")) == ["lamp", "lmp", "lap", "lam"]
    assert list(remainders("book")) == ["book", "bok", "boo"]
    assert list(remainders("lt350")) == list(remainders("abc")) == []


def test_after_an_update_new_words_are_meant_and_those_that_are_gone_are_not(tmp_path: Path) -> None:
    old, new = [["hammock"], ["kettle"]], [["hammock"], ["teapot"]]
    before, after = postings(tmp_path, "before", old), postings(tmp_path, "after", new)
    table = Spelling.build(words_of(old), before).updated(before, after, {"teapot"})
    assert table.meant("hamnock", after) == after.find("hammock")
    assert table.meant("teapto", after) == after.find("teapot")
    assert table.meant("kettel", after) is None
