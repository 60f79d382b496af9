"""Which of the shown candidates an answer is taken from, and what was written of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ragqa.generation.choice import Choice, eligible, number_tokens
from ragqa.generation.prompt import Prompt, Shown
from ragqa.generation.verify import Sampling
from ragqa.records import Retrieval

# How many nats of the model's preference one unit of retrieval score outweighs. Measured with the untrained
# SmolLM2-135M on partial questions, 60 about LF-Amazon and 80 about Best Buy products, the right one of three chosen:
# model alone 58 and 71 %, retrieval (cosine) alone 97 and 83 %, both at weight 20: 98 and 81 %, at 50: 98 and 84 %.
# Beyond the model alone these differ by one question or two, so 20 leaves it a say without a measured loss.
_SCORE_WEIGHT: Final = 20.0

# Prompts, and for each some tokens -> for each the log-probabilities that the answer begins with these, of all tokens'.
FirstLogProbs = Callable[[Sequence[Prompt], Sequence[Sequence[int]]], Sequence[Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Writing:
    """How answers are written freely.

    Attributes:
        max_new_tokens: upper limit for an answer, its end included.
        sampling: how tokens are drawn; None is greedy.
        stop: strings that end an answer; they are no part of it.
        drafted: whether drafts are read; without, each token takes a pass.
        until: when the time for it is over, by `time.monotonic`; None for never. A pass that was begun is not broken off.
    """

    max_new_tokens: int
    sampling: Sampling | None = None
    stop: tuple[str, ...] = ()
    drafted: bool = True
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """An answer's text, and where it comes from.

    Attributes:
        text: without white space at its ends.
        chosen: place of the shown candidate that it was taken from, if it is known.
        confidence: the probability that the chosen source is the right one, where an adapter's choice was
            calibrated; None leaves the retriever's.
        log_probs: of the text's tokens, where the model was asked: (start, stop, natural logarithm) by characters.
        tokens: what the model wrote, its number and end included.
        passes: of the model that it took.
        drafted, kept: tokens of drafts that it read, and those that were right.
        shortened: the time was over before the text was at its end.
    """

    text: str
    chosen: int | None
    confidence: float | None = None
    log_probs: tuple[tuple[int, int, float], ...] = ()
    tokens: tuple[int, ...] = ()
    passes: int = 0
    drafted: int = 0
    kept: int = 0
    shortened: bool = False


def copied(found: Retrieval, count: int, choice: Choice | None) -> tuple[Prompt, Written]:
    """The likeliest of the first `count` candidates' description, whole, by an adapter's choice if there is one.

    No model is asked; the prompt is empty.
    """
    shown = found.candidates[:count]
    prompt = Prompt("", (), tuple(Shown(c, c.product.description) for c in shown))
    if not shown:
        return prompt, Written("", None)
    best, sure = choice.pick(shown, found.question.subject, found.confidence) if choice else (0, None)
    return prompt, Written(shown[best].product.description, best, sure)


def choose_first(prompts: Sequence[Prompt], tokenizer: Any, first: FirstLogProbs) -> list[int]:
    """The best candidate of each prompt by the model's first token and the retrieval score.

    An exact title always wins; where there is one such candidate, or one in all, there is nothing to
    choose and the model is not asked.
    """
    able = [_eligible(prompt) for prompt in prompts]
    chosen = [choices[0] for choices in able]
    open_ = [i for i, choices in enumerate(able) if len(choices) > 1]
    if not open_:
        return chosen
    begins = [
        [
            tokenizer(f" {shown.description[:40]}", add_special_tokens=False)["input_ids"][:1]
            for shown in prompts[i].shown
        ]
        for i in open_
    ]
    told = first([prompts[i] for i in open_], [[token for one in each for token in one] for each in begins])
    for i, each, log_probs in zip(open_, begins, told, strict=True):
        left = iter(log_probs)
        preferred = [next(left) if one else 0.0 for one in each]
        scores = [shown.candidate.score for shown in prompts[i].shown]
        chosen[i] = max(able[i], key=lambda k, p=preferred, s=scores: (p[k] + _SCORE_WEIGHT * s[k], -k))  # type: ignore[misc]
    return chosen


def choose_numbers(
    prompts: Sequence[Prompt], found: Sequence[Retrieval], choice: Choice, tokenizer: Any, first: FirstLogProbs
) -> list[tuple[int, float | None]]:
    """The chosen candidate of each prompt and its probability, by `choice`; an exact title is not asked about."""
    chosen: list[tuple[int, float | None]] = [(_eligible(prompt)[0], None) for prompt in prompts]
    open_ = [i for i, prompt in enumerate(prompts) if not is_settled(prompt)]
    if not open_:
        return chosen
    told = number_log_probs([prompts[i] for i in open_], tokenizer, first)
    for i, log_probs in zip(open_, told, strict=True):
        shown = [s.candidate for s in prompts[i].shown]
        chosen[i] = choice.pick(shown, found[i].question.subject, found[i].confidence, log_probs)
    return chosen


def number_log_probs(prompts: Sequence[Prompt], tokenizer: Any, first: FirstLogProbs) -> list[list[float]]:
    """For each prompt the log-probabilities that the answer begins with 0, 1, ... up to its candidates' count.

    They are renormalised over these numbers.
    """
    import torch

    numbers = list(number_tokens(tokenizer))
    told = first(prompts, [numbers[: 1 + len(prompt.shown)] for prompt in prompts])
    return [torch.tensor(log_probs).log_softmax(-1).tolist() for log_probs in told]


def is_settled(prompt: Prompt) -> bool:
    """Whether there is one candidate alone whose exact title was named."""
    return prompt.shown[0].candidate.exact and len(_eligible(prompt)) == 1


def _eligible(prompt: Prompt) -> list[int]:
    return eligible([shown.candidate for shown in prompt.shown])
