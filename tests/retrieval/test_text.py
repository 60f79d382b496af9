import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragqa.retrieval.text import fold, overlap, trigrams


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Girls  Ballet Tutu", "girls ballet tutu"),
        ("Crêpe Pan, 24 cm", "crepe pan 24 cm"),
        ("L'Âge d'Or – DVD", "l age d or dvd"),
        ("C++ Primer", "c++ primer"),
        ("C# in Depth", "c# in depth"),
        ("VIXIA HF-R20", "vixia hf r20"),
        ("snake_case", "snake case"),
        ("Straße", "strasse"),
        ("ﬁne 5½", "fine 5 1 2"),
        ("𝓐", "a"),
        ("!!!", ""),
    ],
)
def test_folding_keeps_what_tells_products_apart(text: str, folded: str) -> None:
    assert fold(text) == folded


@given(st.text())
def test_folding_twice_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)


def test_trigrams_are_those_of_padded_words() -> None:
    assert trigrams("Tea pot") == {" te", "tea", "ea ", " po", "pot", "ot "}


def test_overlap_is_the_share_of_the_questions_trigrams() -> None:
    # " te", "tea", "ea " of the title's are there, " xy", "xy " are not
    assert overlap("tea xy", "Green Tea") == pytest.approx(3 / 5)
    assert overlap("", "Green Tea") == 0.0


@given(st.text(), st.text())
def test_overlap_is_a_share(question: str, title: str) -> None:
    assert 0.0 <= overlap(question, title) <= 1.0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Bolt 1/4", "Bolt 1.4"),
        ("Bolt 1/4", "Bolt 14"),
        ("-5 °C", "5 °C"),
        ("का", "की"),
        ("4.5 mm", "45 mm"),
        ("C", "C++"),
    ],
)
def test_titles_that_name_different_products_do_not_fold_alike(one: str, other: str) -> None:
    assert fold(one) != fold(other)
