"""``--dtype int8``: the embedder's 8-bit form for this catalogue, and what it costs, measured on titles it was not made on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ragqa import models
from ragqa.catalogue.store import ProductStore
from ragqa.errors import ModelError
from ragqa.index.tune import made_questions
from ragqa.progress import say
from ragqa.records import Product
from ragqa.retrieval.embed import Embedder, SentenceEmbedder
from ragqa.retrieval.int8 import CALIBRATED, Int8Embedder, bert_of, import_openvino, quantise

FORMAT: Final = "int8"
_MODEL: Final = "int8.xml"
_MEASURED: Final = 1000


@dataclass(frozen=True, slots=True)
class Loss:
    """What 8 bits cost.

    Attributes:
        titles: how many it was measured on.
        cosine, least_cosine: of their vectors with those of the embedder's usual format: the mean and the least.
        recall_at_1: share of questions, made from the titles, whose title is the nearest of all of them.
        recall_at_1_before: the same with titles in the usual format.
    """

    titles: int
    cosine: float
    least_cosine: float
    recall_at_1: float
    recall_at_1_before: float

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {name: round(value, 5) for name, value in asdict(self).items()}

    def line(self) -> str:
        """For the screen."""
        return (
            f"int8: cosine {self.cosine:.4f} to the usual format, {self.least_cosine:.4f} at least; of {self.titles:,} "
            f"made questions {self.recall_at_1:.1%} find their title first, {self.recall_at_1_before:.1%} before"
        )


def check(encoder: SentenceEmbedder) -> None:
    """Refuse what cannot be done before a catalogue is read.

    Raises:
        MissingDependencyError: OpenVINO or NNCF is not installed.
        ModelError: the embedder is no BERT on a CPU.
    """
    import_openvino()
    bert_of(encoder)


def quantised(
    embedder: str, encoder: SentenceEmbedder, store: ProductStore, folder: Path, seed: int
) -> tuple[Int8Embedder, Loss]:
    """The encoder in 8 bits, made of some of the titles, or as an interrupted build left it, and its loss on others.

    Args:
        embedder: the model's name or folder.
        encoder: the same model in its usual format.
        store: the products.
        folder: where the 8-bit model is written, and found again.
        seed: chooses the titles.
    """
    random_ = random.Random(f"int8 {seed}")  # noqa: S311  (not for secrets)
    rows = random_.sample(range(len(store)), min(len(store), CALIBRATED + _MEASURED))
    products = [store[row] for row in rows]
    calibrating = min(CALIBRATED, (len(rows) + 1) // 2)
    path = folder / _MODEL
    if not path.exists():
        say(f"an 8-bit form of the embedder, by {calibrating:,} of the titles")
        model, _ = models.load_embedder(embedder, "cpu", "float32")
        quantise(model, encoder, [product.title for product in products[:calibrating]], path)
    fast = Int8Embedder(encoder, path)
    found = loss(encoder, fast, products[calibrating:] or products, seed)
    say(found.line())
    return fast, found


def loss(encoder: Embedder, fast: Embedder, products: Sequence[Product], seed: int) -> Loss:
    """What one encoder's titles lose against another's."""
    titles = [product.title for product in products]
    before, after = encoder.embed_titles(titles), fast.embed_titles(titles)
    cosines = (before * after).sum(1)
    asked = encoder.embed_questions(made_questions(products, seed))
    right = [float(((asked @ made.T).argmax(1) == np.arange(len(titles))).mean()) for made in (after, before)]
    return Loss(len(titles), float(cosines.mean()), float(cosines.min()), *right)


def usual_format(dtype: str, device: str) -> str:
    """The format in which questions are embedded, for one that is asked for.

    Raises:
        ModelError: 8 bits are asked for on a GPU.
    """
    if dtype != FORMAT:
        return dtype
    if models.choose_device(device) != "cpu":
        raise ModelError("--dtype int8 is for a CPU; add --device cpu, or leave it out")
    return "auto"
