"""Contexts -> tokens and labels, and batches of them.

The prompt is built by the same `PromptBuilder` that answering uses; the loss is on the answer alone, its end
included. An answer is never cut away by a long context: the prompt has a budget of its own.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ragqa.generation.prompt import PromptBuilder, cut_at_tokens
from ragqa.records import Question
from ragqa.training.contexts import Context

IGNORED: Final = -100


@dataclass(frozen=True, slots=True)
class Tokens:
    """One training example.

    Attributes:
        ids: prompt and answer, end of answer included.
        prompt: how many of them are the prompt, on which there is no loss.
    """

    ids: tuple[int, ...]
    prompt: int

    @property
    def labels(self) -> tuple[int, ...]:
        """`ids` with the prompt ignored."""
        return (IGNORED,) * self.prompt + self.ids[self.prompt :]


@dataclass(slots=True)
class Encoded:
    """Training examples, and those that were left out, by reason."""

    examples: list[Tokens] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


class Encoder:
    """Turns questions, candidates and targets into tokens.

    Args:
        builder: the prompt builder that answering will use.
        max_new_tokens: the answer's budget; longer descriptions are cut at a sentence, as answering does.
        abstentions: the sentence that says the product is not there, by language.
    """

    def __init__(self, builder: PromptBuilder, max_new_tokens: int, abstentions: dict[Any, str]) -> None:
        self._builder = builder
        self._tokenizer = builder.tokenizer
        self._max_new_tokens = max_new_tokens
        self._abstentions = abstentions

    def plain(self, question: Question, description: str) -> Tokens | None:
        """A question and its answer without any context; None if there is no answer to train on."""
        prompt = self._builder.build(question, ())
        return self._join(prompt.ids, self.shorten(description))

    def with_context(self, context: Context) -> Tokens | None:
        """A question, its candidates and its answer; None if there is no answer to train on.

        Where the right description was shortened to fit into the prompt, the target is what is shown of it: nothing
        is trained that cannot be read there. Where it fell out altogether, the target is to abstain.
        """
        prompt = self._builder.build(context.question, context.candidates)
        target = self._abstentions[context.question.language]
        for shown in prompt.shown:
            if context.gold is not None and shown.candidate.product.id == context.gold.id:
                target = self.shorten(shown.description)
        return self._join(prompt.ids, target)

    def shorten(self, text: str) -> str:
        """The beginning of `text` that fits into the answer's budget."""
        return cut_at_tokens(self._tokenizer, text, self._max_new_tokens)

    def _join(self, prompt: Sequence[int], answer: str) -> Tokens | None:
        if not answer.strip():
            return None
        # The prompt ends with a word, so the answer begins with the blank that generation would begin with.
        ids = self._tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
        return Tokens((*prompt, *ids, self._tokenizer.eos_token_id), len(prompt))


def encode_contexts(contexts: Sequence[Context], encoder: Encoder) -> Encoded:
    """All contexts as tokens; what would train on nothing is counted, never silent."""
    encoded = Encoded()
    for context in contexts:
        tokens = encoder.with_context(context)
        if tokens is None:
            encoded.dropped["no answer to train on"] += 1
        else:
            encoded.examples.append(tokens)
    return encoded


def length_grouped(examples: Sequence[Tokens], max_tokens: int, seed: int) -> list[list[int]]:
    """Batches of examples of like length, each of at most `max_tokens` tokens with padding, in a seeded order.

    Args:
        examples: the examples.
        max_tokens: batch size times the longest example; a longer example is a batch of its own.
        seed: of the order of the batches, and of examples of one length.
    """
    random_ = random.Random(seed)  # noqa: S311
    order = sorted(range(len(examples)), key=lambda i: (len(examples[i].ids), random_.random()))
    batches: list[list[int]] = []
    for i in order:
        # Sorted by length, the newest is the longest.
        if batches and (len(batches[-1]) + 1) * len(examples[i].ids) <= max_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    random_.shuffle(batches)
    return batches


def collate(examples: Sequence[Tokens], pad: int) -> dict[str, Any]:
    """A batch padded on the right: input_ids, attention_mask and labels, each (batch, longest)."""
    import torch

    width = max(len(example.ids) for example in examples)

    def padded(rows: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
        return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])

    return {
        "input_ids": padded([example.ids for example in examples], pad),
        "attention_mask": padded([[1] * len(example.ids) for example in examples], 0),
        "labels": padded([example.labels for example in examples], IGNORED),
    }
