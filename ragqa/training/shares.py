"""The batches of a run, step by step, dealt out to the processes that train together.

The order is that of one process whatever their number, and so is what an optimiser step is made of: its batches are dealt
out in turn. Where they cannot be dealt evenly, a process is given a batch that weighs nothing, because all must take
part in every exchange of gradients. What is drawn within a batch (dropout) hangs on the batch's place in the run alone,
not on who computes it, so that a checkpoint holds nothing of any one process.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ragqa.training.batches import Batches


@dataclass(frozen=True, slots=True)
class Share:
    """A batch to compute.

    Attributes:
        batch: its number.
        seed: of what is drawn within it.
        weighs: whether it counts.
    """

    batch: int
    seed: int
    weighs: bool = True


class Dealt:
    """What one process computes, epoch by epoch: a batch sampler of one share each.

    Args:
        batches: how many there are.
        step: how many of them make an optimiser step.
        smallest: the number of the cheapest one.
        seed: of their order.
        number, count: of this process, and of all.
    """

    def __init__(self, batches: int, step: int, smallest: int, seed: int, number: int = 0, count: int = 1) -> None:
        self._batches, self._step, self._smallest, self._seed = batches, step, smallest, seed
        self._number, self._count = number, count
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is next."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Shares in an epoch, the same for every process."""
        whole, rest = divmod(self._batches, self._step)
        return whole * math.ceil(self._step / self._count) + math.ceil(rest / self._count)

    def __iter__(self) -> Iterator[list[Share]]:
        # The order that transformers and accelerate take for one process.
        order = torch.randperm(
            self._batches, generator=torch.Generator().manual_seed(self._seed + self._epoch)
        ).tolist()
        for start in range(0, len(order), self._step):
            step = order[start : start + self._step]
            for first in range(0, len(step), self._count):
                place = first + self._number
                weighs = place < len(step)
                drawn = random.Random(f"{self._seed}/{self._epoch}/{start + place}")  # noqa: S311
                yield [Share(step[place] if weighs else self._smallest, drawn.getrandbits(63), weighs)]


class SharedBatches:
    """Batches by their shares: with ``seed``, and weights of zero where they do not count."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, share: Share) -> dict[str, Any]:
        batch = self.batches[share.batch]
        if not share.weighs:
            batch["weights"] = torch.zeros_like(batch["weights"])
        return batch | {"seed": share.seed}
