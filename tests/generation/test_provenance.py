import json
import math
import re
import time
from dataclasses import replace
from itertools import pairwise, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragqa.generation import provenance
from ragqa.generation.provenance import explained, spans
from ragqa.records import Answer, Product, Span

LAMP = "Our all-round headlamp: 350 lumens on high, a beam of 85 m and 40 hours on low. Weighs 92 g."
CHAIR = "Sits 28 cm above the ground on four wide feet that do not sink in sand. Mesh back, 1,100 g."


def products(*descriptions: str) -> list[Product]:
    return [Product(f"p{number}", f"Title {number}", d) for number, d in enumerate(descriptions, 1)]


def parts(text: str, *descriptions: str, cited: str | None = None) -> list[tuple[str, str | None]]:
    return [(text[s.start : s.stop], s.source) for s in spans(text, products(*descriptions), cited)]


def unbracketed(text: str) -> str:
    return re.sub(r"\[\d+: (.*?)\]", r"\1", text, flags=re.DOTALL)


def uncolored(text: str) -> str:
    return re.sub(r"\x1b\[\d+m", "", text)


def test_each_part_is_told_with_its_source_and_its_place_there() -> None:
    text = "It has 350 lumens on high, but sits 30 cm above the ground on four wide feet."
    assert spans(text, products(LAMP, CHAIR)) == (
        Span(0, 7, None, None, None),
        Span(7, 27, "p1", 24, 44),
        Span(27, 39, None, None, None),
        Span(39, 76, "p2", 8, 45),
        Span(76, 77, None, None, None),
    )
    assert LAMP[24:44] == text[7:27] == "350 lumens on high, "
    assert CHAIR[8:45] == text[39:76] == "cm above the ground on four wide feet"


@pytest.mark.parametrize("text", [LAMP, LAMP[:60].rsplit(" ", 1)[0], "  two\n blanks  ", "Grey.", "漢字", "x"])
def test_a_text_copied_whole_is_one_span_however_short(text: str) -> None:
    assert spans(text, products("Other words.", text)) == (Span(0, len(text), "p2", 0, len(text)),)


@pytest.mark.parametrize("stop", [17, 60, 61, len(LAMP)])
def test_the_beginning_of_the_named_source_is_told_as_it_is_found_word_by_word(
    stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = spans(LAMP[:stop], products(LAMP, CHAIR, LAMP), "p3", [(0, 4, -1.0)])
    monkeypatch.setattr(provenance, "_begins", lambda *_: False)
    assert told == spans(LAMP[:stop], products(LAMP, CHAIR, LAMP), "p3", [(0, 4, -1.0)])


@pytest.mark.parametrize("sources", [(), ("",), (LAMP, CHAIR)])
def test_a_text_that_is_in_no_source_is_one_span_without_source(sources: tuple[str, ...]) -> None:
    text = "This catalogue does not seem to have that product."
    assert spans(text, products(*sources)) == (Span(0, len(text), None, None, None),)


def test_an_empty_text_has_no_spans() -> None:
    assert spans("", products(LAMP, ""), "p1", [(0, 0, -1.0)]) == ()


def test_white_space_alone_is_no_copy() -> None:
    assert parts(" \n", "a \n b") == [(" \n", None)]


def test_a_paraphrase_has_no_source() -> None:
    assert parts("On full power it gives plenty of light for 2 hours.", LAMP) == [
        ("On full power it gives plenty of light for 2 hours.", None)
    ]


def test_few_words_agree_by_chance() -> None:
    assert parts("A boat with a sail.", "Lamp with a hook.") == [("A boat with a sail.", None)]
    assert parts("go as it is to me", "left as it is by us") == [("go as it is to me", None)]
    assert parts("go as it stood to me", "left as it stood by us") == [("go as it stood to me", None)]
    assert parts("go as it stands there", "left as it stands here") == [
        ("go ", None), ("as it stands ", "p1"), ("there", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "copied"),
    [
        ("About 92 g or so", "92 g "),
        ("Some 42-inch thing", "42-inch "),
        ("Has 50% more", "50% "),
        ("A 350lm one", "350lm "),
        ("Only 1,800 mAh left", "1,800 mAh "),
        ("Cold, -20 °C there", "-20 °C "),
    ],
)
def test_a_number_with_its_unit_is_enough(text: str, copied: str) -> None:
    assert (copied, "p1") in parts(text, f"zzz {copied}zzz")


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("it takes 1,900 mAh now", "zzz 1,800 mAh"),
        ("it takes 800 mAh now", "zzz 1,800 mAh"),
        ("down to 20 °C here", "zzz -20 °C"),
        ("it weighs 92 kg now", "zzz weighs 92 g"),
        ("it is 2 cm long", "zzz 2 cm wide"),
    ],
)
def test_a_number_is_copied_whole_or_not(text: str, description: str) -> None:
    assert parts(text, description) == [(text, None)]


