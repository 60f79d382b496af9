"""Files with a byte that was flipped, or cut short: refused, or harmless; each tried in a forked child."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks import toys
from benchmarks.reliability_crash import SMALL, in_child, value
from ragqa import Answerer, build_index, fine_tune, open_index

# The share of each among what is damaged.
_SHARES: Final = {"an index": 6, "an adapter": 2, "a saved Answerer": 2}


def damaged(scratch: Path, flips: int, cuts: int, seed: int = 0) -> dict[str, Any]:
    """Damage files one at a time, `flips` by a byte and `cuts` by their length, and ask what they answer."""
    index, adapter, saved = scratch / "index", scratch / "adapter", scratch / "saved"
    tiny = str(toys.save_tiny_model(scratch / "tiny"))
    # Built twice: where there is another whole generation, a pointer to it must not be taken either.
    for state in (1, 2):
        build_index(toys.catalogue(scratch / f"{state}.jsonl", state, 60), index)
    value(in_child(lambda: _train(scratch, tiny, adapter)))

    def ask_index() -> Any:
        return toys.told(toys.toy_answerer(open_index(index)))

    def ask_adapter() -> Any:
        return toys.told(_opened(index, adapter=str(adapter)), toys.QUESTIONS[:2])

    def ask_saved() -> Any:
        return toys.told(_opened(saved), toys.QUESTIONS[:2])

    value(in_child(lambda: _opened(index, adapter=str(adapter)).save_pretrained(saved)))
    tried: dict[str, tuple[Path, Callable[[], Any]]] = {
        "an index": (index, ask_index),
        "an adapter": (adapter, ask_adapter),
        "a saved Answerer": (saved, ask_saved),
    }
    random_, failures, counts = random.Random(seed), [], {}  # noqa: S311  (not for secrets)
    harmless: Counter[str] = Counter()
    for name, (folder, ask) in tried.items():
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size and not p.name.startswith("."))
        files = [p for p in files if "g000001" not in p.parts or folder != index]
        right = value(in_child(ask))
        counts[name] = {}
        for kind, number in (("flip", flips), ("cut", cuts)):
            share = number * _SHARES[name] // sum(_SHARES.values())
            here = counts[name][kind] = {"refused": 0, "harmless": 0, "wrong": 0}
            for _ in range(share):
                path = random_.choice(files)
                whole = path.read_bytes()
                at = random_.randrange(len(whole))
                flipped = bytes([whole[at] ^ random_.randrange(1, 256)])
                path.write_bytes(whole[:at] + flipped + whole[at + 1 :] if kind == "flip" else whole[:at])
                found = in_child(ask)
                path.write_bytes(whole)
                ended = "harmless" if found.get("value") == right else "refused" if found.get("project") else "wrong"
                here[ended] += 1
                if ended == "harmless":
                    harmless[f"{folder.name}/{path.relative_to(folder).as_posix()}"] += 1
                if ended == "wrong":
                    failures.append(f"{kind} of {path.relative_to(scratch)} at {at}: {str(found)[:300]}")
    return {"counts": counts, "harmless": dict(sorted(harmless.items())), "failures": failures}


def _opened(path: Path, **more: Any) -> Answerer:
    return Answerer.from_pretrained(path, device="cpu", dtype="float32", **more)


def _train(scratch: Path, tiny: str, adapter: Path) -> None:
    build_index(toys.catalogue(scratch / "training.jsonl", 1, 120), scratch / "trained-on")
    fine_tune(scratch / "trained-on", adapter, mode="retrieval", generator=tiny, device="cpu", dtype="float32", **SMALL)
