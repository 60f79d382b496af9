"""What was found and written -> the `Answer` that is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ragqa.generation.prompt import Prompt
from ragqa.generation.provenance import spans
from ragqa.generation.sources import Written
from ragqa.records import Answer, Candidate, Language, Retrieval, Source, Span
from ragqa.settings import AnswerSettings

SEVERAL: Final[dict[Language, str]] = {
    "en": "Several products fit this question; please name one of those below.",
    "pt": "Vários produtos correspondem a essa pergunta; indique um dos listados abaixo.",
    "es": "Varios productos corresponden a esta pregunta; indique uno de los de abajo.",
}
ABSTENTIONS: Final[dict[Language, str]] = {
    "en": "This catalogue does not seem to have that product.",
    "pt": "Este catálogo não parece ter esse produto.",
    "es": "Este catálogo no parece tener ese producto.",
}


def _sources(candidates: Sequence[Candidate], cited: Candidate | None = None) -> tuple[Source, ...]:
    return tuple(
        Source(c.product.id, c.product.title, c.product.description, round(c.score, 4), c.exact, c is cited)
        for c in candidates
    )


def abstention(found: Retrieval, use: AnswerSettings, timings: dict[str, float]) -> Answer:
    """The answer that names no product, with those that fit or came near.

    Args:
        found: for the question.
        use: how many sources are shown.
        timings: seconds by stage, before generation.
    """
    question = found.question
    return Answer(
        question=question.text,
        text=(SEVERAL if found.fitting else ABSTENTIONS)[question.language],
        sources=_sources((found.fitting or found.candidates)[: max(use.top_k, 2) if found.fitting else use.top_k]),
        abstained=True,
        several=bool(found.fitting),
        confidence=round(found.confidence, 4),
        language=question.language,
        timings=timings | {"generate": 0.0, "total": sum(timings.values())},
    )


def reply(
    abstained: Answer, found: Retrieval, top_k: int, written: tuple[Prompt, Written], timings: dict[str, float]
) -> Answer:
    """The answer that was written, with its sources.

    Args:
        abstained: the `abstention` for the same question.
        found: for the question.
        top_k: how many sources are shown.
        written: what the generator was given, and what came of it.
        timings: seconds by stage, all of them.
    """
    prompt, answer = written
    cited = prompt.shown[answer.chosen].candidate if answer.chosen is not None else None
    shown = [s.candidate.product for s in prompt.shown]
    copied = spans(answer.text, shown, cited.product.id if cited else None, answer.log_probs)
    if cited is None:
        most = _most_copied(answer.text, copied)
        cited = next((c for c in found.candidates if c.product.id == most), None)
    # What was cited is always among the sources, also where top_k is smaller than the context.
    listed = list(found.candidates[:top_k])
    if cited is not None and cited not in listed:
        listed[-1] = cited
    return replace(
        abstained,
        text=answer.text,
        sources=_sources(listed, cited),
        abstained=False,
        several=False,
        confidence=round(answer.confidence, 4) if answer.confidence is not None else abstained.confidence,
        timings=timings | {"total": sum(timings.values())},
        given=prompt.later or prompt.text,
        spans=copied,
        shortened=answer.shortened,
    )


def _most_copied(text: str, copied: Sequence[Span]) -> str | None:
    """The product that more than half of a text was copied from."""
    lengths: Counter[str] = Counter()
    for span in copied:
        if span.source is not None:
            lengths[span.source] += span.stop - span.start
    return next((source for source, length in lengths.most_common(1) if 2 * length > len(text)), None)
