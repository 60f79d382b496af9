"""Fine-tuning an index's own sentence encoder on questions about its catalogue.

index -> split and questions -> pairs with hard negatives -> contrastive training -> recalls before and after ->
a sentence-transformers folder with a manifest and a card.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ragqa import models
from ragqa.errors import InputError
from ragqa.files import replacing, sha256_of, storage_errors, write_json, write_json_lines
from ragqa.folders import replace_folder
from ragqa.index.embedder import own_embedder
from ragqa.index.lock import writing_lock
from ragqa.index.storage import ProductIndex, open_index
from ragqa.models.source import quiet
from ragqa.progress import progress_bar, say
from ragqa.records import Product
from ragqa.retrieval.embed import SentenceEmbedder
from ragqa.retrieval.question import parse_question
from ragqa.training.checkpoints import steps_of
from ragqa.training.device import vectors_dtype, where_to_compute
from ragqa.training.documents import open_to_readers
from ragqa.training.embedder_card import card
from ragqa.training.pairs import Pair, RetrieverTrainingSettings, make_pairs
from ragqa.training.processes import one_process
from ragqa.training.recall import DEPTHS, WAYS, change, rank_titles, recalls, searched_rows
from ragqa.training.splits import Split, make_split, write_split
from ragqa.training.workplace import MANIFEST, begin, check_out, check_space, fresh, leave, work_folder
from ragqa.versions import installed_versions

FORMAT_VERSION: Final = 1
KIND: Final = "ragqa embedder"
_METRICS: Final = "metrics.jsonl"
_CARD: Final = "README.md"
# Figures, and the set of questions each is taken from. The second is about products that training never saw.
_SETS: Final = {"validation": "validation", "unseen": "test_unseen"}
# While training goes on, each validation question is asked among its nearest titles by the encoder it began with.
_WATCHED: Final = 12
# A checkpoint has the weights and AdamW's two moments; two are kept while a third is written, then the result.
_COPIES: Final = 10
_PACKAGES: Final = ("sentence-transformers", "transformers", "torch", "accelerate", "datasets", "numpy")


@dataclass(frozen=True, slots=True)
class _Task:
    """What is trained on and measured with.

    Attributes:
        base: the encoder as it is, in the number format the index's vectors were made in.
        dtype: that number format.
    """

    index: ProductIndex
    products: Sequence[Product]
    split: Split
    row_of: Mapping[str, int]
    base: SentenceEmbedder
    dtype: str
    place: str
    bfloat16: bool
    settings: RetrieverTrainingSettings


def fine_tune_retriever(
    index: str | Path,
    out: str | Path,
    *,
    settings: RetrieverTrainingSettings | None = None,
    embedder: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train the index's own sentence encoder on (question, title) pairs made from its catalogue.

    ``build_index(catalogue, embedder=out)`` then uses it.

    Args:
        index: the index folder.
        out: the folder for the trained encoder; it appears whole or not at all.
        settings: how it is trained.
        embedder: where the encoder that built the index lies now; None takes it by its name.
        device: "auto", "cpu", "cuda" or "mps".
        dtype: number format to compute in: "auto", "float32" or "bfloat16"; the weights stay float32.
        resume: go on from the last checkpoint of the same training.
        overwrite: replace a trained encoder in `out`, and give up an unfinished training of it.

    Returns:
        The manifest; ``manifest["recalls"]`` has the figures before and after.

    Raises:
        InputError: the catalogue is too small, or `out` is taken; or `resume` finds nothing, or another training.
        IndexNotFoundError, IndexMismatchError, IndexDamagedError: the index cannot be used.
        ModelError: the embedder cannot be found, or the device is not there.
        StorageError, BusyError: `out` cannot be written, or another process is training there.
    """
    started = time.perf_counter()
    one_process("fine-tune-retriever")
    use, path = settings or RetrieverTrainingSettings(), Path(out)
    check_out(path, KIND, resume, overwrite)
    place, bfloat16 = where_to_compute(device, dtype)
    opened = open_index(index)
    base, source = own_embedder(opened, Path(index), embedder, place, vectors_dtype(opened, place))
    if path.exists() and path.resolve() == source.folder.resolve():
        raise InputError(f"{path}: the index was built with the embedder in this folder; choose another --out")
    say(f"embedder {source}, {base.device}, {base.dtype}")
    products = list(opened.store)
    split = make_split(products, use.split())
    row_of = {product.id: row for row, product in enumerate(products)}
    task = _Task(opened, products, split, row_of, base, base.dtype, place, bfloat16, use)
    pairs = make_pairs(products, split, opened.dense, base, use)
    work = work_folder(path)
    with writing_lock(work):
        try:
            checkpoint = begin(work, _key(task, source), resume)
            trainee, _ = models.load_embedder(embedder or source.name, place, "float32")
            check_space(work, _COPIES * sum(4 * p.numel() for p in trainee.parameters()))
            _say_plan(task, pairs, trainee, checkpoint)
            ready = time.perf_counter()
            state = _train(task, pairs, trainee, work, checkpoint)
            trained = time.perf_counter()
            finished = fresh(work / "new")
            with quiet(), storage_errors(finished):
                trainee.save_pretrained(str(finished), create_model_card=False)
            manifest = _key(task, source) | {
                "kind": KIND,
                "base": source.to_dict(),
                "index": _about_index(opened),
                "split": {
                    name: f["sha256"] for name, f in write_split(split, products, work / "split")["files"].items()
                },
                "pairs": len(pairs),
                "parameters": sum(p.numel() for p in trainee.parameters() if p.requires_grad),
                "steps": state.global_step,
                "best_step": state.best_global_step,
                "seed": use.seed,
                "recalls": _before_and_after(task, finished),
                "weights": {
                    p.relative_to(finished).as_posix(): sha256_of(p) for p in sorted(finished.rglob("*.safetensors"))
                },
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "seconds": {
                    "prepare": round(ready - started, 1),
                    "train": round(trained - ready, 1),
                    "measure": round(time.perf_counter() - trained, 1),
                    "total": round(time.perf_counter() - started, 1),
                },
            }
            _write(finished, manifest, state.log_history, path.name)
            replace_folder(finished, path.absolute())
            shutil.rmtree(work, ignore_errors=True)
        except BaseException:
            leave(work)
            raise
    return manifest


