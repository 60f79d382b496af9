"""A trained adapter, asked the validation questions: how its source is to be chosen, and what its answers look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragqa.generation.adapter import Mode
from ragqa.generation.choice import Alternatives, Choice, alternatives, fit
from ragqa.generation.generator import Generator
from ragqa.generation.prompt import PromptBuilder
from ragqa.generation.sources import Writing
from ragqa.progress import progress_bar
from ragqa.records import Candidate, Retrieval
from ragqa.training.contexts import Context
from ragqa.training.recipe import Recipe


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


@dataclass(frozen=True, slots=True)
class Weighed:
    """A validation question, and what a choice of its source is made from.

    Attributes:
        shown: candidates that it could be chosen from.
        known: what retriever and, of questions that it read, generator say of them.
        right: number of the right one from 1, 0 for none of them.
    """

    context: Context
    shown: Sequence[Candidate]
    known: Alternatives
    right: int


def weigh(generator: Generator, builder: PromptBuilder, asked: Sequence[Context], judged: int) -> list[Weighed]:
    """Ask questions that were not trained on; but for those with an exact title, which answering does not ask either.

    Args:
        generator: with the adapter.
        builder: of its prompts.
        asked: questions with the candidates that answering would show.
        judged: how many of them the generator reads.
    """
    open_ = [c for c in asked if c.candidates and not c.candidates[0].exact]
    weighed = []
    with progress_bar("fitting the choice", min(judged, len(open_)), "questions") as bar:
        for number, context in enumerate(open_):
            shown, log_probs = list(context.candidates), []
            if number < judged:
                # One at a time: prompts of one length need no mask, which attention on a CPU is slow with.
                prompt = builder.build(context.question, shown)
                shown, log_probs = [s.candidate for s in prompt.shown], generator.number_log_probs([prompt])[0]
                bar.update(1)
            known = alternatives(shown, context.question.subject, context.confidence, log_probs)
            weighed.append(Weighed(context, shown, known, _right(context, shown)))
    return weighed


def fit_choice(weighed: Sequence[Weighed]) -> Choice:
    """Fit how a source is chosen."""
    return fit([w.known for w in weighed], [w.right for w in weighed])


def _right(context: Context, shown: Sequence[Candidate]) -> int:
    """The number of the right candidate, 0 if it is not shown. A twin with the same description is as good."""
    if context.gold is None:
        return 0
    twins = [c.product.description == context.gold.description for c in shown]
    own = [c.product.id == context.gold.id for c in shown]
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
        written = generator.free([prompt], Writing(recipe.max_new_tokens), [found])[0]
        right = context.gold.description if context.gold else ""
        answers.append(Shown(context.asked.text, context.asked.kind, right, written.text))
    return answers
