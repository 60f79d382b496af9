"""A question on its way through the service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ragqa.records import Answer, Retrieval
from ragqa.settings import AnswerSettings
from ragqa.streams import AnswerStream

if TYPE_CHECKING:
    from ragqa.serving.generations import Generation

Kind = Literal["answer", "search", "stream"]


@dataclass(eq=False, slots=True)
class Work:
    """One question, for one request or for several that ask the same.

    Attributes:
        kind: what is wanted: an answer, its candidates alone, or an answer in pieces.
        question: the text.
        use: how it is answered.
        generation: of the index, which is held until the work is done.
        done: an `Answer`, or a `Retrieval` for a search; of the event loop.
        piece: called with each piece of a streamed answer, in a worker's thread.
        told: called with what was found for it, in a worker's thread.
        arrived: by `time.monotonic`.
        turn: who has less is first.
        waiting: how many requests wait for it; nobody reads what nobody waits for.
        begun: a worker has taken it.
        found: what was found for it.
        stream: the answer that is being written.
        seconds: by stage.
    """

    kind: Kind
    question: str
    use: AnswerSettings
    generation: Generation
    done: asyncio.Future[Answer | Retrieval]
    piece: Callable[[str], object] | None = None
    told: Callable[[Retrieval], object] | None = None
    arrived: float = field(default_factory=time.monotonic)
    turn: float = 0.0
    waiting: int = 1
    begun: bool = False
    found: Retrieval | None = None
    stream: AnswerStream | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def group(self) -> tuple[int, AnswerSettings]:
        """Works of one group can be done together."""
        return id(self.generation), self.use

    @property
    def key(self) -> tuple[int, Kind, AnswerSettings, str]:
        """Works of one key have the same result."""
        return id(self.generation), self.kind, self.use, self.question

    @property
    def left(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.waiting < 1


def found_for(work: Work) -> Retrieval:
    """What was found for a work that is past its search."""
    assert work.found is not None  # noqa: S101  (for the type checker)
    return work.found
