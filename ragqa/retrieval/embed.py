"""Texts -> unit vectors, by a sentence-transformers model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt

from ragqa.models import dtype_name
from ragqa.progress import say

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from ragqa.retrieval.bert import BertEncoder

Vectors = npt.NDArray[np.float32]

# Tokens in a batch. On a CPU its activations then stay in the second-level cache: of 128 to 2,048 tokens, 512 to 768 were
# measured to be fastest. A GPU wants as many as make all its cores busy.
_TOKENS: Final = {"cpu": 768, "cuda": 65536, "mps": 8192}
# Fewer batches are not worth the start of workers.
_FEW: Final = 8


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
    """An `Embedder` over a sentence-transformers model, with its own query and passage prompts.

    Titles are embedded in batches of like length. On a CPU each core takes whole batches by itself: that was measured to
    be faster than all cores on every operation, which have to wait for each other after each.
    """

    def __init__(self, model: SentenceTransformer | BertEncoder) -> None:
        from ragqa.retrieval.bert import BertEncoder, fused  # torch, which the command line's help does without

        if isinstance(model, BertEncoder):
            self._fused: BertEncoder | None = model
            self.device, self.dtype, self._dimension = "cpu", model.dtype, model.dimension
        else:
            self._model = model
            self._fused = fused(model)
            self.device, self.dtype = str(model.device), dtype_name(model)
            dimension = model.get_embedding_dimension()
            self._dimension = int(dimension) if dimension else self.embed_questions(["a"]).shape[1]
        self._tokens = _TOKENS.get(self.device.partition(":")[0], _TOKENS["cpu"])

    @property
    def bert(self) -> BertEncoder | None:
        """The model as a `BertEncoder`, which `read_bert` can read from its files, if it is one."""
        return self._fused

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._dimension

    def embed_titles(self, titles: Sequence[str], progress: Callable[[int], None] | None = None) -> Vectors:
        """Unit vectors (len(titles), dimension) in float32; `progress` is told how many more are done."""
        vectors = np.empty((len(titles), self._dimension), np.float32)
        tokens = self._fused.tokens(titles, "document") if self._fused and titles else None

        def embed(rows: Sequence[int]) -> None:
            if self._fused and tokens:
                vectors[rows] = self._fused.encode([tokens[row] for row in rows])
            else:
                vectors[rows] = self._documents([titles[row] for row in rows])
            if progress:
                progress(len(rows))

        # Four letters make a token, about, and each text has two tokens more.
        lengths = [len(one) for one in tokens] if tokens else [len(title) // 4 + 2 for title in titles]
        batches = like_lengths(lengths, self._tokens)
        workers = _cores() if self.device == "cpu" and len(batches) >= _FEW else 1
        if workers > 1:
            each_core(embed, batches, workers)
        else:
            for rows in batches:
                embed(rows)
        return unit(vectors)

    def embed_questions(self, questions: Sequence[str]) -> Vectors:
        """Unit vectors (len(questions), dimension) in float32."""
        if not self._fused:
            found = self._model.encode_query(list(questions), batch_size=32, show_progress_bar=False)
            return unit(np.asarray(found, np.float32))
        tokens = self._fused.tokens(questions, "query")
        vectors = np.empty((len(questions), self._dimension), np.float32)
        # Of few texts a batch of one length each would be too small: a product takes as long for half as many rows.
        for rows in like_lengths([len(one) for one in tokens], self._tokens, self._tokens):
            vectors[rows] = self._fused.encode([tokens[row] for row in rows])
        return unit(vectors)

    def _documents(self, titles: list[str]) -> npt.NDArray[np.float32]:
        import torch

        try:
            found = self._model.encode_document(titles, batch_size=len(titles), show_progress_bar=False)
            return np.asarray(found, np.float32)
        except torch.OutOfMemoryError:
            if len(titles) == 1:
                raise
        # Outside of `except`, which would hold on to what filled the memory.
        half = len(titles) // 2
        self._tokens = max(self._tokens // 2, 1)
        torch.cuda.empty_cache()
        say(f"the GPU's memory is full: going on with batches of half the size, {self._tokens:,} tokens")
        return np.vstack([self._documents(titles[:half]), self._documents(titles[half:])])


def like_lengths(lengths: Sequence[int], tokens: int, enough: int | None = None) -> list[list[int]]:
    """Places of texts in batches: of at most so many tokens each once padded, of one length where it makes a good batch.

    The longest come first, so that workers end together and memory runs out at once or not at all.

    Args:
        lengths: of the texts, in tokens.
        tokens: of a batch at most.
        enough: tokens of one length that make a good batch; None for a third of `tokens`.
    """
    enough = tokens // 3 if enough is None else enough
    batches: list[list[int]] = []
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        longest = lengths[batch[0]] if batch else 0
        full = (len(batch) + 1) * longest > tokens
        if batch and (full or (lengths[place] != longest and len(batch) * longest > enough)):
            batches.append(batch)
            batch = []
        batch.append(place)
    return [*batches, batch] if batch else batches


def _cores() -> int:
    import torch

    return torch.get_num_threads()


def each_core(work: Callable[[Sequence[int]], None], batches: Sequence[Sequence[int]], workers: int) -> None:
    """Do the work on all batches, each on one core."""
    import torch

    waiting, lock = iter(batches), threading.Lock()

    def worker() -> None:
        torch.set_num_threads(1)
        while True:
            with lock:
                batch = next(waiting, None)
            if batch is None:
                return
            work(batch)

    try:
        with ThreadPoolExecutor(workers) as pool:
            tasks = [pool.submit(worker) for _ in range(workers)]
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                with lock:
                    waiting = iter(())
                raise
    finally:
        torch.set_num_threads(workers)
