"""Answering blocks of questions by a pool of actors, each with an Answerer of its own.

The index and the models have to lie where all machines see them; the questions are carried by Ray, and the machine that
asks writes the answers.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

import ragqa
from ragqa.answerer import Answerer
from ragqa.batch.answers import SCHEMA, answer
from ragqa.batch.questions import Block, QuestionStore
from ragqa.batch.run import Ask
from ragqa.cluster.faults import from_text, to_text
from ragqa.cluster.session import Session, absolute
from ragqa.errors import ClusterError, RagqaError
from ragqa.seals import digest

_QUESTIONS: Final = pa.schema(
    [
        ("block", pa.int64()),
        ("numbers", pa.list_(pa.int64())),
        ("ids", pa.list_(pa.string())),
        ("questions", pa.list_(pa.string())),
    ]
)
# Of what an Answerer is opened by, what may lie on this machine.
_PLACES: Final = ("path", "generator", "adapter", "embedder", "reranker")
# A block's answers are one value, an Arrow stream: no other cut is made between blocks than ours.
_ANSWERS: Final = pa.schema([("block", pa.int64()), ("answers", pa.large_binary()), ("error", pa.string())])


@dataclass(frozen=True, slots=True)
class Questions:
    """Reads a block of questions."""

    path: Path

    def __call__(self, block: pa.Table) -> pa.Table:
        """The block's number and its questions, in one row."""
        number = block.column("block")[0].as_py()
        found = QuestionStore(self.path)[number]
        return pa.table(
            {"block": [number]} | {name: [getattr(found, name)] for name in Block.__slots__}, schema=_QUESTIONS
        )


class Asked:
    """An actor that answers; it opens index and models when the first block comes."""

    def __init__(
        self, how: Mapping[str, Any], settings: Mapping[str, Any], index: str, home: str, version: str
    ) -> None:
        self._how, self._settings, self._index, self._home, self._version = how, settings, index, home, version
        self._answerer: Answerer | None = None

    def __call__(self, block: pa.Table) -> pa.Table:
        """The answers, or why there are none."""
        (row,) = block.to_pylist()
        answers = error = None
        try:
            table = answer(self._opened(), Block(*(row[name] for name in Block.__slots__)), self._settings)
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, SCHEMA) as writer:
                writer.write_table(table)
            answers = sink.getvalue().to_pybytes()
        except RagqaError as problem:
            error = to_text(problem, self._home)
        return pa.table({"block": [row["block"]], "answers": [answers], "error": [error]}, schema=_ANSWERS)

    def _opened(self) -> Answerer:
        if self._answerer is None:
            if ragqa.__version__ != self._version:
                raise ClusterError(
                    f"ragqa {ragqa.__version__} is installed there, and {self._version} asks; install the same"
                )
            answerer = Answerer.from_pretrained(**self._how)
            if digest(answerer.index.manifest) != self._index:
                raise ClusterError(
                    f"{answerer.index.place}: not the index that the asking machine has; all machines have to see the same"
                )
            self._answerer = answerer
        return self._answerer


def by_ray(session: Session, how: Mapping[str, Any], settings: Mapping[str, Any], index: str) -> Ask:
    """What has Ray answer blocks of questions.

    Args:
        session: the connection.
        how: arguments of `Answerer.from_pretrained`.
        settings: overrides of `AnswerSettings`.
        index: digest of the index's manifest; another one is refused.
    """

    def ask(store: QuestionStore, numbers: Sequence[int]) -> Iterator[tuple[int, pa.Table]]:
        device, size, asked = session.pool(how["device"])
        home = platform.node()
        everywhere = {name: absolute(str(value)) if value and name in _PLACES else value for name, value in how.items()}

        def make() -> Any:
            items = session.items([{"block": number} for number in numbers])
            questions = items.map_batches(
                Questions(store.path.absolute()), batch_size=1, batch_format="pyarrow",
                num_cpus=0, concurrency=1, label_selector=session.here,
            )  # fmt: skip
            return questions.map_batches(
                Asked, batch_size=1, batch_format="pyarrow", compute=session.actors(min(size, len(numbers))),
                fn_constructor_args=({**everywhere, "device": device}, settings, index, home, ragqa.__version__), **asked,
            )  # fmt: skip

        left = set(numbers)
        for table in session.tables(make):
            for row in table.to_pylist():
                if row["error"]:
                    raise from_text(row["error"])
                left.remove(row["block"])
                yield row["block"], pa.ipc.open_stream(row["answers"]).read_all()
        if left:
            raise ClusterError(f"{len(left):,} of {len(numbers):,} blocks did not come; run the same command again")

    return ask
