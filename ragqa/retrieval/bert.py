"""The BERT encoder of a sentence-transformers model, with fewer and larger operations: for a CPU.

Most small sentence encoders are BERTs. Against the general way the three products of attention's inputs are one, a text's
padding goes through no product, the activation is computed inside the product before it, and each number is brought into
16 bits once. It computes the same, which is tried when it is made; what is no such model takes the general way.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import nn

from ragqa.models.precision import Product

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Texts on which the model and this are compared: long and short, with capitals and accents, as questions and titles.
_TRIED: Final = (
    "lamp",
    "Rede de Dormir Casal Maracatu, Azul 4.20 x 1.60 m, com varanda de crochê e punho reforçado",
    "LT-350 headlamp",
)
_AS_NEAR: Final = 0.9995
_VECTOR: Final = 16
# Products of few rows, as of one question, have a multiple of so many: for each number of rows that it meets oneDNN makes
# programs, which takes milliseconds and 2 MB.
_FEW_ROWS: Final = 64
_STEP: Final = 4
_POOLING: Final = {"mean": "mean", "cls": "cls", "mean_tokens": "mean", "cls_token": "cls"}
_PROMPTS: Final = {"document": ("document", "passage", "corpus"), "query": ("query",)}


class BertEncoder:
    """Token ids -> sentence vectors. Made by `fused` or `read_bert`.

    Args:
        weights: name in `transformers` -> the model's weights of that name.
        config: its ``config.json``.
        mean: whether a text's vector is the mean of its tokens', or that of its first.
        encode: texts -> token ids, as the model reads them.
        prompts: what goes before a text, by "document" and "query".
    """

    def __init__(
        self,
        weights: Callable[[str], torch.Tensor],
        config: Mapping[str, Any],
        mean: bool,
        encode: Callable[[list[str]], list[list[int]]],
        prompts: Mapping[str, str | None],
    ) -> None:
        self._encode_texts, self._mean = encode, mean
        heads, self._eps = int(config["num_attention_heads"]), float(config["layer_norm_eps"])
        self.prompts = {
            kind: next((prompt for name in names if (prompt := prompts.get(name))), "")
            for kind, names in _PROMPTS.items()
        }
        words, places, types, scale, shift = (
            weights(f"embeddings.{name}").detach()
            for name in (
                "word_embeddings.weight",
                "position_embeddings.weight",
                "token_type_embeddings.weight",
                "LayerNorm.weight",
                "LayerNorm.bias",
            )
        )
        self._words, self._places, self._norm = words, places + types[0], (scale, shift)
        self._layers = [
            _Layer(weights, f"encoder.layer.{number}.", heads, self._eps)
            for number in range(int(config["num_hidden_layers"]))
        ]
        self.dtype = str(self._layers[0].dtype).removeprefix("torch.")

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._words.shape[1])

    def tokens(self, texts: Sequence[str], kind: str) -> list[list[int]]:
        """Token ids of texts, as the model reads them.

        Args:
            kind: "document" or "query".
        """
        return self._encode_texts([self.prompts[kind] + text for text in texts])

    def encode(self, ids: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Vectors (len(ids), dimension) in float32, not of unit length."""
        with torch.inference_mode():
            found: npt.NDArray[np.float32] = self._encode(ids).numpy()
            return found

    def _encode(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        flat = [token for one in ids for token in one]
        spare = -len(flat) % _STEP if len(flat) <= _FEW_ROWS else 0
        places = torch.tensor([place for one in ids for place in range(len(one))] + [0] * spare)
        hidden = self._words[torch.tensor(flat + [0] * spare)] + self._places[places]
        hidden = nn.functional.layer_norm(hidden, hidden.shape[1:], *self._norm, self._eps)
        runs = _runs(ids)
        seen = torch.zeros(hidden.shape, dtype=self._layers[0].dtype)
        for layer in self._layers:
            hidden = layer(hidden, runs, seen)
        texts = [run.of(hidden) for run in runs]
        return torch.cat([one.mean(1) if self._mean else one[:, 0] for one in texts])


class _Run(NamedTuple):
    """Texts of one length that follow each other.

    Their attention has no padding and no mask, so that a text's comes out the same whatever other texts there are.
    """

    first: int  # row of the first text's first token
    texts: int
    length: int

    def of(self, rows: torch.Tensor) -> torch.Tensor:
        """(rows, n) -> a view (texts, length, n) of the rows of these texts."""
        return rows[self.first : self.first + self.texts * self.length].view(self.texts, self.length, -1)


def _runs(ids: Sequence[Sequence[int]]) -> list[_Run]:
    found: list[_Run] = []
    first = 0
    for length, group in groupby(map(len, ids)):
        found.append(_Run(first, sum(1 for _ in group), length))
        first += found[-1].texts * length
    return found


class _Layer:
    def __init__(self, weights: Callable[[str], torch.Tensor], prefix: str, heads: int, eps: float) -> None:
        def of(name: str) -> tuple[torch.Tensor, torch.Tensor]:
            return weights(f"{prefix}{name}.weight").detach(), weights(f"{prefix}{name}.bias").detach()

        parts = [of(f"attention.self.{name}") for name in ("query", "key", "value")]
        self.dtype = parts[0][0].dtype
        weight, bias = (torch.cat(some) for some in zip(*parts, strict=True))
        self._inputs = Product(weight, bias, steady=True)
        self._attended = Product(*of("attention.output.dense"), steady=True)
        self._down = Product(*of("output.dense"), steady=True)
        self._up = Product(*of("intermediate.dense"), gelu=True, steady=True)
        self._norms = of("attention.output.LayerNorm"), of("output.LayerNorm")
        self._heads, self._eps = heads, eps

    def __call__(self, hidden: torch.Tensor, runs: Sequence[_Run], seen: torch.Tensor) -> torch.Tensor:
        """(rows, n) -> the same; `seen`, of that shape, is written over."""
        inputs = self._inputs(hidden)
        for run in runs:
            self._attend(run.of(inputs), run.of(seen))
        hidden = self._normed(self._attended(seen), hidden, 0)
        return self._normed(self._down(self._up(hidden)), hidden, 1)

    def _attend(self, inputs: torch.Tensor, seen: torch.Tensor) -> None:
        count, length, _ = inputs.shape
        # Copied into the order of the products below, which would otherwise each copy them for itself.
        ordered = inputs.view(count, length, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        queries, keys, values = torch.empty(ordered.shape).copy_(ordered)
        weights = torch.matmul(queries, keys.transpose(-1, -2)).mul_(queries.shape[-1] ** -0.5)
        seen.view(count, length, self._heads, -1).copy_(torch.matmul(_softmax(weights), values).transpose(1, 2))

    def _normed(self, found: torch.Tensor, before: torch.Tensor, number: int) -> torch.Tensor:
        return nn.functional.layer_norm(before + found, before.shape[1:], *self._norms[number], self._eps)


def _softmax(weights: torch.Tensor) -> torch.Tensor:
    if weights.shape[-1] >= _VECTOR:
        return weights.softmax(-1)
    # torch's own takes five times as long as this on rows that do not fill a register of the processor.
    weights = (weights - weights.amax(-1, keepdim=True)).exp_()
    return weights.div_(weights.sum(-1, keepdim=True))


def fused(model: SentenceTransformer) -> BertEncoder | None:
    """The encoder of a loaded model, if that is a BERT on a CPU whose vectors this computes; otherwise None."""
    try:
        names = [type(module).__name__ for module in model]
        bert: Any = model[0].auto_model
        config = bert.config.to_dict()
        pooling = str(model[1].pooling_mode)
        if model.device.type != "cpu" or type(bert).__name__ != "BertModel" or not _is_plain(names, config, pooling):
            return None
        tokenizer, most = model.tokenizer, model.max_seq_length

        def encode(texts: list[str]) -> list[list[int]]:
            ids: list[list[int]] = tokenizer(texts, truncation=most is not None, max_length=most)["input_ids"]
            return ids

        encoder = BertEncoder(bert.state_dict().__getitem__, config, pooling == "mean", encode, model.prompts)
        return encoder if _same(encoder, model) else None
    except (AttributeError, KeyError, TypeError, RuntimeError):
        return None  # another release may have other parts under these names: the general way is right everywhere


def read_bert(folder: Path, dtype: torch.dtype) -> BertEncoder | None:
    """The encoder in a sentence-transformers folder, without that library, which takes seconds to import.

    Args:
        folder: of a model that `fused` took before: what it computes is not compared here.
        dtype: number format of the matrix products.

    Returns:
        None where the files are not as this knows them.
    """
    try:
        modules = json.loads((folder / "modules.json").read_text("utf-8"))
        config = json.loads((folder / "config.json").read_text("utf-8"))
        names = [module["type"].rpartition(".")[2] for module in modules]
        pooling = json.loads((folder / modules[1]["path"] / "config.json").read_text("utf-8"))
        ways = [
            name.removeprefix("pooling_mode_")
            for name, on in pooling.items()
            if name.startswith("pooling_mode_") and on
        ]
        way = _POOLING.get(pooling.get("pooling_mode") or "".join(ways), "")
        if modules[0]["path"] or not _is_plain(names, config, way):
            return None
        settings = json.loads((folder / "sentence_bert_config.json").read_text("utf-8"))
        prompts = {}
        with contextlib.suppress(FileNotFoundError):
            prompts = json.loads((folder / "config_sentence_transformers.json").read_text("utf-8")).get("prompts", {})
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        if settings.get("do_lower_case") or not _as_configured(folder, json.loads(tokenizer.to_str())["normalizer"]):
            return None
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if most := settings.get("max_seq_length"):
            tokenizer.enable_truncation(most)
        encoder = BertEncoder(
            _weights(folder / "model.safetensors", dtype),
            config,
            way == "mean",
            lambda texts: [one.ids for one in tokenizer.encode_batch(texts)],
            prompts,
        )
    except Exception:  # noqa: BLE001  (`tokenizers` raises no narrower one; the library will say what is wrong)
        return None
    return encoder


def _weights(path: Path, dtype: torch.dtype) -> Callable[[str], torch.Tensor]:
    """The weights in a file, each read when it is asked for: no more than one is held in two formats at once."""

    def read(name: str) -> torch.Tensor:
        with safe_open(path, "pt") as file:
            one: torch.Tensor = file.get_tensor(name)
        if name.endswith((".dense.weight", ".dense.bias")) or ".self." in name:
            return one.to(dtype)
        # Of the largest table a question takes a few rows: it stays in the file.
        return one.float() if "word_embeddings" in name else one.float().clone()

    return read


def _is_plain(names: Sequence[str], config: Mapping[str, Any], pooling: str) -> bool:
    """Whether this is all that a model does."""
    return (
        config.get("model_type") == "bert"
        and names in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
        and pooling in ("mean", "cls")
        and config.get("hidden_act") == "gelu"
        and config.get("position_embedding_type", "absolute") in ("absolute", None)
        and not config.get("is_decoder")
    )


def _as_configured(folder: Path, normalizer: Mapping[str, Any]) -> bool:
    """Whether `transformers` would leave the tokenizer's normaliser as it stands in its file."""
    configured = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    pairs = (
        ("do_lower_case", "lowercase"),
        ("strip_accents", "strip_accents"),
        ("tokenize_chinese_chars", "handle_chinese_chars"),
    )
    return normalizer["type"] == "BertNormalizer" and all(
        configured.get(there, normalizer[here]) == normalizer[here] for there, here in pairs
    )


def _same(encoder: BertEncoder, model: SentenceTransformer) -> bool:
    texts = list(_TRIED)
    for kind, encode in (("document", model.encode_document), ("query", model.encode_query)):
        wanted = np.asarray(encode(texts, show_progress_bar=False), np.float32)
        found = encoder.encode(encoder.tokens(texts, kind))
        lengths = np.linalg.norm(wanted, axis=1) * np.linalg.norm(found, axis=1)
        if not ((wanted * found).sum(1) >= _AS_NEAR * lengths).all():
            return False
    return True
