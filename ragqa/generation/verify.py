"""Which tokens of a draft are kept, and the one that comes after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch


# Below it logits that are divided by a temperature are no numbers any more; every draw is greedy long before.
COLDEST: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; None in its place is greedy.

    Attributes:
        temperature: above 0; what logits are divided by.
        seed: of the draws.
    """

    temperature: float
    seed: int = 0


def agreed(picks: list[int], draft: Sequence[int], decided: int | None) -> list[int]:
    """The draft's tokens as far as they are the picked ones, and the one that is picked after them."""
    if decided is not None:
        picks = [decided, *picks[1:]]
    right = next((place for place, token in enumerate(draft) if token != picks[place]), len(draft))
    return picks[: right + 1]


def drawn(shares: torch.Tensor, draft: Sequence[int], decided: int | None, draws: torch.Generator | None) -> list[int]:
    """The draft's tokens as far as they are kept, and the one that is drawn after them.

    Args:
        shares: probabilities after the answer and after each of the draft's tokens, (1 + draft, vocabulary).
        draft: token ids.
        decided: the first token, where it is not drawn.
        draws: where chance comes from.
    """
    import torch

    right = len(draft)
    if draft:
        chances = shares[:-1].gather(1, torch.tensor(draft, device=shares.device)[:, None])[:, 0]
        if decided is not None:
            chances[0] = float(draft[0] == decided)
        wrong = torch.rand(right, generator=draws, device=shares.device) >= chances
        right = int(wrong.int().argmax()) if bool(wrong.any()) else right
    if right == 0 and decided is not None:
        return [decided]
    left = shares[right].clone()
    if right < len(draft):
        left[draft[right]] = 0  # what was not kept is one of the others
    return [*draft[:right], int(torch.multinomial(left, 1, generator=draws))]
