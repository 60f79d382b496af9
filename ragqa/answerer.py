"""The question's way, whole: retrieve, judge, prompt, generate, give the sources."""

from __future__ import annotations

import asyncio
import copy
import tempfile
import threading
import time
from collections.abc import Generator as Pieces
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ragqa import models
from ragqa.errors import InputError
from ragqa.folders import readable
from ragqa.generation.adapter import Adapter, as_trained, base_of, read_adapter
from ragqa.generation.generator import Generator
from ragqa.generation.limits import time_until
from ragqa.generation.opening import open_generator
from ragqa.generation.prompt import Prompt, PromptTemplate
from ragqa.generation.server import Server, as_server
from ragqa.generation.sources import Written
from ragqa.generation.writer import Writer
from ragqa.index.embedder import own_embedder
from ragqa.index.storage import SearchIndex, Verify, on_disk, open_index
from ragqa.milvus.address import is_milvus
from ragqa.milvus.index import MilvusIndex
from ragqa.progress import say
from ragqa.records import Answer, Retrieval
from ragqa.replies import ABSTENTIONS, SEVERAL, abstention, reply
from ragqa.retrieval.embed import Embedder
from ragqa.retrieval.question import in_blocks
from ragqa.retrieval.rerank import CrossEncoderReranker, Reranker
from ragqa.saved import SAVED, Saved, from_saved, push, save
from ragqa.settings import AnswerSettings
from ragqa.streams import AnswerStream

__all__ = ["ABSTENTIONS", "SEVERAL", "Answerer"]


