"""The same inputs, seed and machine: the same bytes and answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import toys
from ragqa import build_index, open_index, update_index
from ragqa.files import sha256_of
from ragqa.training.splits import SplitSettings, make_split, write_split

RECIPES: Final = ("flat", "flat-fp16", "ivf", "ivf-sq8", "ivf-pq", "hnsw")


def same(scratch: Path, count: int, recipes: Sequence[str] = RECIPES) -> dict[str, Any]:
    """Build, update and split twice, with several threads, and compare."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(max(2, os.cpu_count() or 2))
    first, second = (toys.catalogue(scratch / f"same{state}.jsonl", state, count) for state in (1, 2))
    made, failures = [], []
    try:
        for recipe in recipes:
            built = []
            for time in "ab":
                place = scratch / f"{recipe}-{time}"
                build_index(first, place, recipe=recipe)
                built.append(_state(place))
                update_index(place, second)
                built.append(_state(place))
            made.append(_compared(f"an index, {recipe}", built[0], built[2]))
            made.append(_compared(f"an update of it, {recipe}", built[1], built[3]))
        products = list(open_index(scratch / f"{recipes[0]}-a").store)
        splits = []
        for time in "ab":
            write_split(make_split(products, SplitSettings()), products, scratch / f"split-{time}")
            splits.append({path.name: sha256_of(path) for path in sorted((scratch / f"split-{time}").iterdir())})
        made.append({"what": "splits and their questions", "bytes": _word(splits[0] == splits[1]), "answers": ""})
    finally:
        faiss.omp_set_num_threads(threads)
    failures += [f"{one['what']}: {one}" for one in made if "no" in (one["bytes"], one["answers"])]
    return {"made": made, "failures": failures, "products": count, "threads": max(2, os.cpu_count() or 2)}


def _state(place: Path) -> tuple[str, str, list[Any]]:
    index = open_index(place)
    return index.manifest["content_sha256"], index.dense.parameters, toys.told(toys.toy_answerer(index))


def _compared(what: str, one: tuple[str, str, list[Any]], other: tuple[str, str, list[Any]]) -> dict[str, str]:
    return {"what": what, "bytes": _word(one[:2] == other[:2]), "answers": _word(one[2] == other[2])}


def _word(same_: bool) -> str:
    return "yes" if same_ else "no"
