"""What a result says, in words that follow from its figures, and what it does not show."""

from __future__ import annotations

from typing import Final

from ragqa.report.reading import (
    COPY,
    GOLD,
    NONE,
    OWN,
    PLAIN,
    SETS,
    WITHOUT_MODEL,
    Reading,
    Row,
    group_label,
    interval,
    listed,
    number,
    probability,
    verdict,
    whole,
)

_OWN_NAME: Final = "retrieval-conditioned fine-tuning"
_COPY_NAME: Final = "retrieve and return"


def answer(reading: Reading) -> str:
    """The result in one paragraph: what was measured, how it compares, and what to use.

    A recommendation is made against the cheapest way that was measured, retrieve and return. Retrieval-conditioned
    fine-tuning is recommended only where its F1 is above it over all questions and above the same choice without the
    model, both beyond chance (95 % interval, and Holm's correction), and on no kind of question beyond chance below.
    """
    if not any(reading.cell(arm, reading.main_set) for arm in reading.arms):
        return "Nothing was measured: no question about a product was answered by any arm."
    parts = [_caution(reading), _lead(reading)]
    if reading.cell(OWN, reading.main_set):
        parts += [_against_plain(reading), _against_copy(reading), *_by_kind(reading), _without_model(reading)]
    parts += [_other_set(reading), _recommendation(reading)]
    return " ".join(part for part in parts if part)


def _caution(reading: Reading) -> str:
    if reading.raw["profile"]["name"] == "smoke":
        return "This is a toy run (profile smoke): it shows that every part works, its figures show nothing else."
    return ""


def _f1(reading: Reading, arm: str, name: str) -> str:
    return interval(reading.cell(arm, name), digits=2)


def _lead(reading: Reading) -> str:
    name = reading.main_set
    asked = "On this catalogue, "
    if not reading.cell(OWN, name):
        others = [f"{reading.label(a)} {_f1(reading, a, name)}" for a in reading.arms if reading.cell(a, name)]
        return (
            f"{asked}{_OWN_NAME} was not measured; F1 on questions about {SETS[name]} is, with 95 % intervals: "
            f"{'; '.join(others)}."
        )
    own = reading.cell(OWN, name) or {}
    lead = (
        f"{asked}{_OWN_NAME} gives F1 {_f1(reading, OWN, name)} on {whole(own['n'])} questions about "
        f"{whole(own['products'])} {SETS[name]} (in brackets 95 % intervals)"
    )
    if reading.cell(PLAIN, name):
        lead += f" against {_f1(reading, PLAIN, name)} for plain fine-tuning"
    if reading.cell(COPY, name):
        lead += f"; returning the first candidate's text, without a generator, gives {_f1(reading, COPY, name)}"
    return lead + "."


def _difference(pair: Row) -> str:
    if pair.get("p_holm") is None:
        return f"difference {interval(pair, 'difference')}"
    p = probability(pair["p_holm"])
    return f"difference {interval(pair, 'difference')}, corrected p {p if p.startswith('<') else f'= {p}'}"


def _against_plain(reading: Reading) -> str:
    pair = reading.pair(OWN, PLAIN, reading.main_set)
    found = verdict(pair)
    if pair is None or found == "unknown":
        return ""
    if found == "above":
        return f"It is above plain fine-tuning ({_difference(pair)})."
    if found == "below":
        return f"It is BELOW plain fine-tuning ({_difference(pair)})."
    return (
        f"From plain fine-tuning it does not differ beyond chance ({_difference(pair)}): this run does not show that "
        f"retrieval helps fine-tuning{_too_few(pair)}."
    )


def _against_copy(reading: Reading) -> str:
    pair = reading.pair(OWN, COPY, reading.main_set)
    found = verdict(pair)
    if pair is None or found == "unknown":
        return (
            "" if reading.cell(COPY, reading.main_set) is None else f"The difference from {_COPY_NAME} has no interval."
        )
    if found == "above":
        return f"Over all questions it is above {_COPY_NAME} ({_difference(pair)})."
    if found == "below":
        return f"Over all questions it is BELOW {_COPY_NAME} ({_difference(pair)})."
    if not any(pair[key] for key in ("difference", "low", "high")):
        return f"Over all questions it scores the same as {_COPY_NAME}."
    holds = "whose interval holds zero" if pair["low"] <= 0 <= pair["high"] else "not beyond chance once corrected"
    return (
        f"Over all questions this run does not show that the fine-tuned model is better than {_COPY_NAME} "
        f"({_difference(pair)}, {holds}){_too_few(pair)}."
    )


