"""The question's way, whole: retrieve, judge, prompt, generate, give the sources."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ragqa import models
from ragqa.errors import InputError, ModelError
from ragqa.generation.adapter import Adapter, read_adapter
from ragqa.generation.choice import MOST
from ragqa.generation.decode import Draft, Generator, copied
from ragqa.generation.prompt import Prompt, PromptBuilder, PromptTemplate
from ragqa.index.embedder import own_embedder
from ragqa.index.storage import ProductIndex, Verify, open_index
from ragqa.progress import say
from ragqa.records import Answer, Retrieval
from ragqa.replies import ABSTENTIONS, SEVERAL, abstention, reply
from ragqa.retrieval.embed import Embedder
from ragqa.retrieval.rerank import CrossEncoderReranker, Reranker
from ragqa.retrieval.retriever import Retriever
from ragqa.saved import SAVED, read_saved, save
from ragqa.settings import AnswerSettings

__all__ = ["ABSTENTIONS", "SEVERAL", "Answerer"]


class Answerer:
    """Answers questions about the products of one index. It may be shared between threads.

    >>> answerer = Answerer.from_pretrained("indexes/demo")  # doctest: +SKIP
    >>> answerer.ask("Qual é a descrição deste produto: Rede de Dormir Casal Maracatu, Azul?")  # doctest: +SKIP
    """

    def __init__(
        self,
        index: ProductIndex,
        embedder: Embedder,
        *,
        embedder_source: models.ModelSource | None = None,
        generator: str = models.DEFAULT_GENERATOR,
        adapter: str | None = None,
        reranker: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        settings: AnswerSettings | None = None,
    ) -> None:
        self.index = index
        # How the adapter, or the model one was merged into, wants to be asked.
        self.trained: Adapter | None = read_adapter(adapter or generator)
        self.settings = settings or _as_trained(self.trained)
        self.embedder_source = embedder_source
        self.generator_source: models.ModelSource | None = None
        self.retriever = Retriever(index.store, index.dense, index.titles, index.words, embedder, index.confidence)
        self._generator_name, self._adapter = generator, adapter
        self.reranker_name = reranker
        self.reranker_source: models.ModelSource | None = None
        self._device, self._dtype = device, dtype
        self._generator: Generator | None = None
        self._reranker: Reranker | None = None
        self._loading = threading.Lock()

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
    ) -> Answerer:
        """Open an index, a saved Answerer, or one on the Hub.

        Args:
            path: an index folder, a folder written by `save_pretrained`, or a Hub id ``owner/name``.
            generator: a language model (Hub id or folder); None takes the saved one, the one the adapter was trained
                on, or the default.
            adapter: a folder with a LoRA adapter for it, such as `ragqa.fine_tune` writes.
            embedder: where the encoder that built the index lies now; None takes it by its name.
            reranker: a cross-encoder (Hub id or folder) that reads the first candidates again, see `AnswerSettings`; None
                takes the saved one, if there is one.
            device, dtype: "auto", or as in ``--device`` and ``--dtype``.
            settings: how questions are answered; None takes what the adapter was trained with, or the defaults.
            verify: how thoroughly the index is checked, see `ragqa.open_index`.

        Raises:
            IndexNotFoundError, IndexMismatchError, IndexDamagedError: the index cannot be used.
            ModelError: the embedder cannot be found, or the adapter was trained with another prompt template. (Generator
                and reranker are loaded when first needed.)
        """
        folder = Path(path)
        if not folder.exists() and models.is_hub_id(str(path)):
            folder = models.fetch_folder(str(path))
        saved: dict[str, Any] = {}
        if (folder / SAVED).exists():
            saved = read_saved(folder / SAVED)
            if adapter or generator:
                # Another one is asked as it was trained, not as the saved one was.
                trained = _as_trained(read_adapter(adapter or str(generator))).to_dict()
                saved["settings"] |= {k: trained[k] for k in ("context_products", "context_tokens", "max_new_tokens")}
            generator = generator or str(folder / "generator")
            embedder = embedder or str(folder / "embedder")
            adapter = adapter or (str(folder / "adapter") if saved.get("adapter") else None)
            reranker = reranker or (str(folder / "reranker") if saved.get("reranker") else None)
            if settings is None:
                settings = AnswerSettings.from_dict(saved["settings"])
            folder = folder / "index"
        index = open_index(folder, verify)
        encoder, source = own_embedder(index, folder, embedder, device, dtype)
        say(f"embedder {source}, {encoder.device}, {encoder.dtype}")
        index.dense.use(encoder.device)
        return cls(
            index,
            encoder,
            embedder_source=source,
            generator=generator or _base_of(adapter),
            adapter=adapter,
            reranker=reranker,
            device=device,
            dtype=dtype,
            settings=settings,
        )

    @property
    def generator(self) -> Generator:
        """The generator, loaded on first use.

        Raises:
            ModelError: it cannot be found or loaded.
        """
        with self._loading:
            if self._generator is None:
                try:
                    model, tokenizer, source = models.load_generator(
                        self._generator_name, self._device, self._dtype, adapter=self._adapter
                    )
                except ModelError as error:
                    if self.trained is None or self.trained.merged:
                        raise
                    raise ModelError(
                        f"{error} (the base model {self._adapter} was trained on is {self.trained.base['name']}; if it "
                        "moved, name it with --generator)"
                    ) from error
                if self.trained and not self.trained.merged:
                    self.trained.check_base(source)
                say(f"generator {source}, {models.describe(model)}")
                choice = self.trained.choice if self.trained and self.trained.mode == "retrieval" else None
                self._generator, self.generator_source = Generator(model, tokenizer, choice), source
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
        """
        return self.ask_many([question], **settings)[0]

    def ask_many(self, questions: Sequence[str], **settings: Any) -> list[Answer]:
        """Answer questions, in their order; prompts are read in batches of like length."""
        if isinstance(questions, str):
            raise InputError("ask_many takes a list of questions; for one question call ask")
        use = AnswerSettings.from_dict(self.settings.to_dict() | settings) if settings else self.settings
        started = time.perf_counter()
        least, load = self._least(use), {}
        if use.rerank_depth and self._reranker is None and self.reranker is not None:
            load["load"] = (time.perf_counter() - started) / max(len(questions), 1)
            started = time.perf_counter()
        found = self.retriever.retrieve(
            questions,
            max(use.top_k, use.context_products),
            use.max_question_chars,
            fusion=use.fusion,
            lexical=use.lexical,
            reranker=self._reranker,
            rerank_depth=use.rerank_depth,
        )
        retrieve = (time.perf_counter() - started) / max(len(questions), 1)
        return self._answer(found, use, least, {"retrieve": retrieve} | load)

    def answer(self, found: Sequence[Retrieval], **settings: Any) -> list[Answer]:
        """Answer questions from candidates that were retrieved before; for evaluation.

        Args:
            found: as `self.retriever.retrieve` gives them.
            settings: overrides of `AnswerSettings`.
        """
        use = AnswerSettings.from_dict(self.settings.to_dict() | settings) if settings else self.settings
        return self._answer(found, use, self._least(use), {"retrieve": 0.0})

    def _least(self, use: AnswerSettings) -> float:
        """The probability below which nothing is answered."""
        if use.precision is None:
            return use.min_confidence
        # An adapter's own probability is calibrated: of answers that are all surer than this, at least so many are right.
        return use.precision if self._mode() == "retrieval" else self.index.confidence.threshold(use.precision)

    def _answer(
        self, found: Sequence[Retrieval], use: AnswerSettings, least: float, share: dict[str, float]
    ) -> list[Answer]:
        judges = self._mode() == "retrieval"  # the adapter judges candidates itself
        answerable = [i for i, r in enumerate(found) if (r.candidates if judges else r.confidence >= least)]
        started = time.perf_counter()
        if answerable and self._generator is None and use.decoding != "copy":
            _ = self.generator
            share["load"] = share.get("load", 0.0) + (time.perf_counter() - started) / len(found)
        loaded = time.perf_counter()
        written = self._write([found[i] for i in answerable], use)
        generate = (time.perf_counter() - loaded) / max(len(answerable), 1)
        answers = [abstention(r, use, share) for r in found]
        for i, (prompt, draft) in zip(answerable, written, strict=True):
            if draft.confidence is not None and draft.confidence < least:
                answers[i] = replace(answers[i], confidence=round(draft.confidence, 4), prompt=prompt.text)
                continue
            told = share | {"generate": generate}
            answers[i] = reply(answers[i], found[i], use.top_k, (prompt, draft), told)
        return answers

    def _write(self, found: Sequence[Retrieval], use: AnswerSettings) -> list[tuple[Prompt, Draft]]:
        """Prompts and answers, in order; computed in batches of like length."""
        if not found:
            return []
        if use.decoding == "copy":
            choice = self.trained.choice if self.trained and self._mode() == "retrieval" else None
            return [copied(r, min(use.context_products, MOST), choice) for r in found]
        generator = self.generator
        builder = self._builder(generator, use, self.trained.template if self.trained else None)
        plain = self._mode() == "plain"
        shown = 0 if plain else min(use.context_products, MOST) if generator.choice else use.context_products
        prompts = [builder.build(r.question, r.candidates[:shown]) for r in found]
        foreign = self._adapter is not None and self.trained is None
        free = use.decoding == "free" or plain or (use.decoding == "auto" and foreign)
        write = generator.free if free else generator.extractive
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids))
        drafts: dict[int, Draft] = {}
        for start in range(0, len(order), use.batch_size):
            rows = order[start : start + use.batch_size]
            written = write([prompts[i] for i in rows], use.max_new_tokens, [found[i] for i in rows])
            drafts |= zip(rows, written, strict=True)
        return [(prompt, drafts[i]) for i, prompt in enumerate(prompts)]

    def _mode(self) -> str:
        """How an adapter of ragqa's is asked: "plain" or "retrieval"; "" where there is none."""
        return self.trained.mode if self.trained else ""

    @staticmethod
    def _builder(generator: Generator, use: AnswerSettings, template: PromptTemplate | None) -> PromptBuilder:
        limit = use.context_tokens
        if generator.max_positions is not None:
            # An adapter's number, its bracket and the end stand beside the text.
            beside = 4 if generator.choice else 0
            limit = min(limit, generator.max_positions - use.max_new_tokens - beside)
        if limit < 64:
            raise ModelError(
                f"the generator reads {generator.max_positions} tokens, which leaves {limit} for the prompt besides "
                f"{use.max_new_tokens} for the answer; lower --max-new-tokens, or choose another generator"
            )
        return PromptBuilder(generator.tokenizer, template, max_tokens=limit)

    def save_pretrained(self, folder: str | Path) -> None:
        """Save everything that answering needs: index, embedder, generator, adapter, reranker, settings.

        The folder appears whole or not at all; a saved Answerer that was there before is replaced.

        Raises:
            InputError: the folder holds something else, or this Answerer was made from parts.
            StorageError: it cannot be written.
        """
        source, _, _ = self.embedder_source, self.generator, self.reranker
        if source is None or self.generator_source is None:
            raise InputError("this Answerer was made from parts, not by from_pretrained; it cannot be saved")
        template = self.trained.template if self.trained else PromptTemplate()
        adapter = Path(self._adapter) if self._adapter else None
        save(
            Path(folder).resolve(),
            self.index,
            source,
            self.generator_source,
            adapter,
            self.reranker_source,
            template,
            self.settings,
        )

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Save to the Hub as a model repository; `from_pretrained(repo_id)` opens it.

        Returns:
            The address of the commit.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(Path(folder) / "answerer")
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=Path(folder) / "answerer", commit_message="Save a ragqa Answerer"
            )
        return str(commit.commit_url)


def _as_trained(trained: Adapter | None) -> AnswerSettings:
    if trained is None:
        return AnswerSettings()
    return AnswerSettings(
        context_products=trained.context_products,
        context_tokens=trained.context_tokens,
        max_new_tokens=trained.max_new_tokens,
    )


def _base_of(adapter: str | None) -> str:
    """The base model that an adapter of ragqa's was trained on; the default for others."""
    trained = read_adapter(adapter) if adapter else None
    return str(trained.base["name"]) if trained else models.DEFAULT_GENERATOR
