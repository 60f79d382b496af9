"""What the fuzzer gives its inputs to: everything that takes something from outside."""

from __future__ import annotations

import csv
import gzip
import io
import json
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.hostile_fuzz import Target
from benchmarks.hostile_texts import attacks
from ragqa.catalogue.clean import Cleaner, CleaningReport, clean_text
from ragqa.catalogue.columns import ReadOptions
from ragqa.catalogue.read import Catalogue
from ragqa.catalogue.store import ProductStore, StoreWriter
from ragqa.errors import InputError, RagqaError
from ragqa.generation.adapter import FORMAT_VERSION as ADAPTER_FORMAT
from ragqa.generation.adapter import NUMBERED, TEMPLATES, read_adapter
from ragqa.generation.choice import Choice
from ragqa.generation.completions import Completions
from ragqa.generation.provenance import explained, spans
from ragqa.generation.server import Server
from ragqa.index.generations import MANIFEST, live_generation
from ragqa.index.storage import FORMAT_VERSION, PARTS, read_manifest
from ragqa.models.load import load_tokenizer
from ragqa.models.source import ModelSource
from ragqa.models.trust import check_modules
from ragqa.records import Product, Question
from ragqa.retrieval.confidence import DEFAULT
from ragqa.retrieval.lexical import FILES, LexicalIndex, write_lexical
from ragqa.retrieval.question import parse_question
from ragqa.retrieval.rows import rows_that_are_there
from ragqa.retrieval.terms import terms
from ragqa.retrieval.text import fold, overlaps
from ragqa.saved import SAVED, Saved, read_saved
from ragqa.settings import AnswerSettings, CleaningSettings
from ragqa.training.questions import read_questions
from ragqa.training.recipe import Recipe, read_recipe

_QUESTIONS: Final = (
    "What is the description of the Lumen headlamp LT-350?", "Qual é a descrição deste produto: Rede Maracatu, Azul?",
    "¿Cuál es la descripción del producto Sartén 28 cm?", 'Hi, please: "C++ Primer" 42" TV, 32 GB', "lighthuose kitens", "?",
    "可以给我产品的描述吗", "وصف المنتج", "👩\u200d🚀 astronaut", "Please tell me more about What Is a Frog? Thanks!",
)  # fmt: skip
_PRODUCTS: Final = tuple(
    Product(
        f"P{n}", f"Lumen Trail Headlamp LT-{n}50", f"A lamp of {n}50 lumens, 92 g, 1,800 mAh; rain-proof to IPX{n}."
    )
    for n in range(6)
)


def _text(data: bytes) -> str:
    """Any text, lone surrogates among it, as JSON and terminals can give it."""
    return data.decode("utf-8", "surrogateescape" if len(data) % 5 == 0 else "replace")


def _must(right: bool, what: str) -> None:
    if not right:
        raise AssertionError(what)


def _question(data: bytes) -> None:
    asked = parse_question(_text(data))
    _must(bool(asked.subject), "no subject")
    _must(asked.readings[-1] == asked.subject, "the subject is not its last reading")
    asked.text.encode()
    terms(asked.subject)
    overlaps(asked.subject, _PRODUCTS[0].title)


def _cleaning(data: bytes) -> None:
    clean = clean_text(_text(data))
    _must(clean_text(clean) == clean, "cleaning again changes it")
    clean.encode()
    fold(clean)


def _provenance(data: bytes) -> None:
    text = _text(data)
    found = spans(text, [Product("x", "t", text[::2] + _PRODUCTS[0].description), *_PRODUCTS], "P1")
    _must("".join(text[span.start : span.stop] for span in found) == text, "spans do not cover the text")
    for span in found:
        if span.source == "x":
            source = text[::2] + _PRODUCTS[0].description
            _must(source[span.source_start : span.source_stop] == text[span.start : span.stop], "a span is no copy")
    _must("\x1b" not in explained(text, found, ["x"], False), "an escape reaches the terminal")


def _settings(data: bytes) -> None:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(values, dict):
        AnswerSettings.from_dict(values)
        CleaningSettings.from_dict(values)


def _of_file(path: Path, read: Callable[[], Any]) -> Callable[[bytes], None]:
    def takes(data: bytes) -> None:
        path.write_bytes(data)
        read()

    return takes


