"""Examples -> batches: packed, so that what examples share is read once; or padded, for models that cannot do that.

A *pack* holds several examples as one sequence that is really a tree: tokens that examples have in common at their
beginnings (the instructions, the candidates of questions asked of one context) stand in it once, and each example is
a path from the root. A token's position is its depth and it attends to its ancestors alone, so every example is
computed as if it stood by itself (the tree attention of SpecInfer, Miao et al. 2024, arXiv 2305.09781, used for
training). There is no padding.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragqa.training.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Pack:
    """A tree of tokens; each node stands after its parent.

    Attributes:
        ids: token of each node.
        parents: node before it, -1 for the first of a path.
        sources: for each trained token the node that predicts it.
        targets: the trained tokens.
        weights: their weights in the loss.
        numbers: which of them are numbers of sources.
        examples: how many examples the pack holds.
        tokens: how many tokens these have by themselves.
    """

    ids: tuple[int, ...]
    parents: tuple[int, ...]
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    weights: tuple[float, ...]
    numbers: tuple[bool, ...]
    examples: int
    tokens: int


def pack(examples: Sequence[Tokens], max_tokens: int, max_examples: int, number_weight: float = 1.0) -> list[Pack]:
    """Pack examples, neighbours in the order of their tokens together.

    Args:
        examples: the examples.
        max_tokens: nodes in a pack; a longer example is a pack of its own.
        max_examples: examples in a pack.
        number_weight: weight of a source's number in the loss; other tokens weigh 1.
    """
    packs, tree = [], _Tree()
    for group in _groups(examples):
        # What shares a context stays together where it can: a pack that is cut within reads the context twice.
        whole = _Tree()
        for example in group:
            whole.add(example, ())
        parted = len(tree.ids) + len(whole.ids) > max_tokens or tree.examples + len(group) > max_examples
        if tree.examples and parted:
            packs.append(tree.pack())
            tree = _Tree()
        for example in group:
            full = tree.examples >= max_examples or len(tree.ids) + tree.new(example.ids) > max_tokens
            if tree.examples and full:
                packs.append(tree.pack())
                tree = _Tree()
            tree.add(example, example.weights(number_weight))
    return [*packs, tree.pack()] if tree.examples else packs


def _groups(examples: Sequence[Tokens]) -> list[list[Tokens]]:
    """Examples in the order of their tokens, those together that share more than half of a prompt."""
    groups: list[list[Tokens]] = []
    for example in sorted(examples, key=lambda e: e.ids):
        if groups:
            before = groups[-1][-1].ids
            shared = next((i for i, (a, b) in enumerate(zip(before, example.ids, strict=False)) if a != b), len(before))
            if shared > example.prompt / 2:
                groups[-1].append(example)
                continue
        groups.append([example])
    return groups


class _Tree:
    """Grows by one example after the other; only the path of the last one is compared, which suffices in order."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.parents: list[int] = []
        self.sources: list[int] = []
        self.targets: list[int] = []
        self.weights: list[float] = []
        self.numbers: list[bool] = []
        self.examples = self.tokens = 0
        self._path: list[int] = []

    def _shared(self, ids: Sequence[int]) -> int:
        # The last token is only ever predicted: it has no node.
        most = min(len(self._path), len(ids) - 1)
        return next((i for i in range(most) if self.ids[self._path[i]] != ids[i]), most)

    def new(self, ids: Sequence[int]) -> int:
        """How many nodes an example of these tokens would add."""
        return len(ids) - 1 - self._shared(ids)

    def add(self, example: Tokens, weights: Sequence[float]) -> None:
        shared = self._shared(example.ids)
        path = self._path[:shared]
        for token in example.ids[shared:-1]:
            self.parents.append(path[-1] if path else -1)
            path.append(len(self.ids))
            self.ids.append(token)
        self.sources += path[example.prompt - 1 :]
        self.targets += example.ids[example.prompt :]
        self.weights += weights
        self.numbers += [example.numbered, *[False] * (len(example.ids) - example.prompt - 1)]
        self.examples += 1
        self.tokens += len(example.ids)
        self._path = path

    def pack(self) -> Pack:
        return Pack(
            tuple(self.ids), tuple(self.parents), tuple(self.sources), tuple(self.targets), tuple(self.weights),
            tuple(self.numbers), self.examples, self.tokens,
        )  # fmt: skip