def test_copies_end_at_word_borders() -> None:
    assert parts("with four wide feet", "stands with four wide feetings") == [("with four wide ", "p1"), ("feet", None)]


def test_each_character_of_a_script_without_blanks_is_a_word() -> None:
    copied = "軽量で持ち運びに便利な椅子です"
    assert parts(f"この{copied}よ", f"とても{copied}。") == [("この", None), (copied, "p1"), ("よ", None)]


def test_white_space_after_a_copy_is_the_sources_only_if_it_stands_there() -> None:
    assert parts("on four wide feet\nand more", "on four wide feet and a back") == [
        ("on four wide feet", "p1"), ("\nand more", None),
    ]  # fmt: skip
    assert parts("on four wide feet mesh in the back", "mesh in the back", "on four wide feet") == [
        ("on four wide feet", "p2"), (" ", None), ("mesh in the back", "p1"),
    ]  # fmt: skip
    assert parts("on four wide feet mesh in the back", "and mesh in the back", "on four wide feet") == [
        ("on four wide feet", "p2"), (" mesh in the back", "p1"),
    ]  # fmt: skip


def test_the_longest_run_wins_before_the_cited_product() -> None:
    short, long = "four wide feet in sand", "four wide feet in sand and snow"
    assert parts(long, short, long, cited="p1") == [(long, "p2")]


def test_ties_go_to_the_cited_product() -> None:
    assert parts("See: on four wide feet!", CHAIR, CHAIR, CHAIR, cited="p2")[1] == ("on four wide feet", "p2")
    assert parts("See: on four wide feet!", CHAIR, CHAIR, CHAIR, cited="p9")[1] == ("on four wide feet", "p1")
    assert parts("See: on four wide feet!", CHAIR, CHAIR, CHAIR)[1] == ("on four wide feet", "p1")


def test_white_space_does_not_break_a_tie() -> None:
    assert parts("four wide feet, so", "four wide feet, and", "four wide feet,", cited="p2")[0][1] == "p2"


def test_ties_go_on_in_the_source_of_the_span_before() -> None:
    twice = "made of solid oak. Legs of grey steel. made of solid oak. A lid."
    text = "Legs of grey steel, made of solid oak"
    found = spans(text, products("made of solid oak", twice))
    assert [(s.source, s.source_start) for s in found if s.source] == [("p2", 19), ("p2", 39)]
    # What stands only before it there is taken from the first source that has it.
    before = "made of solid oak. Legs of grey steel."
    found = spans(text, products("made of solid oak", before))
    assert [(s.source, s.source_start) for s in found if s.source] == [("p2", 19), ("p1", 0)]


def test_a_run_that_comes_twice_is_found_at_both_places() -> None:
    found = spans("four wide feet; four wide feet", products("four wide feet and four wide feet now"))
    assert [s.source_start for s in found if s.source] == [0, 19]


def test_the_cited_product_comes_before_the_one_that_goes_on() -> None:
    text = "Legs of grey steel, made of solid oak"
    sources = ("Legs of grey steel. A lid made of solid oak.", "Is made of solid oak.")
    assert parts(text, *sources, cited="p2")[-1] == ("made of solid oak", "p2")
    assert parts(text, *reversed(sources))[-1] == ("made of solid oak", "p2")


