"""Which products are trained on, which only asked about, which held out; and the questions about each.

Groups of products (see `groups`) are never parted, so nothing about a test product is seen in training:

=============  =====================================================================================
``train``      trained on; `test_seen` asks new questions about some of them
``validation`` asked during training, for early stopping and for every threshold
``unseen``     in the index, never trained on: `test_unseen` asks about them
``absent``     held out of the search: questions about them have no product to be found
=============  =====================================================================================
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ragqa.errors import InputError
from ragqa.files import replacing, write_json, write_json_lines
from ragqa.records import Product
from ragqa.settings import Settings, at_least
from ragqa.training.groups import product_groups
from ragqa.training.questions import (
    TEMPLATES,
    WITH_PRODUCT,
    LabelledQuestion,
    QuestionMaker,
    to_json,
)

PARTS: Final = ("train", "validation", "unseen", "absent")
QUESTION_SETS: Final = ("train", "validation", "test_seen", "test_unseen")


@dataclass(frozen=True, slots=True)
class SplitSettings(Settings):
    """Sizes of a split.

    Attributes:
        train: questions to train on.
        validation: questions to watch training with.
        test: questions in each of the two test sets.
        without_product: share of the questions of every set that have no product: half of them `absent`, half
            `nonsense`.
        fractions: shares of the products for train, validation, unseen and absent.
        seed: the same seed gives the same files.
    """

    train: int = 1000
    validation: int = 100
    test: int = 300
    without_product: float = 0.15
    fractions: tuple[float, float, float, float] = (0.6, 0.1, 0.2, 0.1)
    seed: int = 0

    def _problems(self) -> list[str]:
        problems = at_least(self, {"train": 1, "validation": 1, "test": 1})
        if not 0 <= self.without_product < 1:
            problems.append(f"without_product must be from 0 to below 1, not {self.without_product!r}")
        if len(self.fractions) != len(PARTS) or min(self.fractions) <= 0 or abs(sum(self.fractions) - 1) > 1e-6:
            problems.append(f"fractions must be four shares above 0 that add up to 1, not {self.fractions!r}")
        return problems


@dataclass(frozen=True, slots=True)
class Split:
    """A split and its questions.

    Attributes:
        rows: by part, the rows of its products, ascending.
        questions: by set, its questions.
        groups: number of groups of products.
    """

    settings: SplitSettings
    rows: Mapping[str, tuple[int, ...]]
    questions: Mapping[str, tuple[LabelledQuestion, ...]]
    groups: int


def make_split(
    products: Sequence[Product], settings: SplitSettings | None = None, maker: QuestionMaker | None = None
) -> Split:
    """Split products by group and make questions about each part.

    Args:
        products: all of them, by row.
        settings: sizes and seed.
        maker: makes the questions; None makes one with the built-in templates and the seed.

    Raises:
        InputError: there are too few products or groups for four parts.
    """
    use = settings or SplitSettings()
    rows, groups = _part_rows(products, use)
    maker = maker or QuestionMaker(products, TEMPLATES, use.seed)
    about = {"train": "train", "validation": "validation", "test_seen": "train", "test_unseen": "unseen"}
    sizes = {"train": use.train, "validation": use.validation, "test_seen": use.test, "test_unseen": use.test}
    taken: set[str] = set()
    questions = {}
    for number, name in enumerate(QUESTION_SETS):
        made = _ask(maker, rows[about[name]], rows["absent"], sizes[name], use, name, number, taken)
        taken |= {question.text for question in made}
        questions[name] = tuple(made)
    return Split(use, rows, questions, groups)


def _part_rows(products: Sequence[Product], use: SplitSettings) -> tuple[dict[str, tuple[int, ...]], int]:
    group_of = product_groups(products)
    members: dict[int, list[int]] = {}
    for row, group in enumerate(group_of):
        members.setdefault(group, []).append(row)
    if len(members) < 2 * len(PARTS):
        raise InputError(
            f"{len(products)} products in {len(members)} groups are too few to split into {', '.join(PARTS)}; "
            f"at least {2 * len(PARTS)} groups with titles and descriptions of their own are needed"
        )
    order = sorted(members)
    random.Random(f"split/{use.seed}").shuffle(order)  # noqa: S311
    # Each group goes to the part that is furthest behind its share; large groups first would be unfair to none,
    # but seeded order keeps parts alike in kind.
    rows: dict[str, list[int]] = {part: [] for part in PARTS}
    for group in order:
        part = min(PARTS, key=lambda p: (len(rows[p]) / use.fractions[PARTS.index(p)], PARTS.index(p)))
        rows[part] += members[group]
    return {part: tuple(sorted(found)) for part, found in rows.items()}, len(members)


def _ask(
    maker: QuestionMaker,
    rows: Sequence[int],
    absent: Sequence[int],
    count: int,
    use: SplitSettings,
    name: str,
    number: int,
    taken: set[str],
) -> list[LabelledQuestion]:
    """`count` different questions, kinds in turn, over the products in a seeded order; fewer if there are no more."""
    random_ = random.Random(f"{name}/{use.seed}")  # noqa: S311
    without = round(count * use.without_product)
    made: dict[str, LabelledQuestion] = {}

    def collect(pool: Sequence[int], kinds: Sequence[Any], until: int) -> None:
        order = random_.sample(list(pool), len(pool))
        # Several rounds over the products: every round asks each of them for another kind.
        for turn in range(2 * len(kinds)):
            for place, row in enumerate(order):
                if len(made) >= until:
                    return
                kind = kinds[(place + turn) % len(kinds)]
                question = maker.about(row, kind, number * 100 + turn)
                if question and question.text not in taken and question.text not in made:
                    made[question.text] = question

    collect(rows, WITH_PRODUCT, count - without)
    with_product = len(made)
    collect(absent, ("absent", "nonsense"), with_product + without)
    questions = list(made.values())
    random_.shuffle(questions)
    return questions


def write_split(split: Split, products: Sequence[Product], folder: str | Path) -> dict[str, Any]:
    """Write questions (JSON lines), the parts' product ids, and ``split.json`` with counts and SHA-256 of each file.

    Returns:
        What stands in ``split.json``; the same products and settings give the same.

    Raises:
        StorageError: the folder cannot be written.
    """
    path = Path(folder)
    files: dict[str, dict[str, Any]] = {}
    for name, questions in split.questions.items():
        sha256 = write_json_lines(path / f"{name}.jsonl", map(to_json, questions))
        files[f"{name}.jsonl"] = {"rows": len(questions), "sha256": sha256}
    for part, rows in split.rows.items():
        with replacing(path / f"products_{part}.txt") as file:
            file.write("".join(f"{products[row].id}\n" for row in rows).encode())
        files[f"products_{part}.txt"] = {"rows": len(rows), "sha256": file.sha256}
    manifest = {
        "settings": split.settings.to_dict() | {"fractions": list(split.settings.fractions)},
        "products": len(products),
        "groups": split.groups,
        "kinds": {
            name: {
                kind: {
                    "questions": sum(q.kind == kind for q in questions),
                    "ambiguous": sum(q.kind == kind and q.ambiguous for q in questions),
                }
                for kind in dict.fromkeys(sorted(q.kind for q in questions))
            }
            for name, questions in split.questions.items()
        },
        "files": files,
    }
    write_json(path / "split.json", manifest)
    return manifest