class Answerer:
    """Answers questions about the products of one index. It may be shared between threads.

    Examples:
        >>> answerer = Answerer.from_pretrained("indexes/demo")  # doctest: +SKIP
        >>> answerer.ask("Qual é a descrição deste produto: Rede de Dormir Casal Maracatu, Azul?")  # doctest: +SKIP
    """

    def __init__(
        self,
        index: SearchIndex,
        embedder: Embedder,
        *,
        embedder_source: models.ModelSource | None = None,
        generator: str = models.DEFAULT_GENERATOR,
        adapter: str | None = None,
        reranker: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        settings: AnswerSettings | None = None,
        server: Server | None = None,
    ) -> None:
        self.index = index
        # How the adapter, or the model one was merged into, wants to be asked.
        self.trained: Adapter | None = read_adapter(adapter or generator)
        self.settings = settings or as_trained(self.trained)
        self.embedder_source = embedder_source
        self.generator_source: models.ModelSource | None = None
        self.retriever = index.retriever(embedder)
        self.generator_name, self.adapter_name, self.reranker_name = generator, adapter, reranker
        self.reranker_source: models.ModelSource | None = None
        self._device, self._dtype, self._server = device, dtype, server
        self._generator: Generator | None = None
        self._reranker: Reranker | None = None
        self._loading, self._saved = threading.Lock(), Saved()
        self._writer = Writer(self.trained, foreign=adapter is not None and self.trained is None)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        generator: str | None = None,
        adapter: str | None = None,
        embedder: str | None = None,
        reranker: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        settings: AnswerSettings | None = None,
        verify: Verify = "auto",
        server: str | Server | None = None,
        server_model: str | None = None,
    ) -> Answerer:
        """Open an index, a saved Answerer, one on the Hub, or a catalogue in Milvus.

        Args:
            path: an index folder, a folder written by `save_pretrained`, a Hub id, or ``milvus://host:19530/catalogue``.
            generator: a language model (Hub id or folder); None takes the saved one, the adapter's, or the default.
            adapter: a folder with a LoRA adapter for it, such as `ragqa.fine_tune` writes, or one merged or exported.
            embedder: where the encoder that built the index lies now; None takes it by its name.
            reranker: a cross-encoder (Hub id or folder) for the first candidates; None takes the saved one, if any.
            device, dtype: "auto", or as in ``--device`` and ``--dtype``.
            settings: how questions are answered; None takes what the adapter was trained with, or the defaults.
            verify: how thoroughly the index is checked, see `ragqa.open_index`.
            server: address of an OpenAI-compatible API that runs the generator; here its tokenizer alone is loaded.
            server_model: the server's name for the model, or the adapter; None takes the only one it has.

        Raises:
            IndexNotFoundError, IndexMismatchError, IndexDamagedError, ServerError: the index cannot be used.
            ModelError: the embedder cannot be found, or the adapter was trained with another prompt template.
        """
        server = as_server(server, server_model)
        if adapter and generator is None and (whole := read_adapter(adapter)) and whole.merged:
            generator, adapter = adapter, None  # with the adapter in it
        vouched, named = Saved(), (generator, adapter, embedder, reranker)
        if is_milvus(path):
            index: SearchIndex = MilvusIndex.open(str(path))
        else:
            folder = readable(Path(path))
            if not folder.exists() and models.is_hub_id(str(path)):
                folder = models.fetch_folder(str(path))
            if (folder / SAVED).exists():
                vouched, named, settings = from_saved(folder, *named, settings)
                folder = folder / "index"
            index = open_index(folder, verify)
            vouched.check_index(index)
        generator, adapter, embedder, reranker = named
        encoder, source = own_embedder(index, index.place, embedder, device, dtype)
        say(f"embedder {source}, {encoder.device}, {encoder.dtype}")
        index.use(encoder.device)
        answerer = cls(
            index, encoder, embedder_source=source, generator=generator or base_of(adapter), adapter=adapter,
            reranker=reranker, device=device, dtype=dtype, settings=settings, server=server,
        )  # fmt: skip
        answerer._saved = vouched
        return answerer

    @property
    def generator(self) -> Generator:
        """The generator, loaded on first use.

        Raises:
            ModelError, ServerError: it cannot be found or loaded.
        """
        with self._loading:
            if self._generator is None:
                generator, source = open_generator(
                    self.generator_name,
                    self._device,
                    self._dtype,
                    adapter=self.adapter_name,
                    trained=self.trained,
                    choice=self._writer.choice,
                    server=self._server,
                )
                if self._server is None:
                    self._saved.check_generator(source, self.adapter_name)
                self._generator, self.generator_source = generator, source
            return self._generator

    @property
    def reranker(self) -> Reranker | None:
        """The reranker, loaded on first use; None where none was named.

        Raises:
            ModelError: it cannot be found or loaded, or has more than one label.
        """
        with self._loading:
            if self._reranker is None and self.reranker_name is not None:
                model, source = models.load_reranker(self.reranker_name, self._device, self._dtype)
                say(f"reranker {source}, {models.describe(model)}")
                self._saved.check_reranker(source)
                self._reranker, self.reranker_source = CrossEncoderReranker(model), source
            return self._reranker

    def ask(self, question: str, **settings: Any) -> Answer:
        """Answer one question.

        Args:
            question: in English, Portuguese or Spanish; the title whole, in part, or mistyped.
            settings: overrides of `AnswerSettings` for this question, such as ``top_k=10``.

        Raises:
            QuestionError: the question is empty or too long.
            InputError: a setting is unknown or out of range.
            TimeLimitError: there was no answer within `max_seconds`.
        """
        return self.ask_many([question], **settings)[0]

    def ask_many(self, questions: Sequence[str], **settings: Any) -> list[Answer]:
        """Answer questions, at most 100,000, in their order; prompts are read in batches of like length."""
        use, answers = self._settings(settings), list[Answer]()
        for block in in_blocks(questions, use.max_question_chars):
            found, share = self._retrieved(block, use)
            answers += self._answer(found, use, share)
        return answers

    def retrieve(self, questions: Sequence[str], **settings: Any) -> list[Retrieval]:
        """What is found for questions, in their order, for `answer` and `stream`. Args: see `ask`."""
        return self._retrieved(questions, self._settings(settings))[0]

    def generates(self, found: Sequence[Retrieval], **settings: Any) -> list[bool]:
        """Whether the generator is asked for each answer; not to abstain, to copy, or to choose the one exact title."""
        use = self._settings(settings)
        return [self._answerable(one, use) and self._writer.asks(one, use) for one in found]

    def is_free(self, **settings: Any) -> bool:
        """Whether the generator writes the text; otherwise it chooses the source at most."""
        return self._writer.is_free(self._settings(settings))

    def on(self, index: SearchIndex) -> Answerer:
        """The same on another index, such as a new generation of its own; models that it shares are not loaded anew."""
        other, encoder = copy.copy(self), self.retriever.embedder
        if index.manifest["embedder"] != self.index.manifest["embedder"]:
            encoder, other.embedder_source = own_embedder(index, index.place, None, self._device, self._dtype)
        index.use(getattr(encoder, "device", "cpu"))
        other.index, other.retriever = index, index.retriever(encoder)
        return other

    def _settings(self, changed: dict[str, Any]) -> AnswerSettings:
        return AnswerSettings.from_dict(self.settings.to_dict() | changed) if changed else self.settings

    def _retrieved(self, questions: Sequence[str], use: AnswerSettings) -> tuple[list[Retrieval], dict[str, float]]:
        """What is found for questions, and the seconds of each stage for one of them."""
        self._least(use)  # settings that cannot be are told first
        started, load = time.perf_counter(), {}
        if use.rerank_depth and self._reranker is None and self.reranker is not None:
            load["load"] = (time.perf_counter() - started) / max(len(questions), 1)
            started = time.perf_counter()
        how: dict[str, Any] = {"fusion": use.fusion, "lexical": use.lexical, "rerank_depth": use.rerank_depth}
        count = max(use.top_k, use.context_products)
        found = self.retriever.retrieve(questions, count, use.max_question_chars, reranker=self._reranker, **how)
        retrieve = (time.perf_counter() - started) / max(len(questions), 1)
        return found, {"retrieve": retrieve} | load

    async def aask(self, question: str, **settings: Any) -> Answer:
        """`ask`, in a thread of its own: the event loop is not kept waiting."""
        return await asyncio.to_thread(self.ask, question, **settings)

    def stream(self, question: str | Retrieval, **settings: Any) -> AnswerStream:
        """The answer to one question, in pieces as its tokens are verified.

        Extractive answers, and that there is none, are one piece; so is what a model writes that cannot be drafted for.

        Args: see `ask`; in the place of a question what was found for it before. Errors are raised with the first piece.
        """
        return AnswerStream(self._stream(question, settings))

    astream = stream

    def _stream(self, question: str | Retrieval, settings: dict[str, Any]) -> Pieces[str, None, Answer]:
        use = self._settings(settings)
        found, share = self._retrieved([question], use) if isinstance(question, str) else ([question], {})
        if not self._writer.is_free(use) or not self._answerable(found[0], use):
            answer = self._answer(found, use, share)[0]
            yield answer.text
            return answer
        share |= self._loaded(1)
        started, given = time.perf_counter(), False
        limits = self._least(use), time_until(use, 1, share.get("retrieve", 0.0))
        pieces = self._writer.stream(self.generator, found[0], use, *limits)
        while isinstance(piece := next(pieces), str):
            given = True
            yield piece
        told = share | {"generate": time.perf_counter() - started}
        answer = self._replied(abstention(found[0], use, share), found[0], use, piece, told)
        if not given:
            yield answer.text
        return answer

    def answer(self, found: Sequence[Retrieval], **settings: Any) -> list[Answer]:
        """Answer questions from candidates that were retrieved before.

        Args:
            found: as `retrieve` gives them.
            settings: overrides of `AnswerSettings`.
        """
        return self._answer(found, self._settings(settings), {"retrieve": 0.0})

    def _least(self, use: AnswerSettings) -> float:
        """The probability below which nothing is answered."""
        if use.precision is None:
            return use.min_confidence
        # An adapter's own probability is calibrated: of answers that are all surer than this, at least so many are right.
        return use.precision if self._writer.judges else self.index.confidence.threshold(use.precision)

    def _answerable(self, found: Retrieval, use: AnswerSettings) -> bool:
        if self._writer.judges:
            return bool(found.candidates)  # the adapter judges candidates itself
        return found.confidence >= self._least(use)

    def _loaded(self, count: int) -> dict[str, float]:
        """The seconds of loading the generator for one of so many questions; empty where it was there."""
        if self._generator is not None:
            return {}
        started = time.perf_counter()
        _ = self.generator
        return {"load": (time.perf_counter() - started) / count}

    def _answer(self, found: Sequence[Retrieval], use: AnswerSettings, share: dict[str, float]) -> list[Answer]:
        answerable = [i for i, r in enumerate(found) if self._answerable(r, use)]
        if answerable and use.decoding != "copy":
            took = self._loaded(len(found))
            share |= {stage: share.get(stage, 0.0) + seconds for stage, seconds in took.items()}
        loaded = time.perf_counter()
        until, mine = time_until(use, len(found), share.get("retrieve", 0.0)), [found[i] for i in answerable]
        written = self._writer.write(lambda: self.generator, mine, use, until)
        generate = (time.perf_counter() - loaded) / max(len(answerable), 1)
        answers = [abstention(r, use, share) for r in found]
        for i, one in zip(answerable, written, strict=True):
            answers[i] = self._replied(answers[i], found[i], use, one, share | {"generate": generate})
        return answers

    def _replied(
        self,
        abstained: Answer,
        found: Retrieval,
        use: AnswerSettings,
        written: tuple[Prompt, Written],
        timings: dict[str, float],
    ) -> Answer:
        """What was written, or that nothing is sure enough."""
        sure = written[1].confidence
        if sure is not None and sure < self._least(use):
            return replace(abstained, confidence=round(sure, 4), given=written[0].text)
        return reply(abstained, found, use.top_k, written, timings)

    def save_pretrained(self, folder: str | Path) -> None:
        """Save everything that answering needs: index, embedder, generator, adapter, reranker, settings.

        The folder appears whole or not at all; a saved Answerer that was there before is replaced.

        Raises:
            InputError: the folder holds something else, or this Answerer was made from parts.
            StorageError: it cannot be written.
        """
        index = on_disk(self.index)
        source, _, _ = self.embedder_source, self.generator, self.reranker
        if source is None or self.generator_source is None:
            raise InputError("this Answerer was made from parts, not by from_pretrained; it cannot be saved")
        template = self.trained.template if self.trained else PromptTemplate()
        adapter = Path(self.adapter_name) if self.adapter_name else None
        parts = (source, self.generator_source, adapter, self.reranker_source)
        save(Path(folder).resolve(), index, *parts, template, self.settings)

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Save to the Hub as a model repository, which `from_pretrained(repo_id)` opens; gives the commit's address."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(Path(folder) / "answerer")
            return push(Path(folder) / "answerer", repo_id, private, token)