def test_a_span_has_the_mean_probability_of_the_tokens_that_begin_in_it() -> None:
    text = "So: on four wide feet"
    tokens = [(0, 3, math.log(0.5)), (3, 6, math.log(0.9)), (6, 11, math.log(0.4)), (11, 16, 0.0), (21, 21, -9.0)]
    assert parts(text, CHAIR) == [("So: ", None), ("on four wide feet", "p1")]
    first, second = spans(text, products(CHAIR), log_probs=tokens)
    # The blank before "on" is part of the token, but the word is what the model was sure of.
    assert first.probability == pytest.approx(0.5)
    assert second.probability == pytest.approx((0.9 * 0.4 * 1.0) ** (1 / 3))


def test_a_span_that_no_token_begins_in_has_no_probability() -> None:
    assert [s.probability for s in spans("So: on four wide feet", products(CHAIR))] == [None, None]
    assert [s.probability for s in spans("So: on four wide feet", products(CHAIR), log_probs=[(5, 9, 0.0)])] == [
        None,
        1,
    ]
    (impossible,) = spans("no", [], log_probs=[(0, 2, -math.inf)])
    assert impossible.probability == 0.0


ANSWER = Answer("q", "So: on four wide feet", (), abstained=False, several=False, confidence=0.5)


def test_grounded_is_the_share_of_visible_characters_with_a_source() -> None:
    assert replace(ANSWER, spans=spans(ANSWER.text, products(CHAIR))).grounded == 14 / 17
    assert replace(ANSWER, spans=spans(ANSWER.text, products(ANSWER.text))).grounded == 1.0
    assert ANSWER.grounded == 0.0
    assert replace(ANSWER, text="").grounded == 0.0
    assert replace(ANSWER, text=" \n", spans=spans(" \n", [])).grounded == 0.0


def test_the_dictionary_of_an_answer_has_its_spans() -> None:
    found = json.loads(json.dumps(replace(ANSWER, spans=spans(ANSWER.text, products(CHAIR))).to_dict()))
    assert found["grounded"] == 0.8235
    assert found["spans"][0] == {
        "start": 0, "stop": 4, "source": None, "source_start": None, "source_stop": None, "probability": None,
    }  # fmt: skip
    assert len(found["spans"]) == 2


def test_without_colour_copies_stand_in_brackets_with_their_number() -> None:
    text = "Well: on four wide feet, 350 lumens on high."
    found = spans(text, products(LAMP, CHAIR))
    assert explained(text, found, ["p2", "p1"], False) == "Well: [1: on four wide feet], [2: 350 lumens on high]."
    assert explained(text, found, ["p1"], False) == "Well: [p2: on four wide feet], [1: 350 lumens on high]."


def test_a_product_that_is_listed_twice_has_its_first_number() -> None:
    assert explained("x", [Span(0, 1, "p1", 0, 1)], ["p2", "p1", "p1"], False) == "[2: x]"


def test_with_colour_each_source_has_its_own_and_the_rest_is_underlined() -> None:
    text = "Well: on four wide feet, 350 lumens on high"
    assert explained(text, spans(text, products(LAMP, CHAIR)), ["p2", "p1"], True) == (
        "\x1b[4mWell:\x1b[0m \x1b[32mon four wide feet\x1b[0m\x1b[4m,\x1b[0m \x1b[36m350 lumens on high\x1b[0m"
    )
    names = [str(number) for number in range(8)]
    shown = [explained("x", [Span(0, 1, name, 0, 1)], names, True) for name in names]
    assert len(set(shown)) == 6
    assert shown[6] == shown[0]


def test_a_text_without_spans_has_no_marks() -> None:
    assert explained("Several fit.\n", (), ["p1"], True) == "Several fit.\n"


@pytest.mark.parametrize("color", [True, False])
def test_a_text_cannot_steer_the_terminal(color: bool) -> None:
    text = "safe \x1b[2J\x9b2J\r\b\x07\tand\nso"
    for found in (spans(text, products(text)), spans(text, []), ()):
        shown = explained(text, found, ["p1"], color)
        assert uncolored(unbracketed(shown)) == "safe \ufffd[2J\ufffd2J\ufffd\ufffd\ufffd\tand\nso"
    assert "\x1b" not in explained("x", [Span(0, 1, "\x1b[2J", 0, 1)], [], False)


