import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragqa.retrieval.terms import stem, terms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("VIXIA HF R20", "vixia hf r20 r 20"),
        ("vixia hf-r20", "vixia hf r20 r 20"),
        ("R20", "r20 r 20"),
        ("R-20", "r 20 r20"),
        ("R 20", "r 20 r20"),
        ("LT-350", "lt 350 lt350"),
        ("LT350", "lt350 lt 350"),
        ("32 GB", "32gb 32"),
        ("32GB", "32gb 32"),
        ("32-gigabyte", "32gb 32"),
        ('42"', "42in 42"),
        ("42”", "42in 42"),
        ("42-Inch", "42in 42"),
        ("42 polegadas", "42in 42"),
        ("42 pulgadas", "42in 42"),
        ("6'", "6ft 6"),
        ("6 feet", "6ft 6"),
        ("1.5 L", "1.5l 1.5"),
        ("1.5 litros", "1.5l 1.5"),
        ("60W", "60w 60"),
        ("60 watts", "60w 60"),
        ("5.1 speakers", "5.1 speaker"),
        ("1/4 drive", "1/4 driv"),
        ("C++", "c++"),
        ("C#", "c#"),
        ("4K TV", "4k 4 tv"),
        ("1080p", "1080p 1080 p"),
        ("Ação CAFÉ", "acao cafe"),
        ("l'âge d'or", "l age d or"),
        ("", ""),
        ("?!", ""),
    ],
)
def test_terms_in_their_order(text: str, expected: str) -> None:
    assert terms(text) == expected.split()


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("camera", "cameras"), ("battery", "batteries"), ("box", "boxes"), ("watch", "watches"), ("shoe", "shoes"),
        ("glass", "glasses"), ("movie", "movies"), ("size", "sizes"), ("table", "tables"), ("tv", "tvs"), ("dish", "dishes"),
        ("rede", "redes"), ("botão", "botões"), ("jornal", "jornais"), ("móvel", "móveis"), ("homem", "homens"),
        ("lençol", "lençóis"), ("cajón", "cajones"), ("papel", "papeles"), ("motor", "motores"),
    ],
)  # fmt: skip
def test_a_word_and_its_plural_share_their_term(one: str, many: str) -> None:
    assert terms(one) == terms(many)


@pytest.mark.parametrize(
    ("one", "other"),
    [("R20", "R200"), ("32 GB", "64 GB"), ("32 GB", "32 MB"), ('42"', "42 cm"), ("bus", "bu"), ("tennis", "tenni")],
)
def test_what_is_another_thing_differs(one: str, other: str) -> None:
    assert terms(one) != terms(other)


@given(st.text(max_size=60))
def test_any_text_has_terms_without_blanks(text: str) -> None:
    assert all(term and not any(c.isspace() for c in term) for term in terms(text))


@given(st.from_regex(r"[a-z]{3,12}", fullmatch=True))
def test_a_word_with_an_s_is_its_plural(word: str) -> None:
    if not word.endswith(("s", "x", "z", "y", "i", "u")):
        assert stem(f"{word}s") == stem(word)
