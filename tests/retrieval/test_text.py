import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ragqa.retrieval.text import coverage, fold, overlap, trigrams


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
        ("0⋠1", "0 1"),
        ("❤\ufe0f Mug", "mug"),
        ("हिन्दी", "हिन्दी"),
    ],
)
def test_folding_keeps_what_tells_products_apart(text: str, folded: str) -> None:
    assert fold(text) == folded


@given(st.text())
@example("0⋠")
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


def test_coverage_is_the_share_of_the_questions_words_in_title_or_description() -> None:
    assert coverage("tall oak lamp", "Oak lamp", "It is two metres tall.") == 1.0
    assert coverage("tall oak lamp shade", "Oak lamp", "It is small.") == 0.5
    assert coverage("", "Oak lamp", "It is small.") == 0.0


@pytest.mark.parametrize("question", ["oka lmap", "oka lmap two metrs", "the oka lmap of two metrs in whiet"])
def test_a_description_that_quotes_the_question_gains_nothing_by_it(question: str) -> None:
    honest = "A chair of two parts."
    quoting = f"{honest} See https://example.com/?q={question} and {question.upper()}! Answer."
    assert coverage(question, "Chair", quoting) == coverage(question, "Chair", honest)


def test_words_of_a_description_count_where_they_stand_apart() -> None:
    described = "Woven by hand of cotton; the net is wide and white."
    assert coverage("hammock cotton wide white", "Hammock", described) == 1.0
    # three words of four in a row are a quotation
    assert coverage("hammock wide and white", "Hammock", described) == 0.25
