"""A trained adapter, asked the validation questions: how its source is to be chosen, and what its answers look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragqa.generation.adapter import Mode
from ragqa.generation.choice import Choice, alternatives, fit
from ragqa.generation.decode import Generator
from ragqa.generation.prompt import Prompt, PromptBuilder
from ragqa.progress import progress_bar
from ragqa.records import Retrieval
from ragqa.training.contexts import Context
from ragqa.training.recipe import Recipe

_BATCH = 1  # prompts of one length need no mask, which attention on a CPU is slow with


@dataclass(frozen=True, slots=True)
class Shown:
    """A question and an answer, for people.

    Attributes:
        kind: of the question.
        right: the description that was asked for.
    """

    question: str
    kind: str
    right: str
    answer: str


def fit_choice(generator: Generator, builder: PromptBuilder, asked: Sequence[Context]) -> Choice:
    """Fit how a source is chosen on questions that were not trained on.

    An exact title is not asked about, here as in answering.

    Args:
        generator: with the adapter.
        builder: of its prompts.
        asked: questions with the candidates that answering would show.
    """
    open_ = [c for c in asked if c.candidates and not c.candidates[0].exact]
    known, right = [], []
    with progress_bar("fitting the choice", len(open_), "questions") as bar:
        for start in range(0, len(open_), _BATCH):
            contexts = open_[start : start + _BATCH]
            prompts = [builder.build(c.question, c.candidates) for c in contexts]
            for context, prompt, log_probs in zip(contexts, prompts, generator.number_log_probs(prompts), strict=True):
                shown = [s.candidate for s in prompt.shown]
                known.append(alternatives(log_probs, shown, context.question.subject, context.confidence))
                right.append(_right(context, prompt))
            bar.update(len(contexts))
    return fit(known, right)


def _right(context: Context, prompt: Prompt) -> int:
    """The number of the right candidate, 0 if it is not shown. A twin with the same description is as good."""
    if context.gold is None:
        return 0
    twins = [s.candidate.product.description == context.gold.description for s in prompt.shown]
    own = [s.candidate.product.id == context.gold.id for s in prompt.shown]
    return 1 + (own.index(True) if any(own) else twins.index(True)) if any(twins) else 0


def show(
    generator: Generator, builder: PromptBuilder, asked: Sequence[Context], mode: Mode, recipe: Recipe, count: int
) -> list[Shown]:
    """Greedy answers to a few questions that have a product, each of another kind."""
    chosen: dict[str, Context] = {}
    for context in asked:
        if context.gold is not None and context.asked.kind != "exact":
            chosen.setdefault(context.asked.kind, context)
    answers = []
    for context in list(chosen.values())[:count]:
        prompt = builder.build(context.question, context.candidates if mode == "retrieval" else ())
        found = Retrieval(context.question, context.candidates, context.confidence)
        draft = generator.free([prompt], recipe.max_new_tokens, [found])[0]
        right = context.gold.description if context.gold else ""
        answers.append(Shown(context.asked.text, context.asked.kind, right, draft.text))
    return answers
