"""Build a product index: clean the catalogue, embed its titles, write a FAISS index with a manifest.

Interrupted, the same command goes on from the finished blocks. An index that is already there stays in
use until the new one is whole.
"""

from __future__ import annotations

import argparse
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ragqa.commands.options import (
    add_catalogue,
    add_common,
    add_device,
    add_engine,
    catalogue_arguments,
    check_engine,
    size_in_bytes,
)
from ragqa.errors import InputError
from ragqa.models import DEFAULT_EMBEDDER

if TYPE_CHECKING:
    from ragqa.index.engine import Engine

EXAMPLE = "example: python -m ragqa.build_index examples/catalogue/trn.json --name demo"
AFTER_INTERRUPT = "the same command goes on from what was finished"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ragqa build-index`."""
    add_catalogue(parser)
    parser.add_argument("--name", help="name of the index (default: made from the catalogue's name)")
    parser.add_argument("--out", metavar="FOLDER", help="where it goes (default: indexes/NAME)")
    parser.add_argument(
        "--store", choices=("folder", "milvus"), default="folder",
        help="where it is kept: a folder on this machine, or Milvus (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--uri", help="in Milvus, such as milvus://localhost:19530/demo; who asks is told by RAGQA_MILVUS_TOKEN"
    )
    parser.add_argument("--embedder", default=DEFAULT_EMBEDDER, metavar="ID", help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the questions the confidence is fitted on")
    _add_recipe(parser)
    add_device(parser, "; or int8, faster yet on a CPU: titles alone, a little off (needs ragqa[int8])")
    add_engine(parser, "cleans and embeds")
    parser.add_argument(
        "--shards",
        metavar="FOLDER",
        help="with Ray: keep embeddings and products there, as Parquet (default: not kept)",
    )
    add_common(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run `ragqa build-index`."""
    if chosen.store == "milvus":
        return _in_milvus(chosen)
    if chosen.uri is not None:
        raise InputError("--uri: is an address in Milvus; add --store milvus, or leave it out")
    out = chosen.out or f"indexes/{_name(chosen)}"
    from ragqa.index.build import build_index
    from ragqa.index.recipe import Budgets

    with _engine(chosen) as engine:
        index = build_index(
            chosen.catalogue,
            out,
            embedder=chosen.embedder,
            device=chosen.device,
            dtype=chosen.dtype,
            seed=chosen.seed,
            recipe=chosen.recipe,
            deterministic=chosen.deterministic,
            budgets=Budgets(chosen.max_memory, chosen.max_latency_ms, chosen.min_recall),
            engine=engine,
            **catalogue_arguments(chosen),
        )
    manifest = index.manifest
    size = sum(part["size"] for part in manifest["parts"].values())
    seconds, dense = manifest["seconds"], manifest["dense"]
    print(
        f"{out}: {manifest['count']:,} products, {manifest['dimension']} dimensions, {size / 1e6:,.1f} MB, "
        f"{seconds['total']:.1f} s (cleaning {seconds['clean']:.1f}, embedding {seconds['embed']:.1f}, "
        f"FAISS {dense['seconds']:.1f}, words {seconds['words']:.1f}); {dense['factory']} finds "
        f"{dense['recall_at_10']:.1%} of the 10 nearest in {dense['latency_ms']:.2f} ms"
    )
    print(f'now ask: python -m ragqa.ask {out} "What is the description of ...?"')
    return 0


def _engine(chosen: argparse.Namespace) -> AbstractContextManager[Engine | None]:
    if not check_engine(chosen, ("address", "workers", "shards")):
        return nullcontext()
    from ragqa.cluster.engine import RayEngine

    return RayEngine(chosen.address, chosen.workers, chosen.shards)


def _in_milvus(chosen: argparse.Namespace) -> int:
    for flag, value in (
        ("max-memory", chosen.max_memory),
        ("max-latency-ms", chosen.max_latency_ms),
        ("min-recall", chosen.min_recall),
        ("deterministic", chosen.deterministic or None),
    ):
        if value is not None:
            raise InputError(f"--{flag}: is about FAISS; in Milvus only --recipe is chosen")
    if chosen.uri is None:
        raise InputError("--store milvus: needs an address, such as --uri milvus://localhost:19530/demo")
    from ragqa.milvus.address import name_of, names_catalogue
    from ragqa.milvus.build import build_milvus

    with _engine(chosen) as engine:
        index = build_milvus(
            chosen.catalogue,
            chosen.uri,
            out=chosen.out,
            name=chosen.name or (None if names_catalogue(chosen.uri) else name_of(catalogue_name(chosen.catalogue))),
            embedder=chosen.embedder,
            device=chosen.device,
            dtype=chosen.dtype,
            seed=chosen.seed,
            recipe=chosen.recipe,
            engine=engine,
            **catalogue_arguments(chosen),
        )
    manifest = index.manifest
    print(
        f"{index.place}: {manifest['count']:,} products, {manifest['dimension']} dimensions, loaded in "
        f"{manifest['seconds']['load']:.1f} s as {index.name}; vectors are searched by {manifest['dense']['type']}"
    )
    print(f'now ask: python -m ragqa.ask {index.place} "What is the description of ...?"')
    return 0


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the FAISS index; in Milvus, --recipe auto, flat, ivf, ivf-sq8 or hnsw")
    group.add_argument(
        "--recipe", default="auto", metavar="NAME",
        help="auto, flat, flat-fp16, ivf, ivf-sq8, ivf-pq, ivf-pq-small, hnsw, cagra, or a FAISS factory string such as "
        "IVF4096,SQ8 (default: auto, by the number of titles and these budgets)",
    )  # fmt: skip
    group.add_argument(
        "--max-memory", type=size_in_bytes, metavar="SIZE", help="of the vectors, such as 500MB or 1.5GB"
    )
    group.add_argument("--max-latency-ms", type=float, metavar="MS", help="of one search")
    group.add_argument(
        "--min-recall", type=float, metavar="SHARE", help="of the 10 nearest (default: 0.95 if it can be)"
    )
    group.add_argument(
        "--deterministic", action="store_true",
        help="the same index each time, also of more than 20,000 products: graphs by one thread, which takes longer",
    )  # fmt: skip


def _name(chosen: argparse.Namespace) -> str:
    if chosen.name is None:
        return catalogue_name(chosen.catalogue)
    if not re.fullmatch(r"\w[\w.-]*", chosen.name):
        raise InputError(f"--name {chosen.name!r}: letters, digits, '.', '_' and '-' are accepted")
    return str(chosen.name)


def catalogue_name(catalogue: str) -> str:
    """A short name for a catalogue, from its path."""
    path = Path(catalogue)
    stem = path.name.split(".")[0]
    # trn.json says nothing; the folder it lies in does.
    name = path.absolute().parent.name if stem in ("trn", "tst", "catalogue", "train", "data") else stem
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "catalogue"
