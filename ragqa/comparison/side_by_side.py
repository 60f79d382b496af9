"""One question through the arms, side by side: what the benchmark measures, to be looked at."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from ragqa import models
from ragqa.answerer import Answerer
from ragqa.comparison.arms import ARMS, Asked, Catalogue, Given, System
from ragqa.errors import InputError
from ragqa.evaluation.scores import exact_match, token_overlap
from ragqa.generation.adapter import Adapter, Mode, read_adapter
from ragqa.generation.provenance import spans
from ragqa.index.storage import on_disk
from ragqa.progress import say
from ragqa.records import Product, Retrieval, Span, grounded
from ragqa.training.questions import LabelledQuestion
from ragqa.training.recipe import Recipe

# In this order: what is the plainest first, what was trained most last.
SHOWN: Final = ("copy", "base", "base_context", "plain", "retrieval_context")
_RETRIEVED: Final = 10


@dataclass(frozen=True, slots=True)
class ArmAnswer:
    """What one arm answered.

    Attributes:
        name: in `ARMS`.
        label, about: for readers.
        answer: its text.
        source: the product that it names as its source, or that most of what it wrote with context comes from.
        confidence: its probability that this is the product asked for, None if it gives none.
        seconds: from the question to the answer, search included where the arm makes one; models were loaded before.
        candidates: the products that were shown to models with context.
        spans: which parts of the answer stand in which candidate's description.
        f1, exact_match: measures of the benchmark against the product whose title the question quotes; None where it
            quotes none, or the title of several.
    """

    name: str
    label: str
    about: str
    answer: str
    source: Product | None
    confidence: float | None
    seconds: float
    candidates: tuple[Product, ...]
    spans: tuple[Span, ...]
    f1: float | None
    exact_match: bool | None

    @property
    def grounded(self) -> float:
        """Share of its characters that stand in a candidate's description."""
        return grounded(self.answer, self.spans)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary; of products their id and title."""
        return asdict(self) | {
            "source": _named(self.source) if self.source else None,
            "candidates": [_named(product) for product in self.candidates],
            "grounded": round(self.grounded, 4),
        }


@dataclass(frozen=True, slots=True)
class MissingArm:
    """An arm that would need an adapter.

    Attributes:
        how: commands that bring it, the adapter's first.
    """

    name: str
    label: str
    about: str
    how: tuple[str, ...]


class SideBySide:
    """The arms for which there are models, over one index.

    Args:
        systems: an Answerer for "base", and for those of "plain" and "retrieval" that there are; they are loaded with the
            first question.
    """

    def __init__(self, systems: Mapping[System, Answerer]) -> None:
        self._systems = dict(systems)

    @property
    def arms(self) -> tuple[str, ...]:
        """The names of those that are asked, in order."""
        return tuple(name for name in SHOWN if ARMS[name].system in {"none", *self._systems})

    @property
    def missing(self) -> tuple[Mode, ...]:
        """The kinds of adapters that would bring further arms."""
        return tuple(mode for mode in ("plain", "retrieval") if mode not in self._systems)

    def load(self) -> None:
        """Load all models; else the first question does.

        Raises:
            ModelError: one cannot be found or loaded.
        """
        for answerer in self._systems.values():
            _ = answerer.generator

    def ask(self, question: str, answerer: Answerer | None = None) -> Iterator[ArmAnswer]:
        """Every arm's answer, as it is given.

        Args:
            question: as for `Answerer.ask`.
            answerer: whose index is searched; None takes the one given first.

        Raises:
            QuestionError: the question is empty or too long.
            ModelError: a model cannot be loaded.
        """
        searched = answerer or self._systems["base"]
        catalogue, took, asked = self._prepared(question, searched)
        shown = tuple(c.product for c in asked.found.candidates[: catalogue.shown])
        right = _quoted(asked.found)
        for name in self.arms:
            arm = ARMS[name]
            use = None if arm.system == "none" else self._systems[arm.system]
            started = time.perf_counter()
            (given,) = arm.answer([asked], replace(catalogue, answerer=use))
            seconds = time.perf_counter() - started + (took if arm.context != "none" else 0.0)
            yield _answer(name, given, seconds, shown, right, catalogue)

    def _prepared(self, question: str, searched: Answerer) -> tuple[Catalogue, float, Asked]:
        searched.retriever.retrieve([question], _RETRIEVED)  # the first search of all takes longer, and is not timed
        self.load()
        started = time.perf_counter()
        (found,) = searched.retriever.retrieve([question], _RETRIEVED)
        took = time.perf_counter() - started
        base, recipe = self._systems["base"], Recipe()
        trained = self._systems.get("retrieval", self._systems.get("plain", base)).trained
        catalogue = Catalogue(
            products=on_disk(searched.index).store,
            tokenizer=base.generator.tokenizer,
            shown=trained.context_products if trained else recipe.products,
            context_tokens=trained.context_tokens if trained else recipe.context_tokens,
            answer_tokens=trained.max_new_tokens if trained else recipe.max_new_tokens,
        )
        # The arms that write are asked about products alone; which it is they are not told.
        first = found.candidates[0]
        label = LabelledQuestion(found.question.text, "exact", first.product.id, found.question.subject)
        return catalogue, took, Asked(label, found, first, ())


def side_by_side(
    answerer: Answerer,
    *,
    plain: str | None = None,
    retrieval: str | None = None,
    generator: str | None = None,
    own: bool = True,
    device: str = "auto",
    dtype: str = "auto",
) -> SideBySide:
    """The arms over an Answerer's index. Its own generator is one of them, if it is the base model or was trained here.

    Args:
        answerer: whose index and encoder are shared.
        plain, retrieval: folders of adapters, or of the models they were merged into.
        generator: the base model; None takes the adapters', the Answerer's, or the default.
        own: take the Answerer's generator; off where a server runs it.
        device, dtype: see ``--device`` and ``--dtype``.

    Raises:
        InputError: an adapter was trained the other way, or both on different base models.
        ModelError: there is no adapter of ragqa's in a folder.
    """
    trained = [_trained(folder, mode) for folder, mode in ((plain, "plain"), (retrieval, "retrieval")) if folder]
    systems: dict[System, Answerer] = {}
    if own and answerer.trained and all(one.mode != answerer.trained.mode for one in trained):
        systems[answerer.trained.mode] = answerer
        trained.append(answerer.trained)
    bases = {one.base["weights_sha256"]: one for one in trained}
    if len(bases) > 1:
        first, second = list(bases.values())[:2]
        raise InputError(
            f"{first.folder} was trained on {first.base['name']}, {second.folder} on {second.base['name']}: these are "
            "not the same model, and the comparison would not tell what the training did"
        )
    bare = answerer.generator_name if own and not answerer.trained and answerer.adapter_name is None else None
    base = generator or next((str(one.base["name"]) for one in trained), bare or models.DEFAULT_GENERATOR)
    if base == bare:
        systems["base"] = answerer
    places: dict[System, dict[str, Any]] = {"base": {"generator": base}}
    for one in trained:
        folder = str(one.folder)
        places[one.mode] = {"generator": folder} if one.merged else {"generator": base, "adapter": folder}
    for name, place in places.items():
        if name not in systems:
            systems[name] = Answerer(
                answerer.index, answerer.retriever.embedder, device=device, dtype=dtype, **place
            )  # fmt: skip
    arms = SideBySide(systems)
    say(f"arms: {', '.join(ARMS[name].label for name in arms.arms)}")
    return arms


def how_to_get(mode: Mode, index: str, option: str) -> MissingArm:
    """What a missing arm is, and how to have it.

    Args:
        mode: of its adapter.
        index: as it is named in commands.
        option: a command line that the adapter's folder is added to.
    """
    name = next(name for name in SHOWN if ARMS[name].system == mode)
    out = f"adapters/{mode}"
    commands = (f"ragqa fine-tune {index} --mode {mode} --out {out}", f"{option} {out}")
    return MissingArm(name, ARMS[name].label, ARMS[name].about, commands)


def _trained(folder: str, mode: str) -> Adapter:
    found = read_adapter(folder)
    if found is None:
        raise InputError(f"{folder}: no adapter that ragqa trained; python -m ragqa.fine_tune --mode {mode} makes one")
    if found.mode != mode:
        raise InputError(f"{folder}: was trained with --mode {found.mode}, not {mode}")
    return found


def _quoted(found: Retrieval) -> Product | None:
    """The product whose title the question quotes, if it is one alone."""
    exact = [c.product for c in found.candidates if c.exact]
    return exact[0] if len(exact) == 1 else None


def _answer(
    name: str, given: Given, seconds: float, shown: Sequence[Product], right: Product | None, catalogue: Catalogue
) -> ArmAnswer:
    reference = [catalogue.text(right)] if right else []
    text = given.text
    return ArmAnswer(
        name=name,
        label=ARMS[name].label,
        about=ARMS[name].about,
        answer=text,
        source=next((p for p in shown if p.id == given.source), None),
        confidence=None if given.confidence is None else round(given.confidence, 4),
        seconds=round(seconds, 4),
        candidates=tuple(shown),
        spans=spans(text, shown, given.source),
        f1=round(float(token_overlap([text], reference)[0, 2]), 4) if right else None,
        exact_match=bool(exact_match([text], reference)[0]) if right else None,
    )


def _named(product: Product) -> dict[str, str]:
    return {"id": product.id, "title": product.title}
