from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragqa.catalogue.store import ProductStore, StoreWriter
from ragqa.index.changes import Changes, Comparison
from ragqa.records import Product


def compared(folder: Path, old: list[Product], new: list[Product], block: int = 3) -> tuple[Changes, list[Product]]:
    with StoreWriter(folder / "old.arrow") as writer:
        writer.add(old)
    with StoreWriter(folder / "fresh.arrow") as fresh:
        comparison = Comparison(ProductStore(folder / "old.arrow"), fresh)
        for start in range(0, len(new), block):
            comparison.add(new[start : start + block])
    return comparison.changes(), list(ProductStore(folder / "fresh.arrow"))


texts = st.sampled_from(["Lamp", "lamp", "Lamp é", "Kettle", ""])
catalogues = st.dictionaries(st.integers(0, 12), st.tuples(texts, texts), max_size=10)


def products(catalogue: dict[int, tuple[str, str]]) -> list[Product]:
    return [Product(str(id_), *texts) for id_, texts in catalogue.items()]


@settings(deadline=None)
@given(catalogues.filter(len), catalogues)
def test_changes_are_those_of_comparing_all_texts(
    tmp_path_factory: pytest.TempPathFactory, old: dict[int, tuple[str, str]], new: dict[int, tuple[str, str]]
) -> None:
    changes, fresh = compared(tmp_path_factory.mktemp("c"), products(old), products(new))
    assert changes.kept.tolist() == [row for row, id_ in enumerate(old) if new.get(id_) == old[id_]]
    assert changes.added == len(set(new) - set(old))
    assert changes.changed == sum(id_ in new and new[id_] != text for id_, text in old.items())
    assert changes.deleted == len(set(old) - set(new))
    assert fresh == [product for product in products(new) if product not in products(old)]
    assert bool(changes) == (old != new)


def test_what_moves_from_one_field_to_the_next_is_a_change(tmp_path: Path) -> None:
    changes, fresh = compared(tmp_path, [Product("1", "Red lamp", "Big")], [Product("1", "Red", "lamp Big")])
    assert (changes.changed, changes.unchanged, len(fresh)) == (1, 0, 1)


def test_products_of_many_batches_in_another_order_are_unchanged(tmp_path: Path) -> None:
    old = [Product(str(n), f"Title {n} ü", f"Text {n}") for n in range(9000)]
    changes, fresh = compared(tmp_path, old, old[::-1], 4096)
    assert (changes.unchanged, fresh, bool(changes)) == (9000, [], False)
