import pytest
import torch

from ragqa.generation.verify import agreed, drawn

SHARES = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.1, 0.1, 0.7, 0.1], [0.25, 0.25, 0.25, 0.25]])


@pytest.mark.parametrize(
    ("picks", "draft", "decided", "kept"),
    [
        ([1, 2, 3], (1, 2), None, [1, 2, 3]),
        ([1, 2, 3], (1, 5), None, [1, 2]),
        ([1, 2, 3], (5, 2), None, [1]),
        ([1], (), None, [1]),
        ([1, 2, 3], (7, 2), 7, [7, 2, 3]),
        ([1, 2, 3], (1, 2), 7, [7]),
    ],
)
def test_a_draft_is_kept_as_far_as_it_is_what_the_model_picks(
    picks: list[int], draft: tuple[int, ...], decided: int | None, kept: list[int]
) -> None:
    assert agreed(picks, draft, decided) == kept


@pytest.mark.parametrize("draft", [(), (0,), (2,), (3,), (0, 2), (1, 0), (2, 3)])
def test_drawn_tokens_have_the_distribution_that_they_have_without_a_draft(draft: tuple[int, ...]) -> None:
    """Each token's frequency, given that the draft was right before it, against its probability: chi-squared."""
    draws, count = torch.Generator().manual_seed(len(draft) * 10 + sum(draft)), 6000
    found = [drawn(SHARES[: len(draft) + 1], draft, None, draws) for _ in range(count)]
    for place in range(len(draft) + 1):
        here = [one[place] for one in found if len(one) > place]
        # Those that got so far, and those whose draft was replaced at this place.
        assert here or SHARES[place - 1, draft[place - 1]] == 0
        expected = SHARES[place] * len(here)
        seen = torch.bincount(torch.tensor(here, dtype=torch.long), minlength=4)
        assert seen[expected == 0].sum() == 0
        chi_squared = ((seen - expected) ** 2 / expected.clamp(min=1e-9))[expected > 0].sum()
        assert chi_squared < 16.3  # 3 degrees of freedom, p = 0.001


def test_a_decided_token_is_not_drawn() -> None:
    draws = torch.Generator().manual_seed(0)
    assert {tuple(drawn(SHARES[:2], (1,), 3, draws)) for _ in range(50)} == {(3,)}
    assert {drawn(SHARES[:2], (3,), 3, draws)[0] for _ in range(50)} == {3}


def test_the_same_seed_draws_the_same() -> None:
    one, other = (
        [drawn(SHARES, (0, 2), None, g) for _ in range(20)] for g in map(torch.Generator().manual_seed, (7, 7))
    )
    assert one == other