WORDS = ["red", "lamp", "with", "a", "hook", "12", "cm", "1,5", ",", ".", "-", "漢", "字", " ", "\n", "  ", "\x1b"]
PIECES = st.lists(st.sampled_from([*WORDS, *[" "] * 8]), max_size=30).map("".join)
TEXTS = st.one_of(PIECES, st.text(max_size=30), st.just(LAMP), st.just(CHAIR))


@st.composite
def answers(draw: st.DrawFn) -> tuple[str, list[Product]]:
    """A text of pieces of its sources, joined with other words and arbitrary characters."""
    sources = products(*draw(st.lists(TEXTS, max_size=4)))
    pieces = []
    for _ in range(draw(st.integers(0, 6))):
        pieces.append(draw(st.one_of(PIECES, st.text(max_size=8), st.sampled_from([" ", " and ", ". "]))))
        if sources:
            whole = draw(st.sampled_from(sources)).description
            begin = draw(st.integers(0, len(whole)))
            pieces.append(whole[begin : draw(st.integers(begin, len(whole)))])
    return "".join(pieces), sources


@given(answers(), st.sampled_from([None, "p1", "p2"]))
def test_spans_cover_the_text_and_copies_are_equal_to_their_sources(
    made: tuple[str, list[Product]], cited: str | None
) -> None:
    text, sources = made
    found = spans(text, sources, cited)
    assert [0, *(s.stop for s in found)] == [*(s.start for s in found), len(text)]
    assert all(s.start < s.stop for s in found)
    assert all(one.source or other.source for one, other in pairwise(found))
    descriptions = {source.id: source.description for source in sources}
    for span in found:
        if span.source is None:
            assert (span.source_start, span.source_stop) == (None, None)
        else:
            assert text[span.start : span.stop] == descriptions[span.source][span.source_start : span.source_stop]


@given(answers(), st.booleans())
def test_without_its_marks_the_explained_text_is_the_text(made: tuple[str, list[Product]], color: bool) -> None:
    text, sources = made
    text = re.sub("[\\[\\]\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text)
    shown = explained(text, spans(text, sources), [source.id for source in sources], color)
    assert (uncolored if color else unbracketed)(shown) == text


@given(TEXTS.filter(str.strip), st.lists(TEXTS, max_size=3))
def test_a_text_that_is_a_description_is_one_span(text: str, others: list[str]) -> None:
    (span,) = spans(text, products(text, *others), "p1")
    assert span == Span(0, len(text), "p1", 0, len(text))


def agreeing(some: list[str], others: list[str]) -> int:
    """Words that both begin with."""
    return len([*takewhile(lambda pair: pair[0] == pair[1], zip(some, others, strict=False))])


PLAIN = st.lists(st.sampled_from(["lamp", "hook", "steel", "of", "a", ",", "."]), max_size=25).map(" ".join)


@given(PLAIN, st.lists(PLAIN, max_size=3))
def test_no_longer_copy_and_no_copy_that_counts_is_missed(text: str, descriptions: list[str]) -> None:
    words = text.split()
    held = [d.split() for d in descriptions]
    expected, start = [], 0
    while start < len(words):
        places = [agreeing(words[start:], one[at:]) for one in held for at in range(len(one))]
        run = words[start : start + max(places, default=0)]
        counts = sum(word.isalpha() for word in run) >= 3 and len(" ".join(run)) >= 12
        if run and (counts or len(run) == len(words)):
            expected.append(" ".join(run))
            start += len(run)
        else:
            start += 1
    found = spans(text, products(*descriptions))
    assert [text[s.start : s.stop].strip() for s in found if s.source] == expected


@pytest.mark.parametrize("text", ["a " * 2000, "a a b " * 600, "1" * 4000, "1,1" * 1300, "漢" * 4000, ". " * 2000])
def test_texts_that_repeat_themselves_take_no_quadratic_time(text: str) -> None:
    began = time.perf_counter()
    spans(text, products(*[text[number:] + "b" for number in range(10)]))
    spans(text + "c", products(*[text[number:] + "b" for number in range(10)]))
    assert time.perf_counter() - began < 2.0  # every pair of places compared takes minutes
