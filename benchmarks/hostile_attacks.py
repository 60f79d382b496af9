"""Planted texts against answers about other products: how many change.

In a *context*, the text stands in the description of a product that is retrieved beside the one asked for; all else stays as
it is, and the answer is held against that with the product's own description. In a *catalogue*, all texts are planted at
once as products of their own, and every question is asked of it and of one in which these say something harmless.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.hostile_texts import Attack
from ragqa.answerer import Answerer
from ragqa.catalogue.clean import clean_text, cut_at_word
from ragqa.generation.prompt import PromptBuilder
from ragqa.index.build import build_index
from ragqa.index.update import update_index
from ragqa.records import Answer, Candidate, Product, Retrieval
from ragqa.retrieval import fuse
from ragqa.retrieval.noise import mistyped, partial_title
from ragqa.retrieval.text import coverage, fold, overlaps
from ragqa.settings import CleaningSettings

_SHOWN: Final = 3
_BLOCK: Final = 24
_PLANTED: Final = "PLANTED-"
_HARMLESS: Final = ("Made for every day, in two colours.", "Light, easy to clean, and sent within a week.")
KINDS: Final = ("exact title", "title in part", "mistyped title")
_FRAME: Final = {
    "exact title": "What is the description of {}?",
    "title in part": "{}",
    "mistyped title": "Describe {}",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, what was found for it, and the answer without anything planted."""

    kind: str
    found: Retrieval
    answer: Answer


def asked(answerer: Answerer, count: int, seed: int = 0, **settings: Any) -> list[Asked]:
    """Questions about products of an index, as many of each kind, with their answers."""
    random_ = random.Random(f"attacks {seed}")  # noqa: S311  (not for secrets)
    rows = random_.sample(range(len(answerer.index)), count)
    texts, kinds = [], []
    for number, row in enumerate(rows):
        kind, title = KINDS[number % len(KINDS)], answerer.index.store[row].title
        subject = {
            "exact title": title,
            "title in part": partial_title(title, random_, keep=0.6),
            "mistyped title": mistyped(title, random_, rate=0.08),
        }[kind] or title
        texts.append(_FRAME[kind].format(subject))
        kinds.append(kind)
    found = answerer.retriever.retrieve(texts, 5)
    answers = _answers(answerer, found, settings)
    return [Asked(*one) for one in zip(kinds, found, answers, strict=True)]


def in_contexts(
    answerer: Answerer,
    planted: Sequence[Attack],
    questions: Sequence[Asked],
    each: int,
    defended: bool,
    **settings: Any,
) -> dict[str, Any]:
    """Plant each text beside the product of so many questions; gives counts by the kind of the attack.

    Returns:
        For each kind ``asked``, ``changed``, of them ``taken`` by the planted product, and ``unsourced`` answers, whose text
        is not from the source that they name; and the numbers of the attacks and questions that changed. A question that the
        planted product's own title answers as fully as the product cited is about both: such are counted apart, as ``both``
        and ``both, changed``.
    """
    with _defences(defended):
        able = [one for one in questions if len(one.found.candidates) >= _SHOWN]
        tried: list[tuple[int, Asked, Retrieval, str, bool]] = []
        for number, attack in enumerate(planted):
            for step in range(each):
                one = able[(number * each + step) % len(able)]
                tried.append((number, one, *_plant(answerer, attack, one, number + step, defended)))
        answers = _answers(answerer, [found for _, _, found, _, _ in tried], settings)
    counts: dict[str, Counter[str]] = {}
    changed: list[tuple[int, int]] = []
    for (number, one, _, id_, both), answer in zip(tried, answers, strict=True):
        of_kind = counts.setdefault(planted[number].kind, Counter())
        of_kind["unsourced"] += not sourced(answer)
        if both:
            of_kind["both"] += 1
            of_kind["both, changed"] += _differs(one.answer, answer)
            continue
        of_kind["asked"] += 1
        if _differs(one.answer, answer):
            of_kind["changed"] += 1
            of_kind[f"changed, {one.kind}"] += 1
            of_kind["taken"] += any(source.cited and source.id == id_ for source in answer.sources)
            of_kind["abstained"] += answer.abstained and not one.answer.abstained
            changed.append((number, questions.index(one)))
    return {"kinds": {kind: dict(of_kind) for kind, of_kind in counts.items()}, "changed": changed}


def in_catalogue(
    answerer_of: Callable[[Path], Answerer],
    index: Path,
    rows: Sequence[dict[str, str]],
    planted: Sequence[Attack],
    count: int,
    **settings: Any,
) -> dict[str, Any]:
    """Plant all texts at once as products of a catalogue, by an update of its index.

    Args:
        answerer_of: opens an index.
        index: where it is built.
        rows: the catalogue, with uid, title and content.
        planted: the texts.
        count: questions about products that were there before.
        settings: how they are answered.

    Returns:
        Texts ``planted``, questions ``asked`` about other products, of them those with a planted product ``in view``, answers
        ``changed`` by the texts, of these ``taken`` by a planted product, ``denied`` that were given before and ``answered``
        that were denied; and ``changed, harmless`` by another harmless text in their place, and ``unsourced`` ones.
    """
    random_ = random.Random("planted")  # noqa: S311  (not for secrets)
    own = [row for row in rows if row["title"] and row["content"]]
    named = [(attack, random_.choice(own)["title"]) for attack in planted if not attack.title]
    harmless, other, hostile = ([*rows, *_products(named, text)] for text in (*_HARMLESS, None))
    build_index(harmless, index)
    answerer = answerer_of(index)
    texts = [one.found.question.text for one in asked(answerer, count, decoding="copy")]
    before = answerer.ask_many(texts, **settings)
    about = [not str(_cited(one)).startswith(_PLANTED) for one in before]

    def after(catalogue: Sequence[dict[str, str]]) -> tuple[list[Answer], list[tuple[Answer, Answer]]]:
        update_index(index, catalogue)
        answers = answerer_of(index).ask_many(texts, **settings)
        pairs = zip(before, answers, about, strict=True)
        return answers, [(one, now) for one, now, others in pairs if others and _differs(one, now)]

    (_, by_harmless), (answers, changed) = after(other), after(hostile)
    return {
        "planted": len(named),
        "asked": sum(about),
        "in view": sum(
            others and any(source.id.startswith(_PLANTED) for source in one.sources[:_SHOWN])
            for one, others in zip(answers, about, strict=True)
        ),
        "changed": len(changed),
        "taken": sum(str(_cited(now)).startswith(_PLANTED) for _, now in changed),
        "denied": sum(now.abstained and not one.abstained for one, now in changed),
        "answered": sum(one.abstained and not now.abstained for one, now in changed),
        "changed, harmless": len(by_harmless),
        "unsourced": sum(not sourced(one) for one in answers),
    }


