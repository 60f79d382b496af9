import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragqa.errors import InputError
from ragqa.records import Product
from ragqa.retrieval.question import parse_question
from ragqa.retrieval.text import fold
from ragqa.training.questions import KINDS, TEMPLATES, QuestionMaker, WordIndex, read_questions

PRODUCTS = [
    Product("a", "Lumen Trail Headlamp LT-200", "A light lamp for the camp with a strap of recycled webbing."),
    Product("b", "Lumen Trail Headlamp LT-350", "Our all-round lamp, rain-proof, with a red night light."),
    Product("c", "The Salt Road", "A novel about smugglers, mules and a winter crossing."),
    Product("d", "The Salt Road", "A cookbook of coastal kitchens with anchovies."),
    Product("e", "Kettle", "Boils."),
]


def ask(kind: str, id_: str, number: int = 0, templates: Sequence[str] = ("{subject}",)) -> str:
    row = "abcde".index(id_)
    question = QuestionMaker(PRODUCTS, templates).about(row, kind, number)  # type: ignore[arg-type]
    assert question is not None
    assert question.kind == kind
    return question.text


@given(
    st.lists(st.text(alphabet="ab cd", max_size=12), min_size=1, max_size=12),
    st.sets(st.sampled_from("ab cd ad".split())),
)
def test_the_word_index_agrees_with_a_search_through_all_titles(titles: list[str], words: set[str]) -> None:
    index = WordIndex(titles)
    sets = [set(fold(title).split()) for title in titles]
    if words:
        assert index.holding(words).tolist() == [i for i, s in enumerate(sets) if words <= s]
        assert index.bearing(words).tolist() == [i for i, s in enumerate(sets) if words == s]
    else:
        assert index.holding(words).tolist() == []


def test_each_kind_is_what_its_name_says() -> None:
    assert ask("exact", "a") == "Lumen Trail Headlamp LT-200"
    part = ask("partial", "a").split()
    assert 2 <= len(part) < 4
    assert part == [word for word in "Lumen Trail Headlamp LT-200".split() if word in part]
    assert fold(ask("typo", "a")) != fold("Lumen Trail Headlamp LT-200")
    assert sorted(ask("reordered", "a").split()) == ["headlamp", "lt-200", "lumen", "trail"]
    clue = ask("clue", "a").split()
    assert set(clue) & {"Lumen", "Trail", "Headlamp", "LT-200"}
    assert set(clue) & {"light", "camp", "strap", "recycled", "webbing"}
    assert not set(ask("nonsense", "a").split()) & {"Lumen", "Trail", "Headlamp", "LT-200"}


def test_a_question_without_a_product_has_no_answer_key() -> None:
    maker = QuestionMaker(PRODUCTS)
    for kind in ("absent", "nonsense"):
        question = maker.about(0, kind)
        assert question is not None
        assert question.product_id is None
    absent = maker.about(0, "absent")
    assert absent is not None
    assert absent.about == "a"


def test_a_kind_that_a_product_cannot_give_is_none() -> None:
    maker = QuestionMaker(PRODUCTS)
    assert maker.about(4, "partial") is None  # one word
    assert maker.about(4, "reordered") is None
    assert QuestionMaker([Product("f", "Kettle", "")]).about(0, "clue") is None


@pytest.mark.parametrize(
    ("kind", "id_", "ambiguous"),
    [
        ("exact", "a", False),
        ("exact", "c", True),  # two products bear the title
        ("typo", "c", True),
        ("reordered", "c", True),
        ("reordered", "a", False),
    ],
)
def test_ambiguity_is_labelled(kind: str, id_: str, ambiguous: bool) -> None:
    question = QuestionMaker(PRODUCTS).about("abcde".index(id_), kind)  # type: ignore[arg-type]
    assert question is not None
    assert question.ambiguous is ambiguous


def test_a_partial_title_is_ambiguous_just_when_other_titles_hold_its_words() -> None:
    maker = QuestionMaker(PRODUCTS)
    for number in range(30):
        question = maker.about(0, "partial", number)
        assert question is not None
        assert question.ambiguous is ("200" not in question.subject)


def test_a_clue_question_is_ambiguous_only_when_the_clues_fit_others_too() -> None:
    maker = QuestionMaker([*PRODUCTS, Product("f", "Lumen Trail Headlamp LT-600", PRODUCTS[0].description)])
    clear = maker.about(1, "clue")
    assert clear is not None
    assert not clear.ambiguous
    shared = [maker.about(0, "clue", number) for number in range(30)]
    assert all(q is not None and q.ambiguous is ("200" not in q.subject) for q in shared)


def test_the_same_seed_gives_the_same_questions_and_numbers_vary_them() -> None:
    def made(seed: int) -> list[object]:
        maker = QuestionMaker(PRODUCTS, seed=seed)
        return [maker.about(row, kind, n) for row in range(5) for kind in KINDS for n in range(2)]

    assert made(1) == made(1)
    assert made(1) != made(2)
    maker = QuestionMaker(PRODUCTS)
    assert len({maker.about(0, "typo", number) for number in range(10)}) > 5


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_frame_of_every_template_is_taken_off_by_the_retriever(template: str) -> None:
    assert parse_question(template.replace("{subject}", "Lumen Headlamp")).subject == "Lumen Headlamp"


def test_the_original_studys_template_is_among_them() -> None:
    assert "Qual é a descrição deste produto: {subject}?" in TEMPLATES


@pytest.mark.parametrize("templates", [[], ["What is it?"], ["{subject}", "{title}"]])
def test_a_template_without_a_subject_is_refused(templates: list[str]) -> None:
    with pytest.raises(InputError, match=r"needs \{subject\}"):
        QuestionMaker(PRODUCTS, templates)


def test_a_users_own_questions_are_read(tmp_path: Path) -> None:
    rows = [
        {"question": "the lamp?", "product_id": "a", "kind": "partial"},
        {"question": "a chainsaw?", "product_id": None},
    ]
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    found = list(read_questions(path, frozenset("abcde")))
    assert [(q.text, q.kind, q.product_id) for q in found] == [
        ("the lamp?", "partial", "a"),
        ("a chainsaw?", "absent", None),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: not "),
        ("[]", "line 1: not "),
        ('{"question": "x"}', "line 1: not .*product_id"),
        ('{"question": " ", "product_id": "a"}', "the question is empty"),
        ('{"question": 3, "product_id": "a"}', "the question is empty or no text"),
        ('{"question": "x", "product_id": "zz"}', "no product 'zz' in the catalogue"),
        ('{"question": "x", "product_id": "a", "kind": "odd"}', "unknown kind 'odd'; accepted are exact, partial"),
    ],
)
def test_a_mistake_in_a_users_questions_names_the_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(line)
    with pytest.raises(InputError, match=message):
        list(read_questions(path, frozenset("abcde")))


def test_making_questions_leaves_the_global_random_state_alone() -> None:
    random.seed(5)
    before = random.getstate()
    QuestionMaker(PRODUCTS).about(0, "typo")
    assert random.getstate() == before
