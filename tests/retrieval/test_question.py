import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragqa.errors import QuestionError
from ragqa.retrieval.question import parse_question


@pytest.mark.parametrize(
    ("text", "language", "subject"),
    [
        ("Qual é a descrição deste produto: girls ballet tutu neon pink?", "pt", "girls ballet tutu neon pink"),
        ("qual a descricao do produto Rede Azul", "pt", "Rede Azul"),
        ("Olá, por favor me fale sobre a Rede Azul", "pt", "Rede Azul"),
        ("Descreva o produto: Rede Azul.", "pt", "Rede Azul"),
        ("me diga a descrição do produto Rede Azul, por favor", "pt", "Rede Azul"),
        ("vocês têm motosserra?", "pt", "motosserra"),
        ("What is the description of Lumen LT-350?", "en", "Lumen LT-350"),
        ('What\'s the description of this product: "The Lighthouse"?', "en", "The Lighthouse"),
        ("Hi, can you please tell me about the Lumen Trail?", "en", "the Lumen Trail"),
        ("Please describe this product: Lumen LT-350", "en", "Lumen LT-350"),
        ("Give me the details of Lumen LT-350, please.", "en", "Lumen LT-350"),
        ("What is the description of What Is a Frog?", "en", "What Is a Frog"),
        ("I'm looking for a red skirt", "en", "red skirt"),
        ("Do you have chainsaws?", "en", "chainsaws"),
        ("¿Cuál es la descripción de este producto: Zapatos rojos?", "es", "Zapatos rojos"),
        ("Háblame de la cafetera", "es", "cafetera"),
        ("lumen headlamp 350", "en", "lumen headlamp 350"),
        ("  rede   azul\n", "en", "rede azul"),
        ('5.1" speaker', "en", '5.1" speaker'),
    ],
)
def test_the_frame_is_taken_off_in_three_languages(text: str, language: str, subject: str) -> None:
    question = parse_question(text)
    assert (question.language, question.subject) == (language, subject)


def test_a_title_that_looks_like_a_frame_stays_among_the_readings() -> None:
    assert "What Is the What" in parse_question("What Is the What").readings
    assert "The Description of a New World" in parse_question("tell me about The Description of a New World").readings


def test_readings_go_from_the_whole_question_to_its_subject() -> None:
    assert parse_question('Tell me about "Low Tide", please!').readings == (
        'Tell me about "Low Tide", please!',
        '"Low Tide", please!',
        '"Low Tide", please',
        '"Low Tide"',
        "Low Tide",
    )


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "\u2003"])
def test_an_empty_question_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(QuestionError, match="empty; ask, for example"):
        parse_question(text)


def test_a_question_of_a_hundred_thousand_characters_is_refused_with_the_limit() -> None:
    with pytest.raises(QuestionError, match="100,000 characters; at most 4,000"):
        parse_question("a" * 100_000)


def test_a_frame_without_a_subject_still_gives_a_subject() -> None:
    assert parse_question("What is the description of?").subject == "description of"
    assert parse_question("Descreva").subject == "Descreva"


@given(st.text(max_size=200))
def test_any_text_gives_a_subject_or_the_projects_own_error(text: str) -> None:
    try:
        question = parse_question(text)
    except QuestionError:
        return
    assert question.subject.strip()
    assert question.readings[-1] == question.subject
    question.text.encode("utf-8")
