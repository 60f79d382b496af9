"""Settings: frozen, checked when made, the same names on the command line, in Python and in files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, Self, get_args

from ragqa.errors import InputError

Decoding = Literal["auto", "extractive", "free", "copy"]
Fusion = Literal["weighted", "reciprocal-rank"]
Lexical = Literal["postings", "rank-bm25"]
_HOTTEST: Final = 10.0
# Upper limits: no question takes memory or time without bound, whoever sets how it is answered.
_MOST: Final = {
    "top_k": 1000,
    "context_products": 100,
    "context_tokens": 131_072,
    "max_new_tokens": 16_384,
    "seed": 2**63 - 1,
    "rerank_depth": 1000,
    "max_question_chars": 100_000,
    "batch_size": 256,
}
_MOST_SECONDS: Final = 86_400.0
_MOST_STOPS: Final = 64
_LONGEST_STOP: Final = 1000


@dataclass(frozen=True, slots=True)
class Settings:
    """Common to all settings: conversion, and checks that report every bad field at once."""

    def _problems(self) -> list[str]:
        """What is wrong with the fields, one text each."""
        return []

    def __post_init__(self) -> None:
        problems = self._problems()
        if problems:
            raise InputError("; ".join(problems))

    def to_dict(self) -> dict[str, Any]:
        """A JSON- and TOML-ready dictionary of all fields."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make settings from a dictionary.

        Raises:
            InputError: a name is not a field, or a value is out of range; all of them are named.
        """
        known = [f.name for f in fields(cls)]
        unknown = [name for name in values if name not in known]
        if unknown:
            raise InputError(f"unknown setting {', '.join(map(repr, unknown))}; {cls.__name__} has: {', '.join(known)}")
        return cls(**values)


def at_least(settings: Any, minimum: Mapping[str, int]) -> list[str]:
    """What is wrong with the fields that must be whole numbers of at least `minimum`."""
    problems = []
    for name, least in minimum.items():
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            problems.append(f"{name} must be a whole number of at least {least}, not {value!r}")
    return problems


def at_most(settings: Any, maximum: Mapping[str, int]) -> list[str]:
    """What is wrong with the fields that must not be above `maximum`; what is no whole number `at_least` tells."""
    values = ((name, getattr(settings, name), most) for name, most in maximum.items())
    return [
        f"{name} must be at most {most:,}, not {value:,}"
        for name, value, most in values
        if isinstance(value, int) and value > most
    ]


@dataclass(frozen=True, slots=True)
class CleaningSettings(Settings):
    """How catalogue text is cleaned.

    Attributes:
        lowercase: lower-case titles and descriptions, as the original study did; off keeps the case.
        max_title_chars: longer titles are cut at a word boundary. LF-Amazon-1.3M's longest has 1,999.
        max_description_chars: longer descriptions are cut at a word boundary. In LF-Amazon-1.3M 95 % are
            below 1,728 characters and the longest has 197,622.
    """

    lowercase: bool = False
    max_title_chars: int = 2000
    max_description_chars: int = 4000

    def _problems(self) -> list[str]:
        problems = at_least(self, {"max_title_chars": 1, "max_description_chars": 1})
        lowercase: object = self.lowercase
        if not isinstance(lowercase, bool):
            problems.append(f"lowercase must be true or false, not {lowercase!r}")
        return problems


@dataclass(frozen=True, slots=True)
class AnswerSettings(Settings):
    """How a question is answered.

    Attributes:
        top_k: how many candidates are retrieved and given back as sources.
        context_products: how many of them, at most, stand in the generator's prompt.
        context_tokens: upper limit for the prompt, in tokens; long descriptions are shortened to fit.
        max_new_tokens: upper limit for the answer, in tokens.
        temperature: of free decoding: 0 takes the likeliest token each time, above it tokens are drawn.
        seed: of these draws.
        stop: strings that end a freely written answer; they are no part of it.
        drafted: whether free decoding reads drafts of the candidates, many tokens a pass; the answer is the same.
        probabilities: read extractive answers, too, for the probabilities of their spans.
        min_confidence: below this probability that the first candidate is the product asked for, the
            answerer abstains. 0 never abstains, 1 abstains unless the title was quoted exactly.
        precision: share of the answers that is to be right; the answerer abstains wherever the index's own validation
            questions say that more would be wrong. Replaces `min_confidence`.
        decoding: "extractive": the generator chooses the source, the text is that source's own;
            "free": greedy generation; "copy": the likeliest candidate's description, whole, and no generator is loaded;
            "auto": extractive, but free with an adapter that was trained plainly or by another program.
        fusion: how dense and lexical search are made one, see `ragqa.retrieval.fuse`.
        lexical: what searches by words: the index's own "postings", or "rank-bm25", the reference, which reads all titles
            when first used, does not know descriptions, and takes time that grows with the catalogue.
        rerank_depth: how many of the first candidates a reranker reads, where there is one; 0 for none. What it says of
            them is not in `min_confidence` and `precision`: these go by the retriever's own evidence, which was fitted
            without it, for the candidate that is now the first.
        max_question_chars: longer questions are refused.
        batch_size: how many prompts the generator reads at once in `ask_many`.
        max_seconds: time for one question; of several asked together each adds as much. When it is over, a text that is
            being written ends there (`Answer.shortened`), and where nothing was written yet TimeLimitError is raised. A
            pass of the model is not broken off, and loading a model the first time is not counted. None sets no limit.

    Each has an upper limit, too, which the error names.
    """

    top_k: int = 5
    context_products: int = 3
    context_tokens: int = 1024
    max_new_tokens: int = 160
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    drafted: bool = True
    probabilities: bool = False
    min_confidence: float = 0.5
    precision: float | None = None
    decoding: Decoding = "auto"
    fusion: Fusion = "weighted"
    lexical: Lexical = "postings"
    rerank_depth: int = 20
    max_question_chars: int = 4000
    batch_size: int = 8
    max_seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON- and TOML-ready dictionary of all fields."""
        return {name: getattr(self, name) for name in self.__slots__}

    def _problems(self) -> list[str]:
        problems = at_least(
            self,
            {
                "top_k": 1,
                "context_products": 1,
                "context_tokens": 128,
                "max_new_tokens": 1,
                "seed": 0,
                "rerank_depth": 0,
                "max_question_chars": 1,
                "batch_size": 1,
            },
        ) + at_most(self, _MOST)
        if not isinstance(self.temperature, int | float) or not 0 <= self.temperature <= _HOTTEST:
            problems.append(f"temperature must be from 0 to {_HOTTEST:g}, not {self.temperature!r}")
        stop: object = self.stop
        if not isinstance(stop, list | tuple) or not all(isinstance(one, str) and one for one in stop):
            problems.append(f"stop must be a list of strings, none of them empty, not {stop!r}")
        else:
            object.__setattr__(self, "stop", tuple(stop))  # read from a file it is a list
            if len(stop) > _MOST_STOPS or any(len(one) > _LONGEST_STOP for one in stop):
                problems.append(f"stop takes at most {_MOST_STOPS} strings of at most {_LONGEST_STOP:,} characters")
        seconds: object = self.max_seconds
        fine = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds <= _MOST_SECONDS
        if seconds is not None and not fine:
            problems.append(f"max_seconds must be above 0 and at most {_MOST_SECONDS:,.0f}, not {seconds!r}")
        for name in ("drafted", "probabilities"):
            if not isinstance(getattr(self, name), bool):
                problems.append(f"{name} must be true or false, not {getattr(self, name)!r}")
        if not isinstance(self.min_confidence, int | float) or not 0 <= self.min_confidence <= 1:
            problems.append(f"min_confidence must be from 0 to 1, not {self.min_confidence!r}")
        if self.precision is not None and not (isinstance(self.precision, int | float) and 0 < self.precision <= 1):
            problems.append(f"precision must be above 0 and at most 1, not {self.precision!r}")
        for name, accepted in {"decoding": Decoding, "fusion": Fusion, "lexical": Lexical}.items():
            if getattr(self, name) not in get_args(accepted):
                names = get_args(accepted)
                listed = f"{', '.join(names[:-1])} or {names[-1]}"
                problems.append(f"{name} must be {listed}, not {getattr(self, name)!r}")
        return problems
