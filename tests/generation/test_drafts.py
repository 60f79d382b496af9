import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragqa.generation.drafts import Draft, Drafter

PRICE = 0.02
NUMBERS = list(range(100, 200))


def proposed(drafter: Drafter, *tokens: int, most: int = 64) -> tuple[int, ...]:
    drafter.append(tokens)
    return drafter.propose(most).tokens


def test_an_answer_that_has_not_begun_is_drafted_from_the_first_source() -> None:
    assert Drafter([[1, 2, 3], [4, 5]], PRICE).propose(64) == Draft((1, 2, 3), "begun")


def test_the_first_token_picks_the_source_that_begins_with_it() -> None:
    drafter = Drafter([[1, 2, 4, 3], [4, 5, 6]], PRICE)
    drafter.append([4])
    assert drafter.propose(64) == Draft((5, 6), "more")


def test_the_longest_agreement_is_followed() -> None:
    assert proposed(Drafter([[9, 7, 1], [8, 7, 2]], PRICE), 50, 8, 7) == (2,)


def test_a_draft_stays_within_its_source_and_its_budget() -> None:
    sources = [NUMBERS, [1, 2]]
    assert proposed(Drafter(sources, PRICE), 5, *NUMBERS[:3], most=4) == tuple(NUMBERS[3:7])
    assert proposed(Drafter(sources, PRICE), 5, *NUMBERS[-4:-1]) == (NUMBERS[-1],)
    assert proposed(Drafter(sources, PRICE), 5, *NUMBERS[-4:]) == ()


def test_the_end_of_one_source_and_the_beginning_of_the_next_are_no_agreement() -> None:
    drafter = Drafter([[5, 1, 2], [3, 4, 6], [9, 3, 4, 7]], PRICE)
    assert proposed(drafter, 50, 9, 3, 4) == (7,)
    assert proposed(Drafter([[5, 1, 2], [3, 8], [2, 3, 9]], PRICE), 50, 1, 2, 3) == (9,)


def test_after_a_word_of_its_own_an_answer_is_looked_for_further_on_in_the_same_source() -> None:
    source = [1, 2, 3, 4, 5, 6, 7, 8]
    drafter = Drafter([[6, 90, 91], source], PRICE)
    drafter.append([50, 1, 2, 3])
    drafter.append([99, 6])  # 4 and 5 are left out
    assert drafter.propose(64) == Draft((7, 8), "resumed")


def test_what_agrees_by_chance_is_drafted_ever_shorter_and_then_not_at_all() -> None:
    drafter, lengths = Drafter([NUMBERS], PRICE), []
    for number in range(60):
        drafter.append([1000 + number, NUMBERS[10]])
        draft = drafter.propose(64)
        lengths.append(len(draft.tokens))
        drafter.learn(draft, 0)
    assert lengths == sorted(lengths, reverse=True)
    assert 1 < lengths[0] < 10
    assert lengths[-1] == 0


def test_what_goes_well_is_drafted_longer() -> None:
    drafter = Drafter([NUMBERS, NUMBERS], PRICE)
    before = proposed(drafter, 1, NUMBERS[0])
    drafter.learn(drafter.propose(64), len(before))
    assert len(proposed(drafter, 2, NUMBERS[0])) > len(before)


def test_an_answer_that_repeats_itself_is_drafted_from_itself() -> None:
    drafter = Drafter([[1, 2]], PRICE)
    drafter.append([50, 60, 70, 80, 50])
    assert drafter.propose(64).tokens == (60, 70, 80, 50)
    drafter.append([60, 61])
    assert drafter.propose(64) == Draft()
    whole = Drafter([[1, 2]], PRICE)
    whole.append([50, 60, 70, 80, 50, 60, 61, 50])
    drafter.append([50])
    assert drafter.propose(64) == whole.propose(64)


def test_a_dearer_token_makes_shorter_drafts() -> None:
    cheap, dear = (len(proposed(Drafter([NUMBERS * 9], price), 1, NUMBERS[0], most=900)) for price in (0.001, 0.2))
    assert cheap > dear


def test_a_draft_is_read_where_it_saves_more_than_reading_any_adds() -> None:
    source = list(range(10, 40))
    free, dear = Drafter([source], PRICE), Drafter([source], PRICE, fixed=1.0)
    for drafter in (free, dear):
        drafter.append([90, 91, 15])  # one token agrees: right as often as not
    assert free.propose(64).kind == "one"
    assert dear.propose(64) == Draft()
    for drafter in (free, dear):
        drafter.append([16, 17])
    assert dear.propose(64) == free.propose(64) != Draft()


@pytest.mark.parametrize("sources", [[], [[]], [[], []]])
def test_without_a_source_there_is_no_draft(sources: list[list[int]]) -> None:
    drafter = Drafter(sources, PRICE)
    assert drafter.propose(64) == Draft()
    assert proposed(drafter, 1, 2) == ()


@given(
    st.lists(st.lists(st.integers(0, 5), max_size=12), max_size=4),
    st.lists(st.integers(0, 5), min_size=1, max_size=20),
    st.integers(0, 8),
)
def test_a_draft_goes_on_where_a_source_agrees_with_the_answers_end(
    sources: list[list[int]], answer: list[int], most: int
) -> None:
    drafter = Drafter(sources, PRICE)
    drafter.append(answer)
    draft = drafter.propose(most).tokens
    assert len(draft) <= most
    if draft:
        follow = [s[i + 1 :] for s in [*sources, answer] for i, token in enumerate(s) if token == answer[-1]]
        assert any(tuple(rest[: len(draft)]) == draft for rest in follow)
