from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragqa import models
from ragqa.generation.pieces import Pieces


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return models.load_tokenizer(models.find_model(str(tiny_model)))


def tokens(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def given_out(pieces: Pieces, ids: list[int], at_once: int = 1) -> str:
    found = ""
    for start in range(0, len(ids), at_once):
        some = ids[start : start + at_once]
        found += pieces.add(some, [-1.0] * len(some))
    return found + pieces.close()


@given(text=st.text(), at_once=st.integers(1, 7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pieces_are_the_text_without_white_space_at_its_ends(tokenizer: Any, text: str, at_once: int) -> None:
    text = text.encode("utf-8", "ignore").decode()
    pieces = Pieces(tokenizer)
    assert given_out(pieces, tokens(tokenizer, text), at_once) == pieces.text == text.strip()


@given(text=st.text(), stop=st.text(min_size=1, max_size=4), at_once=st.integers(1, 7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_text_ends_before_a_stop_string_and_nothing_of_it_is_given(
    tokenizer: Any, text: str, stop: str, at_once: int
) -> None:
    text, stop = (one.encode("utf-8", "ignore").decode() for one in (text, stop))
    pieces = Pieces(tokenizer, stop=[stop])
    found = given_out(pieces, tokens(tokenizer, text), at_once)
    text = text.lstrip()  # white space before it is no part of it
    assert found == pieces.text == (text.partition(stop)[0] if stop else text).strip()
    assert pieces.stopped is (bool(stop) and stop in text)


def test_what_a_text_opens_with_is_no_part_of_it(tokenizer: Any) -> None:
    for text in ("] A lamp]", "]A lamp]", " ]  A lamp]", "A lamp]"):
        assert given_out(Pieces(tokenizer, "]"), tokens(tokenizer, text)) == "A lamp]"


def test_a_stop_string_in_what_a_text_opens_with_ends_nothing(tokenizer: Any) -> None:
    assert given_out(Pieces(tokenizer, "]", stop=["]"]), tokens(tokenizer, "] A [lamp] x")) == "A [lamp"


def test_a_letter_of_several_tokens_is_given_whole(tokenizer: Any) -> None:
    pieces = Pieces(tokenizer)
    assert [pieces.add([one], [0.0]) for one in tokens(tokenizer, "é!")] == ["", "é", "!"]


def test_special_tokens_are_no_text(tokenizer: Any) -> None:
    pieces = Pieces(tokenizer)
    assert given_out(pieces, [*tokens(tokenizer, "A lamp"), tokenizer.eos_token_id]) == "A lamp"


def test_log_probabilities_stand_at_the_characters_of_their_tokens(tokenizer: Any) -> None:
    pieces = Pieces(tokenizer, "]")
    ids = tokens(tokenizer, "] aé ")
    pieces.add(ids, [-float(place) for place in range(len(ids))])
    pieces.close()
    assert pieces.text == "aé"
    assert pieces.log_probs == ((0, 1, -2.0), (1, 2, -3.0), (1, 2, -4.0))