def _too_few(pair: Row) -> str:
    """Whether it was asked often enough; questions about one product count as one, since they are not independent."""
    needed = pair.get("needed")
    if needed is None:
        return ""
    if pair["products"] < needed:
        return (
            f"; asking about {whole(pair['products'])} products is too little to see a difference of one point (0.01), "
            f"for which about {whole(needed)} would be needed"
        )
    return f"; asking about {whole(pair['products'])} products is enough to see a difference of one point (0.01)"


def _by_kind(reading: Reading) -> list[str]:
    pairs = {kind: reading.pair(OWN, COPY, reading.main_set, kind) for kind in reading.kinds}
    known = {kind: pair for kind, pair in pairs.items() if pair is not None and verdict(pair) != "unknown"}
    if not known:
        return []
    named = {kind: f"{group_label(kind)} ({interval(pair, 'difference')})" for kind, pair in known.items()}
    below = [named[kind] for kind, pair in known.items() if verdict(pair) == "below"]
    lower = [named[kind] for kind, pair in known.items() if verdict(pair) == "open" and pair["difference"] < 0]
    above = [named[kind] for kind, pair in known.items() if verdict(pair) == "above"]
    sentences = []
    if below:
        sentences.append(f"By kind of question it is BELOW {_COPY_NAME} on: {listed(below)}.")
    if lower:
        sentences.append(f"It is lower, though not beyond chance, on: {listed(lower)}.")
    if above:
        sentences.append(f"It is above on: {listed(above)}.")
    if not below and not lower:
        sentences.append("It is lower on no kind of question.")
    return sentences


def _without_model(reading: Reading) -> str:
    pair = reading.pair(OWN, WITHOUT_MODEL, reading.main_set)
    found = verdict(pair)
    if pair is None or found == "unknown":
        return ""
    score = _f1(reading, WITHOUT_MODEL, reading.main_set)
    lead = f"The same choice of source, fitted without the language model, gives {score}"
    if found == "above":
        return f"{lead}: the model adds to it ({_difference(pair)})."
    if found == "below":
        return f"{lead}, which is better: the model does harm ({_difference(pair)})."
    told = verdict(reading.pair(OWN, COPY, reading.main_set)) == "open"  # how many questions it takes
    return (
        f"{lead}, as good within chance ({_difference(pair)}), so this run does not show that the "
        f"language model adds anything{'' if told else _too_few(pair)}."
    )


def _other_set(reading: Reading) -> str:
    if "unseen" not in reading.sets:
        return "No question was about unseen products: of those this run shows nothing."
    arms = [(OWN, _OWN_NAME), (PLAIN, "plain fine-tuning"), (COPY, _COPY_NAME)]
    found = [f"{label} {_f1(reading, arm, 'seen')}" for arm, label in arms if reading.cell(arm, "seen")]
    return f"On products that training saw: {', '.join(found)}." if found else ""


def recommended(reading: Reading) -> str | None:
    """The arm that the figures speak for, or None where they cannot (retrieve and return was not measured).

    The ceiling, which is given the right product, is nobody's choice.
    """
    name = reading.main_set
    if reading.cell(COPY, name) is None:
        return None
    better = [
        arm for arm in reading.arms if arm not in (COPY, GOLD) and verdict(reading.pair(arm, COPY, name)) == "above"
    ]
    if OWN in better:
        worse = [kind for kind in reading.kinds if verdict(reading.pair(OWN, COPY, name, kind)) == "below"]
        beaten_by = [arm for arm in better if verdict(reading.pair(OWN, arm, name)) == "below"]
        without = verdict(reading.pair(OWN, WITHOUT_MODEL, name))
        if worse:
            return COPY
        if without in ("open", "below"):
            return WITHOUT_MODEL
        if not beaten_by:
            return OWN
        better = beaten_by
    if WITHOUT_MODEL in better:
        return WITHOUT_MODEL
    return max(better, key=lambda arm: (reading.cell(arm, name) or {"mean": 0.0})["mean"], default=COPY)


