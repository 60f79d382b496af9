"""The question's way, whole: retrieve, judge, prompt, generate, give the sources."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from ragqa import models
from ragqa.errors import IndexDamagedError, IndexMismatchError, IndexNotFoundError, InputError, ModelError
from ragqa.files import HashingFile, copy_folder, storage_errors, sync_folder, write_json
from ragqa.generation.decode import Draft, Generator
from ragqa.generation.prompt import Prompt, PromptBuilder, PromptTemplate
from ragqa.index.storage import CURRENT, MANIFEST, ProductIndex, Verify, open_index
from ragqa.progress import say
from ragqa.records import Answer, Candidate, Language, Retrieval, Source
from ragqa.retrieval.embed import Embedder, SentenceEmbedder
from ragqa.retrieval.retriever import Retriever
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
_SAVED: Final = "answerer.json"
_SAVED_FORMAT: Final = 1


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
        device: str = "auto",
        dtype: str = "auto",
        settings: AnswerSettings | None = None,
    ) -> None:
        self.index = index
        self.settings = settings or AnswerSettings()
        self.embedder_source = embedder_source
        self.generator_source: models.ModelSource | None = None
        self._retriever = Retriever(index.store, index.dense, index.titles, embedder, index.confidence)
        self._generator_name, self._adapter = generator, adapter
        self._device, self._dtype = device, dtype
        self._generator: Generator | None = None
        self._loading = threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        generator: str | None = None,
        adapter: str | None = None,
        embedder: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        settings: AnswerSettings | None = None,
        verify: Verify = "auto",
    ) -> Answerer:
        """Open an index, a saved Answerer, or one on the Hub.

        Args:
            path: an index folder, a folder written by `save_pretrained`, or a Hub id ``owner/name``.
            generator: a causal language model (Hub id or folder); None takes the saved one or the default.
            adapter: a folder with a LoRA adapter for it.
            embedder: where the encoder that built the index lies now; None takes it by its name.
            device, dtype: "auto", or as in ``--device`` and ``--dtype``.
            settings: how questions are answered.
            verify: how thoroughly the index is checked, see `ragqa.open_index`.

        Raises:
            IndexNotFoundError, IndexMismatchError, IndexDamagedError: the index cannot be used.
            ModelError: the embedder cannot be found. (The generator is loaded when first needed.)
        """
        folder = Path(path)
        if not folder.exists() and models.is_hub_id(str(path)):
            folder = models.fetch_folder(str(path))
        saved: dict[str, Any] = {}
        if (folder / _SAVED).exists():
            saved = _read_saved(folder / _SAVED)
            generator = generator or str(folder / "generator")
            embedder = embedder or str(folder / "embedder")
            adapter = adapter or (str(folder / "adapter") if saved.get("adapter") else None)
            settings = settings or AnswerSettings.from_dict(saved["settings"])
            folder = folder / "index"
        index = open_index(folder, verify)
        wanted = index.manifest["embedder"]
        try:
            model, source = models.load_embedder(embedder or wanted["name"], device, dtype)
        except ModelError as error:
            raise ModelError(
                f"{error} (the embedder {folder} was built with; if it moved, name it with --embedder)"
            ) from error
        for what in ("weights", "config"):
            has = getattr(source, f"{what}_sha256")
            if has != wanted[f"{what}_sha256"]:
                raise IndexMismatchError(
                    f"{folder} was built with the embedder {wanted['name']} ({what} {wanted[f'{what}_sha256'][:12]}), but "
                    f"{source} was found ({what} {has[:12]}); name the right one with --embedder, or build the index anew"
                )
        say(f"embedder {source}, {models.describe(model)}")
        return cls(
            index,
            SentenceEmbedder(model),
            embedder_source=source,
            generator=generator or models.DEFAULT_GENERATOR,
            adapter=adapter,
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
                model, tokenizer, source = models.load_generator(
                    self._generator_name, self._device, self._dtype, adapter=self._adapter
                )
                say(f"generator {source}, {models.describe(model)}")
                self._generator, self.generator_source = Generator(model, tokenizer), source
            return self._generator

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
        top_k = max(use.top_k, use.context_products)
        found = self._retriever.retrieve(questions, top_k, use.max_question_chars)
        retrieved = time.perf_counter()
        answerable = [i for i, r in enumerate(found) if r.confidence >= use.min_confidence]
        share = {"retrieve": (retrieved - started) / max(len(questions), 1)}
        if answerable and self._generator is None:
            _ = self.generator
            share["load"] = (time.perf_counter() - retrieved) / len(questions)
        loaded = time.perf_counter()
        written = self._write([found[i] for i in answerable], use)
        generate = (time.perf_counter() - loaded) / max(len(answerable), 1)
        answers = [_abstain(r, use, share) for r in found]
        for i, (prompt, draft) in zip(answerable, written, strict=True):
            answers[i] = _answer(answers[i], found[i], use.top_k, (prompt, draft), share | {"generate": generate})
        return answers

    def _write(self, found: Sequence[Retrieval], use: AnswerSettings) -> list[tuple[Prompt, Draft]]:
        """Prompts and answers, in order; computed in batches of like length."""
        if not found:
            return []
        generator = self.generator
        builder = self._builder(generator, use)
        prompts = [builder.build(r.question, r.candidates[: use.context_products]) for r in found]
        mode = use.decoding if use.decoding != "auto" else ("free" if self._adapter else "extractive")
        write = generator.free if mode == "free" else generator.extractive
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids))
        drafts: dict[int, Draft] = {}
        for start in range(0, len(order), use.batch_size):
            rows = order[start : start + use.batch_size]
            drafts |= zip(rows, write([prompts[i] for i in rows], use.max_new_tokens), strict=True)
        return [(prompt, drafts[i]) for i, prompt in enumerate(prompts)]

    @staticmethod
    def _builder(generator: Generator, use: AnswerSettings) -> PromptBuilder:
        limit = use.context_tokens
        if generator.max_positions is not None:
            limit = min(limit, generator.max_positions - use.max_new_tokens)
        if limit < 64:
            raise ModelError(
                f"the generator reads {generator.max_positions} tokens, which leaves {limit} for the prompt besides "
                f"{use.max_new_tokens} for the answer; lower --max-new-tokens, or choose another generator"
            )
        return PromptBuilder(generator.tokenizer, max_tokens=limit)

    def save_pretrained(self, folder: str | Path) -> None:
        """Save everything that answering needs: index, embedder, generator, adapter, settings.

        The folder appears whole or not at all; a saved Answerer that was there before is replaced.

        Raises:
            InputError: the folder holds something else.
            StorageError: it cannot be written.
        """
        path = Path(folder).resolve()
        if path.exists() and not (path / _SAVED).exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"{path}: holds something else than a saved Answerer; choose an empty folder")
        source, _ = self.embedder_source, self.generator
        if source is None or self.generator_source is None:
            raise InputError("this Answerer was made from parts, not by from_pretrained; it cannot be saved")
        with storage_errors(path):
            path.absolute().parent.mkdir(parents=True, exist_ok=True)
            new = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.absolute().parent))
            try:
                generation = self.index.folder
                if not (generation / MANIFEST).exists():
                    raise IndexNotFoundError(f"{generation}: was replaced since it was opened; open the index anew")
                copy_folder(generation, new / "index" / generation.name)
                with HashingFile(new / "index" / CURRENT) as file:
                    file.write(f"{generation.name}\n".encode())
                source.copy_to(new / "embedder")
                self.generator_source.copy_to(new / "generator")
                if self._adapter:
                    copy_folder(Path(self._adapter), new / "adapter")
                write_json(
                    new / _SAVED,
                    {
                        "format_version": _SAVED_FORMAT,
                        "embedder": source.to_dict(),
                        "generator": self.generator_source.to_dict(),
                        "adapter": bool(self._adapter),
                        "prompt": asdict(PromptTemplate()),
                        "settings": self.settings.to_dict(),
                    },
                )
                new.chmod(0o755)
                if path.exists():
                    old = path.with_name(f".{path.name}.old")
                    shutil.rmtree(old, ignore_errors=True)
                    path.rename(old)
                    try:
                        new.rename(path)
                    except BaseException:
                        old.rename(path)
                        raise
                    shutil.rmtree(old, ignore_errors=True)
                else:
                    new.rename(path)
                sync_folder(path.absolute().parent)
            finally:
                shutil.rmtree(new, ignore_errors=True)

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


def _read_saved(file: Path) -> dict[str, Any]:
    try:
        saved = json.loads(file.read_text("utf-8"))
        version = saved["format_version"]
        saved["settings"].items()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise IndexDamagedError(f"{file}: not a saved Answerer; save it anew with save_pretrained") from error
    if version != _SAVED_FORMAT:
        raise IndexMismatchError(f"{file}: saved in format {version!r}; this ragqa reads format {_SAVED_FORMAT}")
    return dict(saved)


def _sources(candidates: Sequence[Candidate], cited: Candidate | None = None) -> tuple[Source, ...]:
    return tuple(
        Source(c.product.id, c.product.title, c.product.description, round(c.score, 4), c.exact, c is cited)
        for c in candidates
    )


def _abstain(found: Retrieval, use: AnswerSettings, timings: dict[str, float]) -> Answer:
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


def _answer(
    abstained: Answer, found: Retrieval, top_k: int, written: tuple[Prompt, Draft], timings: dict[str, float]
) -> Answer:
    prompt, draft = written
    cited = prompt.shown[draft.chosen].candidate if draft.chosen is not None else None
    if cited is None:
        cited = next((c for c in found.candidates if draft.text and draft.text in c.product.description), None)
    # What was cited is always among the sources, also where top_k is smaller than the context.
    listed = list(found.candidates[:top_k])
    if cited is not None and cited not in listed:
        listed[-1] = cited
    return replace(
        abstained,
        text=draft.text,
        sources=_sources(listed, cited),
        abstained=False,
        several=False,
        timings=timings | {"total": sum(timings.values())},
        prompt=prompt.text,
    )
