"""Search parameters are tuned against exact search, and what they give is measured on other questions."""

import numpy as np
import pytest

from ragqa.index.recipe import new_index
from ragqa.index.tune import exact_nearest, made_questions, measured, recall, tune
from ragqa.records import Product
from ragqa.retrieval.dense import DenseIndex
from ragqa.retrieval.embed import Vectors, unit


def clustered(count: int, seed: int) -> Vectors:
    random_ = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, 32))
    return unit(
        (centres[random_.integers(0, 40, count)] + 0.7 * random_.standard_normal((count, 32))).astype(np.float32)
    )


VECTORS = clustered(4000, 0)
QUESTIONS = clustered(200, 1)


def test_exact_search_by_blocks_is_that_of_all_at_once() -> None:
    nearest = exact_nearest(QUESTIONS, [VECTORS[:1500], VECTORS[1500:1505], VECTORS[1505:]], 10)
    assert (nearest == np.argsort(-(QUESTIONS @ VECTORS.T), axis=1, kind="stable")[:, :10]).all()


def test_recall_is_the_share_of_the_nearest_that_were_found() -> None:
    nearest = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert recall(nearest[:, ::-1], nearest) == 1
    assert recall(np.array([[1, 2, -1, -1], [9, 9, 8, 9]]), nearest) == 3 / 8


@pytest.mark.parametrize("factory", ["IVF64,Flat", "IVF64,SQ8", "HNSW4,Flat", "IVF64,PQ16x4fs,Refine(SQ8)"])
def test_more_recall_is_reached_by_looking_closer(factory: str) -> None:
    nearest = exact_nearest(QUESTIONS, [VECTORS])
    found = []
    for wished in (0.3, 0.97):
        index = new_index(factory, 32)
        index.train(VECTORS)
        index.add(VECTORS)
        found.append(tune(index, QUESTIONS, nearest, wished, clocked=False))
    few, many = found
    assert many.parameters != few.parameters
    assert many.recall > few.recall
    assert many.recall >= 0.97 - 0.03  # measured on other questions than those that chose
    assert many.questions == len(QUESTIONS) // 2


@pytest.mark.parametrize("factory", ["IVF64,Flat", "HNSW4,Flat", "IVF64,PQ16x4fs,Refine(SQ8)"])
def test_without_the_clock_the_same_parameters_are_chosen_each_time(
    factory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import random
    import time

    monkeypatch.setattr(time, "perf_counter", random.Random(1).random)
    index = new_index(factory, 32)
    index.train(VECTORS)
    index.add(VECTORS)
    nearest = exact_nearest(QUESTIONS, [VECTORS])
    assert len({tune(index, QUESTIONS, nearest, 0.7, clocked=False).parameters for _ in range(4)}) == 1


def test_what_cannot_be_reached_comes_as_near_as_it_can() -> None:
    index = new_index("IVF16,PQ2x4", 32)
    index.train(VECTORS)
    index.add(VECTORS)
    nearest = exact_nearest(QUESTIONS, [VECTORS])
    tuned = tune(index, QUESTIONS, nearest, 0.99)
    one = DenseIndex(index, "nprobe=1")
    assert measured(one, QUESTIONS[100:], nearest[100:]).recall <= tuned.recall < 0.99


def test_an_exact_index_has_nothing_to_tune() -> None:
    index = new_index("Flat", 32)
    index.add(VECTORS)
    tuned = tune(index, QUESTIONS, exact_nearest(QUESTIONS, [VECTORS]), 0.95)
    assert (tuned.parameters, tuned.recall) == ("", 1.0)


def test_made_questions_depend_on_titles_and_seed() -> None:
    products = [Product(str(n), f"Lumen headlamp number {n} with strap", "Bright.") for n in range(6)]
    asked = made_questions(products, 0)
    assert len(set(asked)) == 6
    assert asked == made_questions(products, 0) != made_questions(products, 1)