def packed_batch(one: Pack, dtype: Any) -> dict[str, Any]:
    """A pack as tensors.

    Args:
        one: the pack, of T nodes with N trained tokens.
        dtype: number format of the mask: the model's.

    Returns:
        input_ids and position_ids (1, T); attention_mask (1, 1, T, T), 0 where a node attends and the lowest number
        where not; logits_to_keep (K,), the nodes that predict; sources (N,) among these; targets, weights and
        numbers (N,).
    """
    import torch

    size = len(one.ids)
    attends = np.zeros((size, size), bool)
    positions = np.zeros(size, np.int64)
    for node, parent in enumerate(one.parents):
        if parent >= 0:
            attends[node, : parent + 1] = attends[parent, : parent + 1]
            positions[node] = positions[parent] + 1
        attends[node, node] = True
    mask = torch.zeros((1, 1, size, size), dtype=dtype)
    mask.masked_fill_(~torch.from_numpy(attends), torch.finfo(dtype).min)
    kept, sources = np.unique(np.asarray(one.sources), return_inverse=True)
    return {
        "input_ids": torch.tensor([one.ids]),
        "position_ids": torch.from_numpy(positions)[None],
        "attention_mask": mask,
        "logits_to_keep": torch.from_numpy(kept),
        "sources": torch.from_numpy(sources),
        "targets": torch.tensor(one.targets),
        "weights": torch.tensor(one.weights),
        "numbers": torch.tensor(one.numbers),
    }


def length_grouped(examples: Sequence[Tokens], max_tokens: int, max_examples: int, seed: int = 0) -> list[list[Tokens]]:
    """Batches of examples of like length, in a seeded order.

    Args:
        examples: the examples.
        max_tokens: examples times the longest of them, in a batch; a longer example is a batch of its own.
        max_examples: examples in a batch.
        seed: of the order of the batches, and of examples of one length.
    """
    random_ = random.Random(seed)  # noqa: S311
    batches: list[list[Tokens]] = []
    for example in sorted(examples, key=lambda e: (len(e.ids), random_.random())):
        # Sorted by length, the newest is the longest.
        room = batches and len(batches[-1]) < max_examples and (len(batches[-1]) + 1) * len(example.ids) <= max_tokens
        if room:
            batches[-1].append(example)
        else:
            batches.append([example])
    random_.shuffle(batches)
    return batches


def padded_batch(examples: Sequence[Tokens], pad: int, number_weight: float = 1.0) -> dict[str, Any]:
    """Examples for a decoder-only model, padded on the left, so that all answers end together.

    Returns:
        input_ids, attention_mask and position_ids, (examples, longest); logits_to_keep, how many of the last
        positions predict; sources (N,) among the kept positions of all examples, flattened; targets, weights and
        numbers (N,).
    """
    import torch

    width = max(len(example.ids) for example in examples) - 1
    kept = max(len(example.ids) - example.prompt for example in examples)
    ids, mask = torch.full((len(examples), width), pad), torch.zeros((len(examples), width), dtype=torch.long)
    sources: list[int] = []
    for row, example in enumerate(examples):
        ids[row, width - len(example.ids) + 1 :] = torch.tensor(example.ids[:-1])
        mask[row, width - len(example.ids) + 1 :] = 1
        sources += range((row + 1) * kept - (len(example.ids) - example.prompt), (row + 1) * kept)
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
        "logits_to_keep": kept,
        "sources": torch.tensor(sources),
        **_targets(examples, number_weight),
    }


def encoder_decoder_batch(
    examples: Sequence[Tokens], pad: int, start: int, number_weight: float = 1.0
) -> dict[str, Any]:
    """Examples for an encoder-decoder, prompts to the encoder and answers to the decoder, padded on the right.

    Returns:
        input_ids and attention_mask, (examples, longest prompt); decoder_input_ids, (examples, longest answer);
        sources (N,) among the decoder's positions, flattened; targets, weights and numbers (N,).
    """
    import torch

    def padded(rows: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
        width = max(map(len, rows))
        return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])

    prompts = [example.ids[: example.prompt] for example in examples]
    answers = [(start, *example.ids[example.prompt : -1]) for example in examples]
    width = max(map(len, answers))
    return {
        "input_ids": padded(prompts, pad),
        "attention_mask": padded([[1] * len(prompt) for prompt in prompts], 0),
        "decoder_input_ids": padded(answers, pad),
        "sources": torch.tensor([row * width + i for row, answer in enumerate(answers) for i in range(len(answer))]),
        **_targets(examples, number_weight),
    }


def _targets(examples: Sequence[Tokens], number_weight: float) -> dict[str, Any]:
    import torch

    return {
        "targets": torch.tensor([token for e in examples for token in e.ids[e.prompt :]]),
        "weights": torch.tensor([weight for e in examples for weight in e.weights(number_weight)]),
        "numbers": torch.tensor([e.numbered and i == e.prompt for e in examples for i in range(e.prompt, len(e.ids))]),
    }