def _recommendation(reading: Reading) -> str:
    chosen = recommended(reading)
    if chosen is None:
        return "Retrieve and return was not measured, so nothing is recommended."
    if chosen == COPY:
        own = reading.cell(OWN, reading.main_set)
        above = verdict(reading.pair(OWN, COPY, reading.main_set)) == "above"
        if own and above:
            return (
                f"Use {_COPY_NAME}{_speed(reading, COPY)}, unless hardly any question is of the kinds on which the "
                "fine-tuned model is below it."
            )
        return f"Use {_COPY_NAME}{_speed(reading, COPY)}: no other arm was shown to be better."
    if chosen == WITHOUT_MODEL:
        return f"Use the choice of source without the model{_speed(reading, WITHOUT_MODEL)}."
    if chosen == OWN:
        return f"Use {_OWN_NAME}{_speed(reading, OWN)}."
    return f"Use {reading.label(chosen)}{_speed(reading, chosen)}, the best of what was shown to be better."


def _speed(reading: Reading, arm: str) -> str:
    own, copy = reading.cost(arm), reading.cost(COPY)
    if own is None or own.get("median_ms") is None:
        return ""
    speed = f" (median {number(own['median_ms'], 0)} ms a question"
    if arm != COPY and copy is not None and copy.get("median_ms") is not None:
        speed += f", {_COPY_NAME} {number(copy['median_ms'], 0)} ms"
    return speed + ")"


def not_shown(reading: Reading) -> list[str]:
    """What the figures must not be taken for, each point a sentence or two."""
    raw, setup = reading.raw, reading.raw["setup"]
    seeds = sorted({row["seed"] for row in raw["training"]})
    base = (setup.get("base") or {}).get("name", "one base model")
    with_product = [q for q in raw["questions"] if q["product_id"] is not None]
    several = sum(bool(q["ambiguous"]) for q in with_product)
    points = [
        "Unseen is not unknown: the descriptions of unseen products are in the index, for every arm that retrieves. Unseen "
        "means that training did not read them.",
        "The questions are made from titles and descriptions by rules, not typed by shoppers. What shoppers ask, and how "
        "often of which kind, is not known; each mean weighs the kinds as they were asked here.",
        f"{several:,} of {len(with_product):,} questions with a product fit several products, so no way of answering can be "
        "right on all of them. They count in every mean, and are reported apart with their ceiling.",
        "The reference is the cleaned description, cut where the answer's budget "
        f"({setup.get('answer_tokens', NONE)} tokens) cuts it, the same for all arms. Nothing is dropped from a mean: an empty "
        "or missing answer scores zero.",
        "A score says how many words an answer shares with the description. Nobody read the answers to judge them.",
        f"Thresholds (abstaining: {setup.get('min_confidence', NONE)}) and choices of source were set on validation questions "
        "only, the retriever's confidence when the index was built, on other questions made from the same catalogue. "
        "Answers to questions that have a product are forced in all means; the threshold matters for abstention only.",
        f"It is one catalogue, {raw['catalogue']['name']} ({raw['catalogue']['products']:,} products). The intervals are over "
        "products of it, not over catalogues.",
        f"It is one base model, {base}, with one recipe a mode (under Set-up). Another model or recipe may do better or worse "
        "in any arm.",
    ]
    if len(seeds) == 1:
        points.append(
            f"Every training ran once (seed {seeds[0]}). The intervals hold the chance of "
            "which products were asked about, not that of another seed."
        )
    elif seeds:
        points.append(
            f"Every mean is over {len(seeds)} seeds, whose spread is reported apart; the "
            "intervals hold the chance of which products were asked about."
        )
    points.append(
        f"Time and memory are those of one machine ({setup.get('machine', NONE)}, {setup.get('device', NONE)}), "
        "one question after the other."
    )
    if missing := [name for name in SETS if name not in reading.sets]:
        points.append(f"Nothing is shown about {listed([SETS[name] for name in missing])}: no question was about them.")
    return points
