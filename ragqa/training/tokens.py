"""Contexts -> tokens and labels.

The prompt is built by the same `PromptBuilder` that answering uses; the loss is on the answer alone, its end
included. An answer is never cut away by a long context: the prompt has a budget of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ragqa.errors import ModelError
from ragqa.generation.choice import number_tokens
from ragqa.generation.prompt import PromptBuilder, cut_at_tokens
from ragqa.records import Product, Question
from ragqa.training.contexts import Context

IGNORED: Final = -100


@dataclass(frozen=True, slots=True)
class Tokens:
    """One training example.

    Attributes:
        ids: prompt and answer, end of answer included.
        prompt: how many of them are the prompt, on which there is no loss.
        numbered: the answer begins with the number of its source, on which the loss may weigh more.
    """

    ids: tuple[int, ...]
    prompt: int
    numbered: bool = False

    @property
    def answered(self) -> bool:
        """Whether more is learnt than the number of the source."""
        return not self.numbered or len(self.ids) > self.prompt + 1

    @property
    def labels(self) -> tuple[int, ...]:
        """`ids` with the prompt ignored."""
        return (IGNORED,) * self.prompt + self.ids[self.prompt :]

    def weights(self, number_weight: float) -> list[float]:
        """The weight of each token of the answer in the loss."""
        first = number_weight if self.numbered else 1.0
        return [first, *[1.0] * (len(self.ids) - self.prompt - 1)]


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

    Raises:
        ModelError: the tokenizer has no end-of-text token, or does not tell digits apart.
    """

    def __init__(self, builder: PromptBuilder, max_new_tokens: int, abstentions: Mapping[Any, str]) -> None:
        self._builder = builder
        self._tokenizer = builder.tokenizer
        self._max_new_tokens = max_new_tokens
        self._abstentions = abstentions
        self._numbers = number_tokens(builder.tokenizer)
        if self._tokenizer.eos_token_id is None:
            raise ModelError(
                f"{self._tokenizer.name_or_path}: its tokenizer has no end-of-text token, so the end of an answer "
                "cannot be learnt; choose another generator"
            )

    def plain(self, question: Question, product: Product | None) -> Tokens | None:
        """A question and its answer without any context; no product is answered by abstaining.

        Returns:
            None if there is no answer to train on.
        """
        prompt = self._builder.build(question, ())
        told = self._builder.neutral(product.description) if product else self._abstentions[question.language]
        answer = self.shorten(told)
        # The prompt ends with a word, so the answer begins with the blank that generation would begin with.
        return self._join(prompt.ids, (), f" {answer}") if answer.strip() else None

    def with_context(self, context: Context) -> Tokens | None:
        """A question, its numbered candidates, and the number and text of its answer; None if the text is empty.

        Where the right description was shortened to fit into the prompt, the target is what is shown of it: nothing
        is trained that cannot be read there. Where it fell out altogether, the target is to abstain.
        """
        prompt = self._builder.build(context.question, context.candidates)
        number, target = 0, self._abstentions[context.question.language]
        for place, shown in enumerate(prompt.shown, 1):
            if context.gold is not None and shown.candidate.product.id == context.gold.id:
                number, target = place, self.shorten(shown.description)
        if not context.answered:
            return Tokens((*prompt.ids, self._numbers[number]), len(prompt.ids), numbered=True)
        return self._join(prompt.ids, (self._numbers[number],), f"] {target}") if target.strip() else None

    def shorten(self, text: str) -> str:
        """The beginning of `text` that fits into the answer's budget."""
        return cut_at_tokens(self._tokenizer, text, self._max_new_tokens)

    def _join(self, prompt: Sequence[int], number: Sequence[int], answer: str) -> Tokens:
        ids = self._tokenizer(answer, add_special_tokens=False)["input_ids"]
        return Tokens((*prompt, *number, *ids, self._tokenizer.eos_token_id), len(prompt), bool(number))


def encode(contexts: Iterable[Context], encoder: Encoder, products: Mapping[str, Product] | None = None) -> Encoded:
    """Contexts as tokens; what would train on nothing is counted, never silent.

    Args:
        contexts: questions with their candidates.
        encoder: makes the tokens.
        products: with them, the questions are asked plainly, without candidates, and answered from these.
    """
    encoded = Encoded()
    for context in contexts:
        if products is None:
            tokens = encoder.with_context(context)
        elif not context.answered:
            continue
        else:
            tokens = encoder.plain(context.question, products.get(context.asked.product_id or ""))
        if tokens is None:
            encoded.dropped["no answer to train on"] += 1
        else:
            encoded.examples.append(tokens)
    return encoded