def _key(task: _Task, source: models.ModelSource) -> dict[str, Any]:
    """What a training depends on: the same gives the same weights on one machine's CPU."""
    return {
        "format_version": FORMAT_VERSION,
        "content_sha256": task.index.manifest.get("content_sha256"),
        "embedder_sha256": source.weights_sha256,
        "settings": task.settings.to_dict() | {"kinds": list(task.settings.kinds)},
        "device": task.place,
        "dtype": "bfloat16" if task.bfloat16 else "float32",
        "versions": installed_versions(_PACKAGES),
    }


def _about_index(index: ProductIndex) -> dict[str, Any]:
    catalogue = index.manifest.get("catalogue") or {}
    return {
        # Folders of this machine are nobody else's business.
        "catalogue": Path(str(catalogue.get("name", ""))).name,
        "catalogue_sha256": catalogue.get("sha256"),
        "content_sha256": index.manifest.get("content_sha256"),
        "products": len(index),
    }


def _say_plan(task: _Task, pairs: Sequence[Pair], model: Any, checkpoint: Path | None) -> None:
    from ragqa.training.contrastive import seconds_a_step

    use = task.settings
    done = steps_of(checkpoint) if checkpoint else 0
    seconds = (use.steps - done) * seconds_a_step(model, pairs, use.batch_size, task.bfloat16)
    say(
        f"{len(pairs):,} pairs, {use.steps:,} steps of {use.batch_size}{f', {done:,} of them done' if done else ''}, "
        f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,} trainable parameters, {model.device}, "
        f"{'bfloat16' if task.bfloat16 else 'float32'}: about {seconds / 60:.1f} minutes, and measuring"
    )


def _train(task: _Task, pairs: Sequence[Pair], model: Any, work: Path, checkpoint: Path | None) -> Any:
    """Train `model`, which ends with its best weights; returns the trainer's state."""
    from ragqa.training.contrastive import train

    asked = task.split.questions["validation"]
    subjects = [parse_question(question.text).subject for question in asked]
    _, near = task.index.dense.search(task.base.embed_questions(subjects), _WATCHED)
    held_out = set(task.split.rows["absent"])
    rows = sorted(set(near.ravel().tolist()) - held_out | {task.row_of[q.product_id or ""] for q in asked})
    watched = [task.products[row] for row in rows]

    def measure(trained: Any) -> dict[str, float]:
        encoder = SentenceEmbedder(trained)
        vectors = encoder.embed_titles([product.title for product in watched])
        found = recalls(rank_titles(watched, vectors, encoder, asked))["sure"]
        whole, dense = found["retriever"]["mrr"], found["dense"]["mrr"]
        # The whole retriever decides; where it is as good as it gets, the vectors do.
        return {"mrr": whole, "dense_mrr": dense, "choice": whole + dense / 1000}

    with quiet(), storage_errors(work):
        return train(model, pairs, task.settings, measure, work, task.bfloat16, checkpoint)


def _before_and_after(task: _Task, finished: Path) -> dict[str, Any]:
    """The figures of the index's encoder and of the trained one, over the same titles in the same number format."""
    use, asked = task.settings, {name: task.split.questions[part] for name, part in _SETS.items()}
    held_out = set(task.split.rows["absent"])
    present = [row for row in range(len(task.products)) if row not in held_out]
    rows = searched_rows(present, task.row_of, [q for part in asked.values() for q in part], use.max_titles, use.seed)
    products = [task.products[row] for row in rows]
    model, _ = models.load_embedder(str(finished), task.place, task.dtype)
    encoder = SentenceEmbedder(model)
    with progress_bar("measuring", len(rows), "titles") as bar:
        vectors = encoder.embed_titles([product.title for product in products], bar.update)
    old = task.index.dense.vectors(rows)
    before = {name: rank_titles(products, old, task.base, part) for name, part in asked.items()}
    after = {name: rank_titles(products, vectors, encoder, part) for name, part in asked.items()}
    return {
        "titles": len(rows),
        "of": len(present),
        "sampled": len(rows) < len(present),
        "before": {name: recalls(ranked) for name, ranked in before.items()},
        "after": {name: recalls(ranked) for name, ranked in after.items()},
        "change": {
            name: {way: {str(k): change(before[name], after[name], way, k) for k in DEPTHS} for way in WAYS}
            for name in asked
        },
    }


def _write(folder: Path, manifest: Mapping[str, Any], history: Sequence[Mapping[str, Any]], name: str) -> None:
    write_json_lines(folder / _METRICS, history)
    with replacing(folder / _CARD) as file:
        file.write(card(manifest, name).encode())
    open_to_readers(folder)
    write_json(folder / MANIFEST, manifest)
