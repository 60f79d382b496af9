"""A catalogue -> index -> questions -> both fine-tunings -> all arms -> report: the comparison, in one call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ragqa import models
from ragqa.catalogue.columns import ReadOptions
from ragqa.comparison import steps
from ragqa.comparison.arms import ARMS, System
from ragqa.comparison.profile import Profile, make_profile
from ragqa.comparison.stages import Done, Stages
from ragqa.errors import InputError, StorageError
from ragqa.evaluation.analysis import analyse
from ragqa.files import sha256_of
from ragqa.generation.adapter import MODES, Mode
from ragqa.index.lock import writing_lock
from ragqa.index.storage import open_index
from ragqa.progress import say
from ragqa.report.document import write_report
from ragqa.report.reading import Reading
from ragqa.report.summary import answer
from ragqa.settings import AnswerSettings, CleaningSettings
from ragqa.training.processes import one_process
from ragqa.versions import installed_versions, setting

FORMAT_VERSION: Final = 1
_ON_CURVE: Final[Mapping[Mode, str]] = {"plain": "plain", "retrieval": "retrieval_context"}
_PACKAGES: Final = (
    "torch", "transformers", "peft", "sentence-transformers", "faiss-cpu", "rank-bm25", "rouge-score", "sacrebleu", "ir-measures",
    "scikit-learn", "numpy",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Run:
    """What the stages have in common."""

    stages: Stages
    profile: Profile
    content: Mapping[str, str]  # the index's hash
    index: Path
    asked: Path
    about: Mapping[str, Any]  # what the questions stage gave


def compare(
    catalogue: str | Path,
    out: str | Path,
    *,
    profile: str | Profile = "quick",
    name: str | None = None,
    embedder: str = models.DEFAULT_EMBEDDER,
    device: str = "auto",
    dtype: str = "auto",
    options: ReadOptions | None = None,
    cleaning: CleaningSettings | None = None,
    texts: bool = True,
) -> dict[str, Any]:
    """Compare plain fine-tuning, retrieval-conditioned fine-tuning and no fine-tuning on one catalogue.

    Every stage's result is kept in ``out/stages`` under a key of its inputs; the same call goes on where an earlier one
    stopped, and does nothing twice.

    Args:
        catalogue: a file that `build_index` reads.
        out: a folder for the stages and the report.
        profile: "smoke", "quick", "full", or sizes of your own.
        name: of the catalogue, for the report; None takes the file's.
        embedder, device, dtype: as for `build_index` and `fine_tune`.
        options, cleaning: how the catalogue is read and cleaned.
        texts: show questions and answers in the report; off for a catalogue whose texts may not be published.

    Returns:
        ``raw`` (questions, answers, set-up), ``analysis`` (see `ragqa.evaluation.analysis`), ``answer``, the report's first
        paragraph, and ``files``, its own by kind.

    Raises:
        InputError: the catalogue, the profile or a recipe's field cannot be used.
        ModelError: a model cannot be found or loaded.
        StorageError, BusyError: `out` cannot be written, a stage's process was killed, or another process is at work there.
    """
    one_process("benchmark")
    use = make_profile(profile)
    use.make_recipe()  # told before anything is done
    file, folder = Path(catalogue), Path(out)
    if not file.is_file():
        raise InputError(f"{catalogue}: no such file; give the catalogue as a file, such as my.csv or trn.json.gz")
    where = {"device": device, "dtype": dtype}
    common = {"format_version": FORMAT_VERSION, "versions": installed_versions(_PACKAGES)} | where
    with writing_lock(folder / "stages"):
        stages = Stages(folder / "stages", common)
        raw = _raw(stages, use, file, name or file.name.split(".")[0], embedder, options, cleaning)
        say("analysis and report")
        analysis = analyse(raw)
        files = write_report(folder, raw, analysis, texts)
        return {"raw": raw, "analysis": analysis, "answer": answer(Reading(raw, analysis)), "files": files}


def _raw(
    stages: Stages,
    profile: Profile,
    file: Path,
    name: str,
    embedder: str,
    options: ReadOptions | None,
    cleaning: CleaningSettings | None,
) -> dict[str, Any]:
    """Do all stages; returns what `analyse` takes."""
    source = {"file": file.name, "sha256": sha256_of(file)}
    indexed = stages.run(
        "index",
        steps.index,
        source
        | {
            "embedder": embedder,
            "options": asdict(options or ReadOptions()),
            "cleaning": (cleaning or CleaningSettings()).to_dict(),
            "limit": profile.limit,
        },
        {"source": str(file.absolute())},
    )
    recipe = profile.make_recipe()
    built, index = indexed.result, indexed.folder / "index"
    content = {"content_sha256": built["content_sha256"]}
    asked = stages.run(
        "questions",
        steps.questions,
        content | {"recipe": recipe.to_dict(), "seen": profile.seen, "unseen": profile.unseen},
        {"index": str(index)},
    )
    run = _Run(stages, profile, content, index, asked.folder / steps.QUESTIONS, asked.result)
    trained = {
        (mode, seed): _train(run, mode, profile.examples, seed) for seed in profile.training_seeds for mode in MODES
    }
    given: dict[str, list[tuple[int | None, Done]]] = {}
    for system, seed, adapter in _systems(trained):
        done = _answer(run, system, adapter)
        for arm in done.result["answers"]:
            given.setdefault(arm, []).append((seed, done))
    questions = _questions(run.asked, given["copy"][0][1].result["references"])
    first = trained["plain", profile.training_seeds[0]].result
    raw = {
        "format_version": FORMAT_VERSION,
        "catalogue": {"name": name, "products": built["products"], "rows": built["rows"]} | source,
        "profile": profile.to_dict(),
        "setup": setting()
        | {
            "commit": " and ".join(dict.fromkeys(d.commit for d in stages.done)),
            "device": first["device"],
            "dtype": first["dtype"],
            "versions": installed_versions(_PACKAGES),
            "base": first["base"],
            "embedder": built["embedder"],
            "index": {"megabytes": built["megabytes"], "content_sha256": built["content_sha256"]},
            "split": asked.result["split"],
            "recipes": {mode: trained[mode, profile.training_seeds[0]].result["recipe"] for mode in MODES},
            "answer_tokens": recipe.max_new_tokens,
            "context_products": recipe.products,
            "min_confidence": AnswerSettings().min_confidence,
        },
        "training": [_training(mode, seed, done) for (mode, seed), done in trained.items()],
        "questions": questions,
        "arms": {arm: _arm(arm, given[arm]) for arm in ARMS},
        "curve": [*_curve(run, questions, given)],
        "stages": [
            {"name": d.name, "seconds": d.seconds, "peak_mb": d.peak_mb, "commit": d.commit, "reused": d.reused}
            for d in stages.done
        ],
    }
    return raw | {"sources": _sources(index, raw)}


def _train(run: _Run, mode: Mode, examples: int, seed: int) -> Done:
    """Fine-tune, and see that what is asked is not what was trained on."""
    recipe = run.profile.make_recipe(examples, seed)
    inputs = {**run.content, "mode": mode, "recipe": recipe.to_dict()}
    places = {"index": str(run.index)}
    done = run.stages.run(f"train-{mode}-{examples}-{seed}", steps.train, inputs, places)
    parts = [name for name in run.about["data"] if name.startswith("products_")]
    if any(done.result["data"][name] != run.about["data"][name] for name in parts):
        raise StorageError(f"{done.folder}: was trained on another split of the products; remove that folder")
    return done


def _systems(trained: Mapping[tuple[Mode, int], Done]) -> Iterator[tuple[System, int | None, Done | None]]:
    yield "none", None, None
    yield "base", None, None
    for (mode, seed), done in trained.items():
        yield mode, seed, done


def _answer(
    run: _Run,
    system: System,
    trained: Done | None,
    places: Sequence[int] | None = None,
    arms: Sequence[str] = (),
) -> Done:
    """Let the arms of a system answer all questions, or some arms those in some places."""
    named = list(arms) or [arm for arm, about in ARMS.items() if about.system == system]
    return run.stages.run(
        f"answers-{system}" if trained is None else trained.name.replace("train", "answers"),
        steps.answers,
        {
            **run.content,
            "system": system,
            "trained": None if trained is None else trained.folder.name,
            "recipe": run.profile.make_recipe().to_dict(),
            "data": run.about["data"],
            "without": run.about["without"],
            "questions": None if places is None else list(places),
            "arms": named,
            "timed": 0 if places is not None else run.profile.timed,
        },
        {
            "index": str(run.index),
            "asked": str(run.asked),
            "adapter": None if trained is None else str(trained.folder / steps.ADAPTER),
        },
    )


def _questions(file: Path, references: Sequence[str]) -> list[dict[str, Any]]:
    names = ("set", "kind", "product_id", "ambiguous", "rank", "bm25_rank", "text")
    return [
        {name: line[name] for name in names} | {"reference": reference}
        for line, reference in zip(steps.read_questions(file), references, strict=True)
    ]


def _arm(name: str, runs: Sequence[tuple[int | None, Done]]) -> dict[str, Any]:
    arm = ARMS[name]
    threshold = AnswerSettings().min_confidence
    training = arm.system if arm.system in MODES else "none"
    return {
        "label": arm.label,
        "about": arm.about,
        "context": arm.context,
        "training": training,
        "generator": arm.generator,
        "extra": arm.extra,
        "runs": [
            {
                "seed": seed,
                "peak_mb": done.peak_mb,
                "answers": [
                    answer
                    | {
                        "seconds": seconds,
                        "abstains": answer["confidence"] is not None and answer["confidence"] < threshold,
                    }
                    for answer, seconds in zip(done.result["answers"][name], done.result["seconds"][name], strict=True)
                ],
            }
            for seed, done in runs
        ],
    }


def _training(mode: str, seed: int, done: Done) -> dict[str, Any]:
    result = done.result
    return {
        "mode": mode,
        "seed": seed,
        "seconds": result["seconds"]["train"],
        "total_seconds": result["seconds"]["total"],
        "peak_mb": done.peak_mb,
        "history": result["history"],
        "choice": result["choice"],
        "examples": result["examples"],
    }


def _curve(
    run: _Run, questions: Sequence[Mapping[str, Any]], given: Mapping[str, Sequence[tuple[int | None, Done]]]
) -> Iterator[dict[str, Any]]:
    """Answers by adapters trained on fewer examples, beside those by the whole ones and by the model as it was."""
    profile, seed = run.profile, run.profile.training_seeds[0]
    if not profile.curve:
        return
    with_product = [i for i, q in enumerate(questions) if q["set"] == "unseen" and q["product_id"] is not None]
    places = with_product[: profile.curve_questions]

    def point(mode: Mode, examples: int, answers: Sequence[Any]) -> dict[str, Any]:
        arm = _ON_CURVE[mode]
        return {"mode": mode, "arm": arm, "examples": examples, "seed": seed, "questions": places, "answers": answers}

    yield point("plain", 0, [given["base"][0][1].result["answers"]["base"][i] for i in places])
    for mode, arm in _ON_CURVE.items():
        for size in profile.curve:
            done = _answer(run, mode, _train(run, mode, size, seed), places, [arm])
            yield point(mode, size, done.result["answers"][arm])
        whole = given[arm][0][1].result["answers"][arm]
        yield point(mode, profile.examples, [whole[i] for i in places])


def _sources(index: Path, raw: Mapping[str, Any]) -> dict[str, str]:
    """Descriptions of the products that answers name as their source."""
    answers = [a for arm in raw["arms"].values() for one in arm["runs"] for a in one["answers"]]
    named = {a["source"] for a in [*answers, *(a for point in raw["curve"] for a in point["answers"])]} - {None}
    return {p.id: p.description for p in open_index(index).store if p.id in named}
