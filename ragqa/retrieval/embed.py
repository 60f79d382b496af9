"""Texts -> unit vectors, by a sentence-transformers model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = npt.NDArray[np.float32]

# Small batches of texts of like length: measured on 2 cores, 32 is faster than 128 or 512.
_BATCH: Final = {"cpu": 32, "cuda": 512, "mps": 128}


class Embedder(Protocol):
    """What retrieval needs of a sentence encoder."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    def embed_titles(self, titles: Sequence[str], progress: Callable[[int], None] | None = None) -> Vectors:
        """Unit vectors (len(titles), dimension) in float32; `progress` is told how many more are done."""

    def embed_questions(self, questions: Sequence[str]) -> Vectors:
        """Unit vectors (len(questions), dimension) in float32."""


def unit(vectors: npt.NDArray[np.float32]) -> Vectors:
    """Each row divided by its length: the one place where vectors are normalised."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)


class SentenceEmbedder:
    """An `Embedder` over a sentence-transformers model, with its own query and passage prompts."""

    def __init__(self, model: SentenceTransformer) -> None:
        self._model = model
        dimension = model.get_embedding_dimension()
        self._dimension = int(dimension) if dimension else self.embed_questions(["a"]).shape[1]
        self._batch = _BATCH.get(str(model.device).partition(":")[0], 32)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._dimension

    def embed_titles(self, titles: Sequence[str], progress: Callable[[int], None] | None = None) -> Vectors:
        """Unit vectors (len(titles), dimension) in float32; `progress` is told how many more are done."""
        order = sorted(range(len(titles)), key=lambda row: len(titles[row]))
        vectors = np.empty((len(titles), self._dimension), np.float32)
        step = self._batch * 8
        for start in range(0, len(order), step):
            rows = order[start : start + step]
            vectors[rows] = self._model.encode_document(
                [titles[row] for row in rows], batch_size=self._batch, show_progress_bar=False
            )
            if progress:
                progress(len(rows))
        return unit(vectors)

    def embed_questions(self, questions: Sequence[str]) -> Vectors:
        """Unit vectors (len(questions), dimension) in float32."""
        return unit(
            np.asarray(self._model.encode_query(list(questions), batch_size=32, show_progress_bar=False), np.float32)
        )
