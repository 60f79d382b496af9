"""What an index takes is told before it is built, and what is asked for is kept to."""

import numpy as np
import pytest

from ragqa.errors import InputError
from ragqa.index.recipe import RECIPES, Budgets, lists_for, new_index, plan
from ragqa.retrieval.dense import import_faiss

MILLION = 1_300_000


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_predicted_memory_is_what_the_written_index_takes(recipe: str) -> None:
    faiss = import_faiss()
    count, dimension = 4000, 64
    vectors = np.random.default_rng(0).standard_normal((count, dimension)).astype(np.float32)
    planned = plan(count, dimension, recipe)
    index = new_index(planned.factory, dimension)
    index.train(vectors)
    index.add(vectors)
    assert planned.memory == pytest.approx(len(faiss.serialize_index(index)), rel=0.15, abs=60_000)


def test_a_small_catalogue_is_searched_exactly_and_a_large_one_in_lists() -> None:
    assert plan(500, 384).factory == plan(50_000, 384).factory == "Flat"
    assert plan(60_000, 384).factory == "IVF1024,SQ8"
    assert plan(MILLION, 384).factory == "IVF4096,SQ8"


def test_less_time_takes_lists_and_more_time_exact_search() -> None:
    assert plan(50_000, 384, budgets=Budgets(latency_ms=0.2)).factory == "IVF1024,SQ8"
    assert plan(MILLION, 384, budgets=Budgets(latency_ms=60_000)).factory == "Flat"


def test_more_recall_than_codes_give_takes_whole_vectors() -> None:
    assert plan(MILLION, 384, budgets=Budgets(recall=0.99)).factory == "IVF4096,Flat"


def test_less_memory_takes_smaller_codes() -> None:
    sizes = [plan(MILLION, 384, budgets=Budgets(memory=size)).memory for size in (10**9, 400 * 10**6, 100 * 10**6)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3
    assert all(took <= size for took, size in zip(sizes, (10**9, 400 * 10**6, 100 * 10**6), strict=True))


def test_memory_that_no_index_keeps_to_says_what_the_least_is() -> None:
    least = plan(MILLION, 384, "ivf-pq-small").memory
    with pytest.raises(InputError, match=rf"the least is {least / 1e6:,.0f} MB, with --recipe ivf-pq-small"):
        plan(MILLION, 384, budgets=Budgets(memory=10**7))


def test_a_recipe_that_takes_more_than_the_memory_names_those_that_do_not() -> None:
    with pytest.raises(InputError, match=r"take 1,997 MB; within it are --recipe .*ivf-sq8 \(\d+ MB\)"):
        plan(MILLION, 384, "flat", Budgets(memory=10**9))


@pytest.mark.parametrize("recipe", ["", "nope", "IVF,Flat", "PQ5", "PCA32,Flat"])
def test_what_is_no_recipe_is_refused_by_its_name(recipe: str) -> None:
    with pytest.raises(InputError, match=rf"--recipe '{recipe}'"):
        plan(1000, 384, recipe)


@pytest.mark.parametrize(
    ("budgets", "option"),
    [({"memory": 0}, "--max-memory"), ({"latency_ms": 0.0}, "--max-latency-ms"), ({"recall": 1.5}, "--min-recall")],
)
def test_budgets_out_of_range_are_refused(budgets: dict[str, float], option: str) -> None:
    with pytest.raises(InputError, match=option):
        Budgets(**budgets)  # type: ignore[arg-type]


def test_lists_grow_as_the_square_root_of_the_rows() -> None:
    assert [lists_for(n) for n in (0, 10_000, 160_000, 2_560_000, 10**12)] == [16, 512, 2048, 8192, 65536]
