"""The report of a benchmark: one HTML file, the same in Markdown, and the figures as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ragqa.evaluation.scores import exact_match, token_overlap
from ragqa.files import replacing, storage_errors, write_json
from ragqa.report import answers, tables
from ragqa.report.blocks import Block, Bullets, Paragraph, Picture, Section, Table, plain
from ragqa.report.page import page
from ragqa.report.plots import draw_all
from ragqa.report.reading import Reading, Row
from ragqa.report.summary import answer, not_shown

_WITHOUT_TEXTS: Final = (
    "Questions, references and answers are left out here, since the catalogue is somebody else's; numbers, kinds and scores "
    "are as measured. Run the same benchmark on the catalogue to have the report with texts."
)
# Named one by one: a field that is added later stays out until somebody has seen that it holds no text.
_KEPT: Final = ("format_version", "catalogue", "profile", "setup", "stages", "training")
_KEPT_OF_QUESTIONS: Final = ("set", "kind", "product_id", "ambiguous", "rank", "bm25_rank")
_KEPT_OF_ANSWERS: Final = ("source", "confidence", "abstains", "seconds")


def write_report(folder: Path, raw: Row, analysis: Row, texts: bool = True) -> dict[str, Path]:
    """Write the report of a run as `report.html`, `report.md` with `pictures/`, and `result.json`.

    Args:
        folder: to write into; made if it is missing. Files there by these names are replaced, each as a whole.
        raw: what was measured, question by question.
        analysis: the statistics made from it.
        texts: whether questions, references and answers may be shown. Without them all three files keep numbers,
            kinds and scores, and the statistics cannot be made again from `result.json`.

    Returns:
        The paths: "html", "markdown", "json", and "picture:NAME" for every picture.

    Raises:
        StorageError: the disk is full, or the folder cannot be written.
    """
    with storage_errors(folder):
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
    reading = Reading(raw, analysis)
    pictures = draw_all(reading)
    parts = sections(reading, pictures, texts)
    paths = {
        "html": folder / "report.html",
        "markdown": folder / "report.md",
        "json": folder / "result.json",
        **{f"picture:{picture.name}": folder / "pictures" / f"{picture.name}.svg" for picture in pictures},
    }
    for picture in pictures:
        _write(paths[f"picture:{picture.name}"], picture.svg)
    title, about = f"Does fine-tuning pay? {raw['catalogue']['name']}", _about(reading)
    _write(paths["markdown"], markdown(title, about, parts))
    _write(paths["html"], page(title, about, parts))
    write_json(paths["json"], {"raw": raw if texts else without_texts(raw), "analysis": analysis})
    return paths


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode(errors="replace"))


def _about(reading: Reading) -> str:
    raw, setup = reading.raw, reading.raw["setup"]
    return (
        f"{raw['catalogue']['products']:,} products, {len(raw['questions']):,} questions, profile {raw['profile']['name']}; "
        f"{setup['date']}, commit {setup['commit']}, {setup['machine']}, {setup['device']}."
    )


def markdown(title: str, about: str, parts: Sequence[Section]) -> str:
    """The whole report as Markdown."""
    written = [f"# {plain(title)}", plain(about)]
    for section in parts:
        written += [f"## {plain(section.title)}", *(block.markdown() for block in section.blocks)]
    return "\n\n".join(written) + "\n"


def sections(reading: Reading, pictures: Sequence[Picture], texts: bool) -> list[Section]:
    """The report's parts in order. A table without rows and a section without blocks are left out."""
    drawn = {picture.name: [picture] for picture in pictures}
    sets = reading.sets
    kinds = [tables.by_group(reading, name, reading.kinds, "F1 by kind of question") for name in sets]
    several = ["one_product", "several"]
    metrics = [
        f"{m['label']}: {m.get('about') or ''} {m.get('cite') or ''}".strip() for m in reading.analysis["metrics"]
    ]
    differences = [tables.differences(reading, name, ["all"], "Differences between arms") for name in sets]
    by_kind = [tables.against_copy(reading, name) for name in sets]
    without = [] if texts else [Paragraph(_WITHOUT_TEXTS)]
    parts: list[tuple[str, str, Sequence[Block]]] = [
        ("answer", "The answer", [Paragraph(answer(reading), lead=True), tables.original(reading), *without]),
        ("limits", "What it does not show", [Bullets(not_shown(reading))]),
        (
            "arms",
            "All arms",
            [*drawn.get("forest", []), *(tables.all_arms(reading, name) for name in sets), tables.arms(reading)],
        ),
        ("kinds", "By kind of question", [*drawn.get("gain", []), *drawn.get("kinds", []), *kinds, *by_kind]),
        (
            "ranks",
            "By rank of the right product",
            [*drawn.get("ranks", []), *(tables.by_rank(reading, name) for name in sets)],
        ),
        (
            "several",
            "Questions that several products fit",
            [
                *(tables.by_group(reading, name, several, "F1 by how many products fit") for name in sets),
                tables.ceiling(reading),
            ],
        ),
        ("differences", "Differences", [*differences, tables.seeds(reading)]),
        ("retrieval", "Retrieval", [*drawn.get("recall", []), tables.retrieval(reading)]),
        ("abstention", "Abstention", [*drawn.get("risk", []), tables.abstention(reading)]),
        ("learning", "Learning", [*drawn.get("learning", []), tables.curve(reading), tables.training(reading)]),
        ("cost", "Cost", [*drawn.get("latency", []), tables.cost(reading), tables.stages(reading)]),
        ("answers", "Answers side by side", answers.blocks(reading, texts)),
        ("setup", "Set-up", [tables.setup(reading)]),
        ("measures", "Measures", [Bullets(metrics, links=True)] if metrics else []),
    ]
    kept = [(anchor, title, [b for b in blocks if not _empty(b)]) for anchor, title, blocks in parts]
    return [Section(anchor, title, blocks) for anchor, title, blocks in kept if blocks]


def _empty(block: Block) -> bool:
    return isinstance(block, Table) and (not block.rows or len(block.head) < 2)


def without_texts(raw: Row) -> dict[str, Any]:
    """A raw result without anything that stands in the catalogue: only what is known to be a number, an id or a kind.

    In the place of its text every answer has its exact match and F1, so that differences can still be tested.
    """
    questions = raw["questions"]
    return {
        **_only(raw, _KEPT),
        "questions": [_only(question, _KEPT_OF_QUESTIONS) for question in questions],
        "arms": {
            name: {**arm, "runs": [{**run, "answers": _bare(run["answers"], questions)} for run in arm["runs"]]}
            for name, arm in raw["arms"].items()
        },
        "curve": [
            {**point, "answers": _bare(point["answers"], [questions[i] for i in point["questions"]])}
            for point in raw.get("curve", ())
        ],
    }


def _bare(given: Sequence[Row | None], questions: Sequence[Row]) -> list[dict[str, Any]]:
    """Answers without their texts and what they leave open, with scores where the question has a product."""
    texts, references = [(one or {}).get("text") for one in given], [question["reference"] for question in questions]
    scores = zip(exact_match(texts, references), token_overlap(texts, references)[:, 2], strict=True)
    return [
        {key: value for key, value in _only(one or {}, _KEPT_OF_ANSWERS).items() if value is not None}
        | ({"exact_match": float(match), "f1": round(float(f1), 5)} if question["product_id"] is not None else {})
        for one, question, (match, f1) in zip(given, questions, scores, strict=True)
    ]


def _only(values: Row, keys: Sequence[str]) -> dict[str, Any]:
    return {key: values[key] for key in keys if key in values}