def _catalogue(path: Path, encoding: str = "utf-8") -> Callable[[bytes], None]:
    """Read and cleaned; what is malformed stops it or is skipped by turns."""

    def takes(data: bytes) -> None:
        path.write_bytes(data)
        options = ReadOptions(encoding=encoding, on_error="skip" if len(data) % 4 else "stop")
        for product in Cleaner(CleaningSettings(), CleaningReport()).clean(list(Catalogue(path, options).rows())):
            _must(bool(product.title), "a product without title")
            _must("\n" not in product.title + product.description, "a line break is left")

    return takes


def _replies() -> Callable[[bytes], None]:
    """A server's answers, whole and streamed."""
    completions = Completions(Server("http://127.0.0.1:9/v1", "m", retries=0))
    told: list[bytes] = []

    def attempt(*_: Any) -> Iterator[bytes]:
        yield from told

    completions._connection.attempt = attempt  # type: ignore[method-assign,assignment]
    asks: tuple[Callable[[], Any], ...] = (
        lambda: completions.complete(completions.call(), {"prompt": "p"}).encode(),
        lambda: completions.likeliest(completions.call(), "p"),
        lambda: "".join(completions.stream({"prompt": "p"})).encode(),
        lambda: completions.models(completions.call()),
    )

    def takes(data: bytes) -> None:
        half = len(data) // 2
        told[:] = [data[:half], data[half:]]
        refused = []
        for ask in asks:
            try:
                ask()
            except RagqaError as error:
                refused.append(error)
        if len(refused) == len(asks):
            raise refused[0]

    return takes


def _prompts() -> Callable[[bytes], None]:
    """Titles, descriptions and questions, for a tokenizer of each family."""
    from ragqa.generation.prompt import PromptBuilder
    from ragqa.records import Candidate
    from tests.security.families import FAMILIES, family_tokenizer

    builders = [PromptBuilder(family_tokenizer(name), NUMBERED, 3000) for name in FAMILIES]

    def takes(data: bytes) -> None:
        builder, text = builders[len(data) % len(builders)], _text(data)[:1500].encode("utf-8", "replace").decode()
        shown = [Candidate(Product("1", text[:60], text), 0, 0.5, 0.5, 0.5, False)] * 2
        prompt = builder.build(Question(text or "?", text or "?", (text or "?",), "en"), shown)
        _must(len(prompt.ids) <= builder.max_tokens, "a prompt above its limit")
        _must(
            builder._control_tokens(prompt.ids) == builder._layout(len(prompt.shown)),
            "a control token of somebody else",
        )
        read = unicodedata.normalize("NFKC", prompt.text).replace("\u200b", "")
        _must(read.count("<|im_end|>") <= prompt.text.count("<|im_end|>\n"), "a mark is left")

    return takes


def _request(data: bytes) -> None:
    """A body of the service's, as each of its kinds of request."""
    from pydantic import ValidationError

    from ragqa.serving.requests import Ask, Chat, Search

    refused = []
    for kind in (Ask, Search, Chat):
        try:
            kind.model_validate_json(data)
        except ValidationError as error:
            refused.append(error)
    if len(refused) == 3:
        raise InputError("the service answers 400 or 422")


def _lexical(folder: Path, name: str) -> Callable[[bytes], None]:
    import numpy as np

    whole, end = (folder / name).read_bytes(), 48

    def takes(data: bytes) -> None:
        if (
            data[:1] != whole[:1] or len(data) % 4
        ):  # of the size that it has to have, and of these some with the right end
            data = data[: len(whole)].ljust(len(whole), b"\xff")
            data = data[:-end] + whole[-end:] if data[len(data) // 2] % 2 else data
        (folder / name).write_bytes(data)
        try:
            index = LexicalIndex.load(folder, in_memory=True)
            with rows_that_are_there():
                rows, _ = index.search(terms("lumen trail headlamp lt-350"), 4)
                if len(rows) and int(rows.max()) >= len(_PRODUCTS):
                    raise IndexError
                index.coverage(terms("headlmp 350"), np.sort(rows))
        finally:
            (folder / name).write_bytes(whole)

    return takes


def _store(path: Path) -> Callable[[bytes], None]:
    def takes(data: bytes) -> None:
        path.write_bytes(data)
        store = ProductStore(path)
        try:
            for row in range(min(len(store), 8)):
                store[row]
            for _, batch in zip(range(2), store, strict=False):
                _must(isinstance(batch, Product), "no product")
        finally:
            store.close()

    return takes


def _tokenizer(folder: Path) -> Callable[[bytes], None]:
    source = ModelSource("fuzzed", "folder", "", folder)
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}'
    )

    def takes(data: bytes) -> None:
        (folder / "tokenizer.json").write_bytes(data)
        load_tokenizer(source)("a [1] lamp", return_offsets_mapping=True)

    return takes


