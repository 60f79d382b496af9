"""Answers of all arms side by side: the best, the worst, some at random, and those the arms disagree about."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ragqa.evaluation.scores import token_overlap
from ragqa.report.blocks import Answers, Block, Paragraph, Table
from ragqa.report.reading import COPY, KINDS, NONE, OWN, Reading, Row, number

_EACH: Final = 4


@dataclass(frozen=True, slots=True)
class Shown:
    """A question that is shown, and why.

    Attributes:
        index: its place among all questions.
        why: it was chosen.
    """

    index: int
    why: str


def choose(reading: Reading, seed: int = 0, each: int = _EACH) -> list[Shown]:
    """Questions of the main set to be shown, none twice.

    Args:
        reading: of the result.
        seed: of what is chosen at random, and of the order among equals.
        each: how many for each reason.

    Returns:
        Best and worst of the retrieval-conditioned arm (of the last arm where that is missing), the widest disagreements
        with retrieve and return in both directions, then some at random, with a product and without.
    """
    questions = reading.raw["questions"]
    order = [i for i, question in enumerate(questions) if question["set"] == reading.main_set]
    random.Random(seed).shuffle(order)  # noqa: S311 - nothing secret
    asked = [i for i in order if questions[i]["product_id"] is not None]
    if not reading.arms:
        return []
    judged = OWN if OWN in reading.arms else reading.arms[-1]
    score = {i: _score(reading, judged, i) for i in asked}
    name = reading.label(judged)
    chosen: dict[int, str] = {}
    if COPY in reading.arms and judged != COPY:
        gain = {i: score[i] - _score(reading, COPY, i) for i in asked}
        _take(
            chosen, [i for i in asked if gain[i] > 0], lambda i: -gain[i], each, f"{name} above {reading.label(COPY)}"
        )
        _take(chosen, [i for i in asked if gain[i] < 0], lambda i: gain[i], each, f"{name} below {reading.label(COPY)}")
    _take(chosen, asked, lambda i: -score[i], each, f"among the best of {name}")
    _take(chosen, asked, lambda i: score[i], each, f"among the worst of {name}")
    _take(chosen, asked, lambda _: 0.0, each, "random")
    _take(chosen, [i for i in order if i not in score], lambda _: 0.0, each, "random, without a product")
    return [Shown(index, why) for index, why in chosen.items()]


def _take(chosen: dict[int, str], among: Sequence[int], key: Callable[[int], float], each: int, why: str) -> None:
    fresh = [i for i in among if i not in chosen]
    chosen.update(dict.fromkeys(sorted(fresh, key=key)[:each], why))


def blocks(reading: Reading, texts: bool, seed: int = 0) -> list[Block]:
    """The chosen questions with the answers of all arms, or only their scores where texts may not be shown."""
    shown = choose(reading, seed)
    how = Paragraph(
        f"Answers of the first training seed to {len(shown)} questions, chosen by score and at random (seed {seed}), not by "
        "hand. F1 is that of the one answer."
    )
    if not texts:
        return [how, _scores(reading, shown)]
    return [how, *(_side_by_side(reading, one) for one in shown)]


def _answer(reading: Reading, arm: str, index: int) -> Row:
    runs = reading.raw["arms"][arm]["runs"]
    found: Row = runs[0]["answers"][index] if runs else {}
    return found or {}


def _score(reading: Reading, arm: str, index: int) -> float:
    answer, reference = _answer(reading, arm, index).get("text"), reading.raw["questions"][index]["reference"]
    return float(token_overlap([answer], [reference])[0, 2])


def _f1(reading: Reading, arm: str, index: int) -> str:
    """F1 in words; a question without a product has no reference."""
    if reading.raw["questions"][index]["product_id"] is None:
        return NONE
    return number(_score(reading, arm, index), 2)


def _side_by_side(reading: Reading, one: Shown) -> Answers:
    question = reading.raw["questions"][one.index]
    rank = question["rank"]
    place = "no product" if question["product_id"] is None else f"product {question['product_id']}, {_rank(rank)}"
    title = f"Question {one.index + 1} ({one.why}): {KINDS.get(question['kind'], question['kind'])}, {place}"
    cards = []
    for arm in reading.arms:
        answer = _answer(reading, arm, one.index)
        notes = [f"F1 {_f1(reading, arm, one.index)}"]
        if answer.get("source") is not None:
            right = answer["source"] == question["product_id"]
            notes.append("source: the right product" if right else f"source: {answer['source']}")
        if answer.get("confidence") is not None:
            notes.append(f"confidence {number(answer['confidence'], 2)}")
        if answer.get("abstains"):
            notes.append("would abstain")
        cards.append((reading.label(arm), ", ".join(notes), answer.get("text") or ""))
    return Answers(title, question["text"], question["reference"] or "", cards)


def _rank(rank: int | None) -> str:
    return "not retrieved" if rank is None else f"retrieved at place {rank + 1}"


def _scores(reading: Reading, shown: Sequence[Shown]) -> Table:
    rows = []
    for one in shown:
        question = reading.raw["questions"][one.index]
        kind = KINDS.get(question["kind"], question["kind"])
        scores = [_f1(reading, arm, one.index) for arm in reading.arms]
        rank = NONE if question["product_id"] is None else _rank(question["rank"])
        rows.append([f"{one.index + 1} ({one.why})", kind, question["product_id"] or "none", rank, *scores])
    head = ["question (chosen as)", "kind", "product", "right product", *(reading.label(arm) for arm in reading.arms)]
    return Table("F1 of single answers", head, rows, words=4)