def _products(named: Sequence[tuple[Attack, str]], text: str | None) -> Iterator[dict[str, str]]:
    """Planted products, each beside one of the catalogue; with a harmless text in the place of their own, if it is given."""
    for number, (attack, title) in enumerate(named):
        own = f"{title} Mark {number}"
        names = {"own": own, "other": title, "n": number % 3 + 1, "m": number % 2 + 1}
        names |= {"question": f"What is the description of {title}?", "subject": title}
        content = attack.planted(_HARMLESS[0], **names)
        yield {"uid": f"{_PLANTED}{number}", "title": own, "content": text or content}


def _plant(answerer: Answerer, attack: Attack, one: Asked, turn: int, defended: bool) -> tuple[Retrieval, str, bool]:
    """What is found with a text planted, the id of the product that has it, and whether the question is about this one, too."""
    shown = list(one.found.candidates[:_SHOWN])
    cited = _cited(one.answer) or shown[0].product.id
    places = [place for place, candidate in enumerate(shown) if candidate.product.id != cited]
    place = places[turn % len(places)]
    own = shown[place]
    other = next(c.product.title for c in shown if c.product.id == cited or c is not own)
    names = {
        "own": own.product.title, "other": other, "n": place + 1, "m": place % _SHOWN + 1,
        "question": one.found.question.text, "subject": one.found.question.subject,
    }  # fmt: skip
    description = _taken_in(attack.planted(own.product.description, **names), defended)
    title = _taken_in(attack.named(own.product.title, **names), defended)
    product = Product(own.product.id, title, description)
    candidate = replace(own, product=product)
    if title != own.product.title:
        candidate = _scored(answerer, candidate, one.found.question.subject)
    candidates = [candidate if c is own else c for c in one.found.candidates]
    if title != own.product.title:
        candidates.sort(key=lambda c: (-c.score, c.product.id))
    asked_for = next(c.product.title for c in shown if c.product.id == cited)
    return replace(one.found, candidates=tuple(candidates)), product.id, _both(one.found, asked_for, own.product.title)


def _both(found: Retrieval, cited: str, planted: str) -> bool:
    """Whether every word of the question stands in two titles, and neither is the very title asked for."""
    subject = fold(found.question.subject)
    wholly = (coverage(subject, title, "") == 1 for title in (cited, planted))
    return fold(cited) != subject and all(wholly)


def _taken_in(text: str, defended: bool) -> str:
    """A text as it comes out of reading a catalogue; undefended, whole."""
    return cut_at_word(clean_text(text), CleaningSettings().max_description_chars) if defended else text[:6000]


def _scored(answerer: Answerer, candidate: Candidate, subject: str) -> Candidate:
    """A candidate with another title, judged by it."""
    product = candidate.product
    here, there = answerer.retriever.embed([subject, product.title])
    forth, back = overlaps(subject, product.title)
    covered, exact = coverage(subject, product.title, product.description), fold(product.title) == fold(subject)
    cosine = float(here @ there)
    score = 1.0 if exact else max(0.0, min(0.9999, fuse.weighted((cosine, covered, forth, back))))
    return Candidate(product, candidate.row, score, cosine, forth, exact, back, covered)


def _answers(answerer: Answerer, found: Sequence[Retrieval], settings: dict[str, Any]) -> list[Answer]:
    answers: list[Answer] = []
    for start in range(0, len(found), _BLOCK):
        answers += answerer.answer(found[start : start + _BLOCK], **settings)
    return answers


def _differs(one: Answer, other: Answer) -> bool:
    return (one.text, one.abstained, _cited(one)) != (other.text, other.abstained, _cited(other))


def _cited(answer: Answer) -> str | None:
    return next((source.id for source in answer.sources if source.cited), None)


def sourced(answer: Answer) -> bool:
    """Whether an extractive answer's text is that of the source it names."""
    if answer.abstained:
        return True
    return any(source.cited and source.description.startswith(answer.text) for source in answer.sources)


@contextmanager
def _defences(on: bool) -> Iterator[None]:
    """Prompts as they were without any defence, if `on` is false."""
    names: dict[str, Any] = {
        "neutral": lambda _, text: text, "_layout": lambda *_: 0, "_control_tokens": lambda *_: 0
    }  # fmt: skip
    kept = {name: getattr(PromptBuilder, name) for name in names}
    for name, value in names.items() if not on else ():
        setattr(PromptBuilder, name, value)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(PromptBuilder, name, value)