def targets(folder: Path) -> list[Target]:
    """All of them.

    Args:
        folder: empty, better in memory: each input of a reader of files is written to one there.
    """
    texts = [question.encode() for question in _QUESTIONS]
    planted = [attack.text.encode()[:1500] for attack in attacks()]
    rows = [{"uid": f"{n}", "title": p.title, "content": p.description} for n, p in enumerate(_PRODUCTS)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    index, adapter, saved, words, model = (folder / name for name in ("index", "adapter", "saved", "words", "model"))
    for one in (index / "g000001", adapter, saved, words, model):
        one.mkdir(parents=True)
    (index / "CURRENT").write_text("g000001\n")
    write_lexical(_PRODUCTS, words, folder / "scratch")
    parts: dict[str, Any] = {name: (words / name).read_bytes() for name in FILES}
    seed = StoreWriter(folder / "seed.arrow")
    with seed:
        seed.add(_PRODUCTS)
    return [
        Target("questions", texts, _question, 22),
        Target("cleaning", [*texts, *planted], _cleaning, 14),
        Target("JSON lines", [lines, lines[:90]], _catalogue(folder / "c.json"), 8),
        Target("CSV", [*_separated(rows)], _catalogue(folder / "c.csv"), 8),
        Target("TSV in UTF-16", [lines.decode().encode("utf-16"), _separated(rows)[2]], _catalogue(folder / "c.tsv", "utf-16"), 4),
        Target("gzip", [gzip.compress(lines), gzip.compress(lines)[:-9]], _catalogue(folder / "c.json.gz"), 4),
        Target("Parquet", [_parquet(rows)], _catalogue(folder / "c.parquet"), 3),
        Target("index manifests", [_manifest()], _of_file(index / "g000001" / MANIFEST, lambda: read_manifest(index / "g000001")), 5),
        Target("CURRENT", [b"g000001\n", b"../x"], _of_file(index / "CURRENT", lambda: live_generation(index)), 3),
        Target("adapter manifests", [_adapter_manifest()], _of_file(adapter / "manifest.json", lambda: read_adapter(adapter)), 5),
        Target("saved answerers", [_saved()], _of_file(saved / SAVED, lambda: _opened(saved / SAVED)), 4),
        Target("settings", [json.dumps(AnswerSettings().to_dict()).encode()], _settings, 5),
        Target("recipes", [Recipe().to_toml().encode()], _of_file(folder / "r.toml", lambda: read_recipe(folder / "r.toml")), 2),
        Target("question files", [b'{"question": "a", "product_id": "P1", "kind": "exact"}\n'], _of_file(folder / "q.jsonl", lambda: list(read_questions(folder / "q.jsonl", {"P1"}))), 2),
        Target("server replies", _REPLIES, _replies(), 8),
        Target("requests", _REQUESTS, _request, 4),
        Target("prompts", [*texts, *planted], _prompts(), 1),
        Target("provenance", [p.description.encode() for p in _PRODUCTS], _provenance, 3),
        Target("product store", [(folder / "seed.arrow").read_bytes()], _store(folder / "s.arrow"), 2),
        Target("modules.json", [_MODULES], _of_file(model / "modules.json", lambda: check_modules(model, "fuzzed")), 2),
        Target("tokenizers", [_tokenizer_file()], _tokenizer(model), 1),
        *(Target(name, [data], _lexical(words, name), 1) for name, data in parts.items()),
    ]  # fmt: skip


def _opened(path: Path) -> None:
    saved = read_saved(path)
    AnswerSettings.from_dict(saved["settings"])
    vouched = Saved.of(saved, None, None, None)
    vouched.check_generator(ModelSource("a/b", "folder", "", path.parent), str(path.parent))


def _separated(rows: list[dict[str, str]]) -> list[bytes]:
    found = []
    for delimiter, head in ((",", ""), (";", "sep=;\n"), ("\t", "")):
        out = io.StringIO()
        out.write(head)
        writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows([*rows, {"uid": "9", "title": 'A "b"\nc', "content": "d, e"}])
        found.append(out.getvalue().encode())
    return found


def _parquet(rows: list[dict[str, str]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def _manifest() -> bytes:
    part = {"size": 1, "sha256": "0" * 64}
    embedder = {"name": "a/b", "weights_sha256": "0" * 64, "config_sha256": "0" * 64}
    return json.dumps(
        {
            "format_version": FORMAT_VERSION, "count": 6, "dimension": 8, "embedder": embedder,
            "dense": {"parameters": "nprobe=4"}, "parts": dict.fromkeys(PARTS, part), "confidence": DEFAULT.to_dict(),
        }
    ).encode()  # fmt: skip


def _adapter_manifest() -> bytes:
    return json.dumps(
        {
            "kind": "ragqa adapter", "format_version": ADAPTER_FORMAT, "mode": "retrieval",
            "base": {"name": "a/b", "weights_sha256": "0" * 64, "config_sha256": "0" * 64},
            "context": {"products": 3, "tokens": 1024, "max_new_tokens": 160}, "choice": Choice().to_dict(),
            "files": {"adapter_model.safetensors": {"size": 1, "sha256": "0" * 64}},
            "prompt": {"fingerprint": TEMPLATES["retrieval"].fingerprint(), "version": 2},
        }
    ).encode()  # fmt: skip


def _tokenizer_file() -> bytes:
    """A small tokenizer with all kinds of parts."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    letters = [*map(chr, range(32, 127)), "la", "lam", "lamp"]
    raw = Tokenizer(
        models.BPE({letter: n for n, letter in enumerate(letters)}, [("l", "a"), ("la", "m"), ("lam", "p")])
    )
    raw.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("x", "y")])
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Metaspace()]
    )
    raw.decoder = decoders.Metaspace()
    raw.add_special_tokens(["<pad>", "</s>"])
    raw.post_processor = processors.TemplateProcessing("$A </s>", None, [("</s>", raw.token_to_id("</s>"))])
    return str(raw.to_str()).encode()


def _saved() -> bytes:
    model = {"name": "a/b", "weights_sha256": "0" * 64, "config_sha256": "0" * 64}
    files = {"adapter_model.safetensors": {"size": 1, "sha256": "0" * 64}}
    told = {"format_version": 1, "adapter": True, "adapter_files": files, "generator": model, "reranker": None}
    return json.dumps(told | {"settings": AnswerSettings().to_dict()}).encode()


_REQUESTS: Final = (
    b'{"question": "What is the description of ...?", "stream": true, "settings": {"top_k": 3, "stop": ["x"]}}',
    b'{"questions": ["a", "b"], "settings": {"temperature": 0.5, "seed": 7, "decoding": "free"}}',
    b'{"question": "lumen headlamp", "top_k": 3}',
    b'{"model": "ragqa", "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "max_tokens": 5}',
)
_MODULES: Final = (
    b'[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}, '
    b'{"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]'
)
_REPLIES: Final = (
    b'{"choices": [{"text": " A lamp.", "finish_reason": "stop"}]}',
    b'{"choices": [{"text": "2", "logprobs": {"top_logprobs": [{"2": -0.1, "token_id:5": -1.5}]}}]}',
    b'{"choices": [{"text": "2", "logprobs": {"content": [{"top_logprobs": [{"token": "2", "logprob": -0.1, "id": 5}]}]}}]}',
    b'data: {"choices": [{"text": "A"}]}\n\ndata: {"choices": [{"text": " lamp", "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n',
    b'{"data": [{"id": "m"}]}',
    b'{"error": {"message": "no"}}',
)
