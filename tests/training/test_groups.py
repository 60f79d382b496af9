from ragqa.records import Product
from ragqa.training.groups import product_groups

LONG = (
    "A hammock woven from raw cotton on a hand loom, with two metres sixty of cloth and four metres twenty from end to "
    "end. It carries two hundred kilograms and packs into its own bag. Wash by hand in cold water and dry in the shade."
)


def groups(*rows: tuple[str, str]) -> list[int]:
    return product_groups([Product(str(i), title, text) for i, (title, text) in enumerate(rows)])


def test_products_of_one_title_belong_together_whatever_its_case_and_accents() -> None:
    assert groups(("Crêpe Pan", "steel"), ("Kettle", "blue"), ("CREPE  PAN", "iron")) == [0, 1, 0]


def test_near_identical_descriptions_belong_together() -> None:
    nearly = LONG.replace("cold water", "cool water")
    assert groups(("Red", LONG), ("Blue", nearly), ("Green", LONG[:80]), ("Other", "Something else entirely, short.")) == [
        0, 0, 2, 3,
    ]  # fmt: skip


def test_groups_chain_through_titles_and_descriptions() -> None:
    assert groups(("A", "one text of its own here"), ("B", LONG), ("A", LONG), ("C", "nothing shared with them")) == [
        0, 0, 0, 3,
    ]  # fmt: skip


def test_equal_short_descriptions_belong_together_and_different_ones_do_not() -> None:
    assert groups(("A", "n/a"), ("B", "N/A."), ("C", "none"), ("D", "")) == [0, 0, 2, 3]


def test_many_copies_of_one_description_are_one_group() -> None:
    assert groups(*[(f"Title {i}", LONG) for i in range(50)]) == [0] * 50


def test_titles_of_punctuation_alone_are_told_apart() -> None:
    assert groups(("!!!", "loud words one two"), ("???", "asking words three four")) == [0, 1]
