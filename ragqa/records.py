"""The records that travel from a question to its answer.

Frozen and slotted: a record never changes after it was made, so it may be shared between threads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Language = Literal["en", "pt", "es"]


@dataclass(frozen=True, slots=True)
class Product:
    """One cleaned row of a catalogue."""

    id: str
    title: str
    description: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question, taken apart.

    Attributes:
        text: what the user typed, white space folded.
        subject: what remains of it without its frame ("What is the description of ..."); never empty.
        readings: every reading tried by the exact-title look-up, longest first; the last one is `subject`.
        language: the language to answer in where the answer is not the catalogue's own text.
    """

    text: str
    subject: str
    readings: tuple[str, ...]
    language: Language


@dataclass(frozen=True, slots=True)
class Candidate:
    """A product the retriever proposes for a question.

    Attributes:
        row: row of the product in its store.
        score: agreement with the question in [0, 1], 1.0 for an exact title; comparable within one index. With a
            reranker, the mean of this and its relevance, see `ragqa.retrieval.rerank`.
        cosine: cosine similarity of the title's and the question's embeddings, in [-1, 1].
        overlap: share of the question's character trigrams that the title holds, in [0, 1].
        reverse_overlap: share of the title's trigrams that the question holds, in [0, 1].
        coverage: share of the question's words that title or description hold, rare ones weighing more, in [0, 1].
        exact: the question names this title, whole.
    """

    product: Product
    row: int
    score: float
    cosine: float
    overlap: float
    exact: bool
    reverse_overlap: float = 0.0
    coverage: float = 0.0


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What the retriever found for one question.

    Attributes:
        candidates: best first; ties are broken by product id.
        confidence: calibrated probability in [0, 1] that the first candidate is what was asked for. It was fitted
            without a reranker: with one it is what the retriever's own evidence says of the candidate that is now the
            first, too little where the reranker was right to put it there.
        fitting: those that have every word of the question in their titles, if they are two or more and none bears it
            exactly; else empty.
    """

    question: Question
    candidates: tuple[Candidate, ...]
    confidence: float
    fitting: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """A part of an answer's text, and where it was copied from.

    Attributes:
        start, stop: its characters in the text, the last one excluded.
        source: id of the product whose description has it; None where no source has it.
        source_start, source_stop: its characters in that description; None without a source.
        probability: geometric mean of the probabilities that the model gave its tokens, where it was asked; else None.
    """

    start: int
    stop: int
    source: str | None
    source_start: int | None
    source_stop: int | None
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A product that an answer rests on, or that came near.

    Attributes:
        cited: the answer's text was taken from this product's description.
    """

    id: str
    title: str
    description: str
    score: float
    exact: bool = False
    cited: bool = False


class Later:
    """A text that is made when it is first asked for; copied or pickled it is the text.

    Args:
        make: makes it.
    """

    def __init__(self, make: Callable[[], str]) -> None:
        self._make = make

    @functools.cached_property
    def _text(self) -> str:
        return self._make()

    def __str__(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, Later | str) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question.

    Attributes:
        text: the answer, or a sentence in the question's language that says why there is none.
        sources: the retrieved products, best first (near products when the answerer abstained).
        abstained: the catalogue was judged not to hold the product, or to hold several that fit.
        several: the answerer abstained because several products fit; they are the `sources`.
        confidence: calibrated probability that `sources[0]` is the product asked for; with an adapter trained with
            retrieval, that the cited source is.
        timings: seconds by stage: "retrieve" (with reranking), "load" (of reranker and generator, the first time),
            "generate", "total"; for a batch, the batch's share.
        given: the `prompt`, or how it is made.
        spans: which parts of the text were copied from which product; they cover it from end to end. Empty where
            that was not looked for.
        shortened: the time given (`AnswerSettings.max_seconds`) was over before the text was at its end.
    """

    question: str
    text: str
    sources: tuple[Source, ...]
    abstained: bool
    several: bool
    confidence: float
    language: Language = "en"
    timings: dict[str, float] = field(default_factory=dict)
    given: str | Later = field(default="", repr=False)
    spans: tuple[Span, ...] = ()
    shortened: bool = False

    @property
    def prompt(self) -> str:
        """The text the generator was given, or would have been for the one exact title; "" where none is made."""
        return str(self.given)

    @property
    def grounded(self) -> float:
        """Share of the text's characters, white space apart, that stand in spans with a source; 0.0 without text."""
        return grounded(self.text, self.spans)

    def to_dict(self, prompt: bool = True) -> dict[str, Any]:
        """A JSON-ready dictionary of all that an answer has; `grounded` is rounded to four digits.

        Args:
            prompt: with the prompt.
        """
        told = _fields(self)
        # In the order of the fields; what is left out is not made.
        told = {
            "prompt" if name == "given" else name: value for name, value in told.items() if prompt or name != "given"
        }
        if prompt:
            told["prompt"] = self.prompt
        told["sources"], told["spans"] = tuple(map(_fields, self.sources)), tuple(map(_fields, self.spans))
        return told | {"timings": dict(self.timings), "grounded": round(self.grounded, 4)}


def _fields(record: Answer | Source | Span) -> dict[str, Any]:
    """The fields of a record: `dataclasses.asdict` takes ten times as long, copying what never changes."""
    return {name: getattr(record, name) for name in record.__slots__}


def grounded(text: str, spans: Sequence[Span]) -> float:
    """Share of a text's characters, white space apart, that stand in spans with a source; 0.0 without text."""
    copied = sum(_visible(text[span.start : span.stop]) for span in spans if span.source is not None)
    return copied / max(_visible(text), 1)


def _visible(text: str) -> int:
    return sum(map(len, text.split()))
