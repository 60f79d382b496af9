"""The figures that `ragqa plan` reckons with: ``python -m benchmarks.plan --keep``.

Nothing is measured here: the figures are taken from the committed results of `benchmarks.scale`, `benchmarks.service` and
`benchmarks.road`, and the tables and the picture of docs/scale.md are made of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from typing import Any, Final

from benchmarks import road, scale_report, service_report
from ragqa.planning.costs import MEASURED

# Part of the build -> the stages of the benchmark that are in it; "else" is what no stage counts.
_STAGES: Final = {
    "embed": ("embed",),
    "train": ("train",),
    "add": ("add",),
    "clean": ("clean",),
    "words": ("words",),
    "write": ("write",),
    "start, tune, confidence": ("start", "tune", "confidence", "else"),
}


def main() -> int:
    """Tell what is measured and what was fitted, and keep it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="write ragqa/planning/measured.json and docs/scale.md anew")
    chosen = parser.parse_args()
    found = measured(*(json.loads(one.RESULT.read_text("utf-8")) for one in (scale_report, service_report, road)))
    if chosen.keep:
        MEASURED.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    from benchmarks import plan_report

    print(plan_report.tables(found)["costs"])
    if chosen.keep:
        plan_report.write_tables(found)
    return 0


def measured(scale: dict[str, Any], service: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """What the plan reckons with, from the benchmarks' results.

    Args:
        scale: of `benchmarks.scale`.
        service: of `benchmarks.service`.
        asked: of `benchmarks.road`.
    """
    sizes = list(scale["sizes"].values())
    machine = scale["machine"]
    searching = [at["search"]["memory"]["searching"] for at in sizes]
    vectors = [at["build"]["parts"]["vectors.faiss"] for at in sizes]
    rates = {name: statistics.median(found) for name, found in scale["embedding"]["rates"].items()}
    answering = max(one["peak_mb"] for one in asked["ask"].values()) * 10**6
    return {
        "from": {
            "scale": scale["measured"],
            "service": {"date": service["date"], "commit": service["commit"]},
            "road": {"date": asked["date"], "commit": asked["commit"]},
        },
        "machine": machine["machine"],
        "cores": machine["threads"],
        "versions": {name: scale["versions"][name] for name in ("torch", "faiss-cpu")},
        "product_bytes": round(sum(at["make"]["bytes"] for at in sizes) / sum(at["build"]["products"] for at in sizes)),
        "titles": [at["build"]["products"] for at in sizes],
        "costs": {
            "disk": {
                "vectors": vectors,
                "texts and words": [
                    sum(at["build"]["parts"].values()) - of_vectors for at, of_vectors in zip(sizes, vectors, strict=True)
                ],
            },
            "memory of a process": {"own": [held["anonymous"] for held in searching]},
            "resident while searching": {"all": [held["resident"] for held in searching]},
            "memory of the build": {
                "vectors": vectors,
                "else": [at["build"]["peak"] - of_vectors for at, of_vectors in zip(sizes, vectors, strict=True)],
            },
            "build": {
                part: [round(sum(_seconds(at).get(stage, 0.0) for stage in stages), 3) for at in sizes]
                for part, stages in _STAGES.items()
            },
            "question, p50": {"all": [round(at["search"]["ms"]["retrieve"]["p50"], 4) for at in sizes]},
            "question, at once": {"all": [round(1000 / at["search"]["many"]["retrieve"], 4) for at in sizes]},
        },
        "libraries": max(held["other_files"] for held in searching),
        "generator": answering - searching[0]["resident"],
        "titles_per_second": {"bfloat16": rates["ragqa"], "int8": rates["ragqa, int8"]},
        "service": {
            "titles": service["products"],
            "answers_per_second": {
                mode: max(load["answers_per_second"] for load in found["ways"]["batches"])
                for mode, found in service["modes"].items()
            },
        },
    }  # fmt: skip


def _seconds(at: dict[str, Any]) -> dict[str, float]:
    seconds = {stage: one for stage, one in at["build"]["seconds"].items() if stage != "total"}
    return seconds | {"else": at["build"]["seconds"]["total"] - sum(seconds.values())}


if __name__ == "__main__":
    sys.exit(main())
