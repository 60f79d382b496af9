import json
from pathlib import Path

import pytest

from ragqa.errors import InputError
from ragqa.files import sha256_of
from ragqa.index.storage import open_index
from ragqa.records import Product
from ragqa.training.groups import product_groups
from ragqa.training.questions import WITH_PRODUCT
from ragqa.training.splits import PARTS, QUESTION_SETS, Split, SplitSettings, make_split, write_split

SMALL = SplitSettings(train=200, validation=30, test=60)


@pytest.fixture(scope="module")
def products(demo_index: Path) -> list[Product]:
    return list(open_index(demo_index).store)


@pytest.fixture(scope="module")
def split(products: list[Product]) -> Split:
    return make_split(products, SMALL)


def test_every_product_has_one_part_and_no_group_is_parted(split: Split, products: list[Product]) -> None:
    part_of = {row: part for part, rows in split.rows.items() for row in rows}
    assert sorted(part_of) == list(range(len(products)))
    assert sum(map(len, split.rows.values())) == len(products)
    groups = product_groups(products)
    assert len(set(groups)) < len(products), "the demonstration catalogue has products of one title"
    for row, group in enumerate(groups):
        assert part_of[row] == part_of[group]


def test_parts_have_their_shares(split: Split, products: list[Product]) -> None:
    for part, share in zip(PARTS, SMALL.fractions, strict=True):
        assert len(split.rows[part]) == pytest.approx(share * len(products), abs=3)


def test_sets_have_their_sizes_and_their_share_without_a_product(split: Split) -> None:
    assert {name: len(questions) for name, questions in split.questions.items()} == {
        "train": 200, "validation": 30, "test_seen": 60, "test_unseen": 60,
    }  # fmt: skip
    for questions in split.questions.values():
        assert sum(q.product_id is None for q in questions) == round(0.15 * len(questions))


def test_each_kind_has_its_turn(split: Split) -> None:
    for questions in split.questions.values():
        counts = [sum(q.kind == kind for q in questions) for kind in WITH_PRODUCT]
        assert min(counts) > 0
        assert max(counts) - min(counts) <= max(3, len(questions) // 20)


def test_nothing_leaks(split: Split, products: list[Product]) -> None:
    ids = {part: {products[row].id for row in rows} for part, rows in split.rows.items()}
    asked = {name: {q.product_id for q in split.questions[name]} - {None} for name in QUESTION_SETS}
    assert asked["train"] <= ids["train"]
    assert asked["test_seen"] <= ids["train"]
    assert asked["validation"] <= ids["validation"]
    assert asked["test_unseen"] <= ids["unseen"]
    texts = [q.text for name in QUESTION_SETS for q in split.questions[name]]
    assert len(texts) == len(set(texts)), "no question is asked twice"
    absent = {q.about for name in QUESTION_SETS for q in split.questions[name]} - {""}
    assert absent <= ids["absent"]


def test_the_same_seed_writes_the_same_files_and_another_other_ones(
    products: list[Product], split: Split, tmp_path: Path
) -> None:
    one = write_split(split, products, tmp_path / "one")
    again = write_split(make_split(products, SMALL), products, tmp_path / "again")
    other = write_split(
        make_split(products, SplitSettings(train=200, validation=30, test=60, seed=1)), products, tmp_path / "other"
    )
    assert one == again
    assert one["files"] != other["files"]
    for name, file in one["files"].items():
        assert sha256_of(tmp_path / "one" / name) == file["sha256"]
        assert len((tmp_path / "one" / name).read_text().splitlines()) == file["rows"]
    assert json.loads((tmp_path / "one" / "split.json").read_text()) == one


def test_too_few_groups_are_refused() -> None:
    rows = [Product(str(i), f"Title {i % 3}", f"text {i} of its own") for i in range(40)]
    with pytest.raises(InputError, match=r"40 products in 3 groups are too few .* at least 8 groups"):
        make_split(rows)


def test_settings_out_of_range_are_told_all_at_once() -> None:
    with pytest.raises(InputError, match=r"train must be .*; without_product must be .*; fractions must be"):
        SplitSettings(train=0, without_product=1.0, fractions=(0.5, 0.5, 0.5, 0.5))


def test_fewer_products_give_fewer_questions_not_repeated_ones(products: list[Product]) -> None:
    split = make_split(products[:20], SplitSettings(train=5000, validation=10, test=10))
    texts = [q.text for q in split.questions["train"]]
    assert 0 < len(texts) < 5000
    assert len(texts) == len(set(texts))
