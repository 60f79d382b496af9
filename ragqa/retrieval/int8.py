"""Titles in 8 bits on a CPU, by OpenVINO: faster, and a little off (``--dtype int8``).

The matrix products' weights and inputs are integers, of ranges that NNCF finds while the model reads some of the
catalogue's own titles (post-training quantisation with SmoothQuant, Xiao et al. 2023, arXiv 2211.10438). Questions are
embedded as without it, so that answering needs neither package.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch

from ragqa.errors import MissingDependencyError, ModelError, first_line
from ragqa.files import storage_errors, sync_file, sync_folder
from ragqa.models.source import quiet
from ragqa.retrieval.bert import BertEncoder
from ragqa.retrieval.embed import SentenceEmbedder, Vectors, each_core, like_lengths, unit

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Titles that ranges are found on, so many at once.
CALIBRATED: Final = 320
_AT_ONCE: Final = 8
# Tokens in a batch: of 768 and 3,072 the first was measured to be faster, as for other formats.
_TOKENS: Final = 768


def import_openvino() -> tuple[Any, Any]:
    """The modules openvino and nncf.

    Raises:
        MissingDependencyError: one of them is not installed.
    """
    # Both report their use over the network where they can import this, and do without it where they cannot.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import nncf
        import openvino
    except ImportError as error:
        raise MissingDependencyError(
            f'--dtype int8 needs OpenVINO and NNCF ({first_line(error)}); install them: pip install "ragqa[int8]"'
        ) from error
    return openvino, nncf


class Int8Embedder:
    """An `Embedder` that embeds titles in 8 bits, and questions as another one does.

    Args:
        encoder: the other one, over a `BertEncoder`.
        path: what `quantise` wrote of the same model.
    """

    def __init__(self, encoder: SentenceEmbedder, path: Path) -> None:
        openvino, _ = import_openvino()
        self._bert, self._encoder = bert_of(encoder), encoder
        # A stream takes whole batches by itself, as each core does in other formats.
        self._streams = torch.get_num_threads()
        try:
            self._model = openvino.Core().compile_model(
                str(path), "CPU", {"NUM_STREAMS": self._streams, "INFERENCE_NUM_THREADS": self._streams}
            )
        except RuntimeError as error:
            raise ModelError(f"{path}: OpenVINO cannot compile it ({first_line(error)}); leave --dtype out") from error

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._encoder.dimension

    def embed_titles(self, titles: Sequence[str], progress: Callable[[int], None] | None = None) -> Vectors:
        """Unit vectors (len(titles), dimension) in float32; `progress` is told how many more are done."""
        tokens = self._bert.tokens(titles, "document") if titles else []
        vectors = np.empty((len(titles), self.dimension), np.float32)
        mine = threading.local()

        # Each worker waits for its own requests. OpenVINO's queue with call-backs would do, but its threads and Python's
        # were seen to wait for each other for ever when both were done.
        def embed(rows: Sequence[int]) -> None:
            if not hasattr(mine, "request"):
                mine.request = self._model.create_infer_request()
            mine.request.infer(_batch([tokens[row] for row in rows]))
            vectors[rows] = mine.request.get_output_tensor(0).data
            if progress:
                progress(len(rows))

        each_core(embed, like_lengths([len(one) for one in tokens], _TOKENS), self._streams)
        return unit(vectors)

    def embed_questions(self, questions: Sequence[str]) -> Vectors:
        """Unit vectors (len(questions), dimension) in float32."""
        return self._encoder.embed_questions(questions)


def bert_of(encoder: SentenceEmbedder) -> BertEncoder:
    """The encoder's `BertEncoder`.

    Raises:
        ModelError: it is no BERT on a CPU.
    """
    if encoder.bert is None:
        raise ModelError(
            "--dtype int8 is for BERT encoders with mean or first-token pooling on a CPU (such as all-MiniLM-L6-v2 or "
            "multilingual-e5-small); leave it out for others"
        )
    return encoder.bert


def quantise(model: SentenceTransformer, encoder: SentenceEmbedder, titles: Sequence[str], path: Path) -> None:
    """Write a model's 8-bit form, for `Int8Embedder`.

    Args:
        model: in float32, on a CPU.
        encoder: of the same model in any format.
        titles: those that ranges are found on; at most `CALIBRATED` are read.
        path: ``X.xml``; weights are written beside it, as ``X.bin``.

    Raises:
        MissingDependencyError: OpenVINO or NNCF is not installed.
        ModelError: they cannot convert this model.
        StorageError: it cannot be written.
    """
    openvino, nncf = import_openvino()
    bert, whole = bert_of(encoder), _Pooled(model).eval()
    tokens = bert.tokens(titles[:CALIBRATED], "document")
    batches = [_batch(tokens[start : start + _AT_ONCE]) for start in range(0, len(tokens), _AT_ONCE)]
    example = {name: torch.from_numpy(one) for name, one in _batch(bert.tokens(["a", "a b c"], "document")).items()}
    try:
        with _silent():
            plain = openvino.convert_model(whole, example_input=example)
            for given in plain.inputs:
                given.get_node().set_partial_shape(openvino.PartialShape([-1, -1]))
            plain.validate_nodes_and_infer_types()
            quantised = nncf.quantize(
                plain, nncf.Dataset(batches), subset_size=len(batches), model_type=nncf.ModelType.TRANSFORMER
            )
    except Exception as error:  # converting goes through three libraries, each with errors of its own
        raise ModelError(f"OpenVINO cannot make an int8 model of this one ({first_line(error)})") from error
    unfinished = path.with_name(f"unfinished-{path.name}")
    with storage_errors(path):
        openvino.save_model(quantised, str(unfinished))
        for written in (unfinished.with_suffix(".bin"), unfinished):  # an interrupted build goes on with what is there
            sync_file(written)
            written.replace(path.with_suffix(written.suffix))
        sync_folder(path.parent)


class _Pooled(torch.nn.Module):
    """Token ids -> sentence vectors, as `BertEncoder` has them."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        parts: Any = model
        self._bert = parts[0].auto_model
        self._mean = parts[1].pooling_mode == "mean"

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self._bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if not self._mean:
            return states[:, 0]
        real = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * real).sum(1) / real.sum(1)


def _batch(tokens: Sequence[Sequence[int]]) -> dict[str, npt.NDArray[np.int64]]:
    ids = np.zeros((len(tokens), max(map(len, tokens))), np.int64)
    mask = np.zeros_like(ids)
    for row, one in enumerate(tokens):
        ids[row, : len(one)] = one
        mask[row, : len(one)] = 1
    return {"input_ids": ids, "attention_mask": mask}


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep both libraries' bars and notes off the screen."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with quiet(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # torch warns of what is traced but would be false for other models
            yield
    finally:
        logger.setLevel(level)
