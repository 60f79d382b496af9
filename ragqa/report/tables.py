"""The tables of a report. Every figure comes from the analysis; what was not measured reads "n/a"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ragqa.report.blocks import Table
from ragqa.report.reading import (
    COPY,
    NONE,
    OWN,
    PLAIN,
    RANKS,
    SETS,
    Reading,
    Row,
    duration,
    group_label,
    interval,
    number,
    probability,
    whole,
)

_INTERVALS: Final = "Mean over questions with its 95 % interval (bootstrap by product)."
_SCORES: Final = ("exact_match", "precision", "recall", "f1")
_RETRIEVAL: Final = ("recall@1", "recall@3", "recall@10", "mrr@10", "ndcg@10")
_RETRIEVERS: Final = {"ragqa": "ragqa", "bm25": "BM25"}


def original(reading: Reading) -> Table:
    """The table of the original study, where every cell read 0.00, with its cells filled."""
    ways = {
        "base": "base model (pre-trained)",
        PLAIN: "plain fine-tuned (the original's way)",
        OWN: "retrieval-conditioned fine-tuned",
    }
    rows = [
        [
            way,
            SETS[name],
            whole(_asked(reading, arm, name)),
            *(interval(reading.cell(arm, name, "all", m)) for m in _SCORES),
        ]
        for name in reading.sets
        for arm, way in ways.items()
        if arm in reading.arms
    ]
    return Table(
        "Pre-trained against fine-tuned",
        ["model", "asked about", "questions", "accuracy (exact match)", "precision", "recall", "F1"],
        rows,
        f"{_INTERVALS} The base model and the plain one read the question alone, the retrieval-conditioned one reads what "
        "the retriever found, too.",
        words=2,
    )


def _asked(reading: Reading, arm: str, name: str) -> int | None:
    cell = reading.cell(arm, name)
    return None if cell is None else int(cell["n"])


def all_arms(reading: Reading, name: str) -> Table:
    """All arms by all measures, on the questions of one set."""
    corpus = {row["metric"] for row in reading.analysis.get("corpus", ())}
    labels = reading.measures | {
        metric: label for metric, label in {"bleu": "BLEU", "chrf": "chrF"}.items() if metric in corpus
    }
    rows = []
    for arm in reading.arms:
        explains = " (extra)" if reading.raw["arms"][arm].get("extra") else ""
        cells = [interval(reading.cell(arm, name, "all", metric), digits=_digits(metric)) for metric in labels]
        rows.append([reading.label(arm) + explains, whole(_asked(reading, arm, name)), *cells])
    note = _INTERVALS + (" BLEU and chrF (0 to 100) are of all answers together." if corpus else "")
    return Table(f"All arms: {SETS[name]}", ["arm", "questions", *labels.values()], rows, note)


def _digits(metric: str) -> int:
    """BLEU and chrF go from 0 to 100, all else from 0 to 1."""
    return 1 if metric in ("bleu", "chrf") else 3


def by_group(reading: Reading, name: str, groups: Sequence[str], title: str, metric: str = "f1") -> Table:
    """One measure of all arms, a column for each group of questions."""
    found = [g for g in groups if any(reading.cell(arm, name, g, metric) for arm in reading.arms)]
    counts = {
        g: max((c["n"] for arm in reading.arms if (c := reading.cell(arm, name, g, metric))), default=0) for g in found
    }
    rows = [
        [reading.label(arm), *(interval(reading.cell(arm, name, g, metric)) for g in found)] for arm in reading.arms
    ]
    label = reading.measures.get(metric, metric)
    head = ["arm", *(f"{group_label(g)} ({whole(counts[g])})" for g in found)]
    return Table(f"{title}: {SETS[name]}", head, rows, f"{label}. {_INTERVALS} In brackets the number of questions.")


def by_rank(reading: Reading, name: str) -> Table:
    """F1 by the place at which the retriever has the right product."""
    return by_group(reading, name, list(RANKS), "F1 by the right product's rank")


def ceiling(reading: Reading) -> Table:
    """How many questions could be answered rightly at all."""
    rows = [
        [SETS.get(row["set"], row["set"]), interval(row.get("shown")), interval(row.get("unambiguous"))]
        for row in reading.analysis.get("ceiling", ())
    ]
    return Table(
        "Ceilings",
        ["asked about", "right product among the candidates shown", "questions that one product fits"],
        rows,
        "Shares with their 95 % intervals. An answer taken from what is shown is bounded by the first; where several "
        "products fit, the retriever can only guess which was meant.",
    )


def retrieval(reading: Reading) -> Table:
    """The retriever and BM25, by kind of question."""
    cells = {(r["retriever"], r["set"], r["group"], r["metric"]): r for r in reading.analysis.get("retrieval", ())}
    groups = [group for group in reading.groups if not group.startswith("rank:")]
    rows = []
    for name in reading.sets:
        for group in groups:
            for retriever, label in _RETRIEVERS.items():
                found = [cells.get((retriever, name, group, metric)) for metric in _RETRIEVAL]
                if known := [cell for cell in found if cell]:
                    cols = [interval(cell) for cell in found]
                    rows.append([group_label(group), SETS[name], label, whole(known[0]["n"]), *cols])
    head = ["questions", "asked about", "retriever", "n", "recall@1", "recall@3", "recall@10", "MRR@10", "nDCG@10"]
    return Table("Retrieval", head, rows, _INTERVALS, words=3)


def abstention(reading: Reading) -> Table:
    """How well each arm knows what it does not know."""
    rows = [
        [
            reading.label(row["arm"]),
            SETS.get(row["set"], row["set"]),
            number(row["threshold"], 2),
            whole(row["n"]),
            whole(row["without"]),
            *(interval(row.get(key)) for key in ("precision", "recall", "auroc", "aurc")),
        ]
        for row in reading.analysis.get("abstention", ())
    ]
    return Table(
        "Abstention",
        ["arm", "asked about", "threshold", "questions", "without a product", "precision", "recall", "AUROC", "AURC"],
        rows,
        "Precision: of the questions abstained from, how many had no product. Recall: of those without a product, how many "
        "were abstained from. AUROC: how well confidence tells the two apart. AURC: area under the risk-coverage curve, lower "
        "is better; an answer is right if it matches exactly. Only arms that state a confidence.",
        words=2,
    )


def differences(reading: Reading, name: str, groups: Sequence[str], title: str, only: str | None = None) -> Table:
    """Differences between arms, in the order of the analysis.

    Args:
        reading: of the result.
        name: of the set of questions.
        groups: of questions.
        title: of the table.
        only: one arm whose differences are wanted, all arms if None.
    """
    rows = [
        [
            reading.label(row["arm"]),
            reading.label(row["against"]),
            group_label(row["group"]),
            reading.measures.get(row["metric"], row["metric"]),
            whole(row["n"]),
            whole(row["products"]),
            interval(row, "difference"),
            probability(row.get("p")),
            probability(row.get("p_holm")),
            number(row.get("effect"), 2),
            f"{whole(row.get('won'))} / {whole(row.get('lost'))}",
            whole(row.get("needed")),
        ]
        for row in reading.analysis.get("pairs", ())
        if row["set"] == name and row["group"] in groups and only in (None, row["arm"])
    ]
    return Table(
        f"{title}: {SETS[name]}",
        ["arm", "against", "asked", "measure", "questions", "products", "difference", "p", "p (Holm)", "effect size",
         "won / lost", "products needed"],
        rows,
        "Differences of means with 95 % intervals (paired bootstrap by product). p: paired permutation test by product, then "
        "corrected by Holm's method. Won and lost: questions. Effect size: the products' mean difference over its standard "
        "deviation. Products needed: to see a difference of one point (0.01).",
        words=4,
    )  # fmt: skip


def against_copy(reading: Reading, name: str) -> Table:
    """Retrieval-conditioned fine-tuning against retrieve and return, by kind of question."""
    title = f"{reading.label(OWN)} against {reading.label(COPY)}, by kind of question"
    return differences(reading, name, reading.kinds, title, only=OWN)


def cost(reading: Reading) -> Table:
    """Time and memory of every arm."""
    megabytes = (reading.raw["setup"].get("index") or {}).get("megabytes")
    rows = []
    for arm in reading.arms:
        row: Row = reading.cost(arm) or {}
        rows.append(
            [
                reading.label(arm),
                number(row.get("median_ms"), 1),
                number(row.get("p95_ms"), 1),
                number(row.get("answers_per_second"), 1),
                whole(row.get("peak_mb")),
                duration(row["training_seconds"]) if row.get("training_seconds") else "none",
            ]
        )
    return Table(
        "Cost",
        ["arm", "median, ms", "95 % within, ms", "answers/s", "peak memory, MB", "training"],
        rows,
        f"Time of one question, retrieval included, one after the other. The index takes {number(megabytes, 1)} MB on disk.",
    )


def seeds(reading: Reading) -> Table:
    """How far training seeds lie apart."""
    rows = [
        [
            reading.label(row["arm"]),
            SETS.get(row["set"], row["set"]),
            reading.measures.get(row["metric"], row["metric"]),
            whole(row["seeds"]),
            *(number(row[key]) for key in ("mean", "deviation", "lowest", "highest")),
        ]
        for row in reading.analysis.get("seeds", ())
    ]
    return Table(
        "Training seeds",
        ["arm", "asked about", "measure", "seeds", "mean", "standard deviation", "lowest", "highest"],
        rows,
        words=3,
    )


def curve(reading: Reading) -> Table:
    """What more training examples bring."""
    rows = [
        [
            reading.label(row["arm"]),
            whole(row["examples"]),
            reading.measures.get(row["metric"], row["metric"]),
            whole(row["n"]),
            interval(row),
        ]
        for row in reading.analysis.get("curve", ())
    ]
    note = "On fewer questions than the other tables, the same ones for every number of examples."
    return Table("Learning curve", ["arm", "training examples", "measure", "questions", "mean"], rows, note)


def training(reading: Reading) -> Table:
    """How every training went."""
    rows = []
    for run in reading.raw["training"]:
        watched = [entry["eval_loss"] for entry in run["history"] if entry.get("eval_loss") is not None]
        rows.append(
            [
                run["mode"],
                str(run["seed"]),
                duration(run.get("seconds")),
                duration(run.get("total_seconds")),
                whole(run.get("peak_mb")),
                number(watched[0] if watched else None),
                number(min(watched, default=None)),
            ]
        )
    head = [
        "mode",
        "seed",
        "training",
        "with preparation",
        "peak memory, MB",
        "first validation loss",
        "best validation loss",
    ]
    return Table("Training", head, rows, "Losses in nats a token, on validation questions.")


def stages(reading: Reading) -> Table:
    """How long every stage of the run took."""
    rows = [
        [row["name"], duration(row.get("seconds")), whole(row.get("peak_mb")), "yes" if row.get("reused") else "no"]
        for row in reading.raw.get("stages", ())
    ]
    return Table("Stages", ["stage", "time", "peak memory, MB", "kept from an earlier run"], rows)


def setup(reading: Reading) -> Table:
    """All that is needed to run it again."""
    parts: dict[str, Any] = {
        "catalogue": reading.raw["catalogue"],
        **reading.raw["setup"],
        "profile": reading.raw["profile"],
    }
    recipes = parts.pop("recipes", None)
    rows = [list(row) for row in _flat(parts) if row[1]]
    if recipes:
        rows += [list(row) for row in _flat({f"recipe, {mode}": recipe for mode, recipe in recipes.items()})]
    return Table("Set-up", ["what", "value"], rows, words=2)


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Nested settings as (name, value), the names joined by colons."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            rows += _flat(value, f"{name}: ")
        elif isinstance(value, list | tuple):
            rows.append((name, ", ".join(str(one) for one in value)))
        else:
            rows.append((name, NONE if value is None else str(value)))
    return rows


def arms(reading: Reading) -> Table:
    """What each arm is."""
    contexts = {"none": "nothing", "retrieved": "what was retrieved", "gold": "the right product"}
    rows = [
        [
            arm["label"],
            contexts.get(arm["context"], arm["context"]),
            arm["training"],
            "yes" if arm["generator"] else "no",
            arm["about"],
        ]
        for arm in (reading.raw["arms"][name] for name in reading.arms)
    ]
    return Table("Arms", ["arm", "is given", "training", "language model", "what it does"], rows, words=5)
