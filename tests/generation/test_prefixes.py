from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ragqa.generation.prefixes import Prefixes


def cache(tokens: int, rows: int = 1) -> Any:
    keys = torch.arange(tokens, dtype=torch.float32).reshape(1, 1, tokens, 1).repeat(rows, 2, 1, 3)
    return SimpleNamespace(layers=[SimpleNamespace(keys=keys, values=-keys)])


def test_the_longest_beginning_that_was_read_before_is_found() -> None:
    prefixes = Prefixes(10**9)
    for prompt in ([1, 2, 3, 4], [1, 2, 9, 9, 9]):
        prefixes.keep(prompt, cache(len(prompt)), 0)
    same, known = prefixes.longest([[1, 2, 9, 9, 5, 6]])
    assert same == 4
    assert known is not None
    (keys, values), *_ = known.beginning(same, 2)
    assert keys.shape == (2, 2, 4, 3)
    assert keys[1, 0, :, 0].tolist() == [0, 1, 2, 3]
    assert torch.equal(values, -keys)


def test_a_token_of_each_prompt_is_left_to_read() -> None:
    prefixes = Prefixes(10**9)
    prefixes.keep([1, 2, 3], cache(3), 0)
    assert prefixes.longest([[1, 2, 3]])[0] == 2
    assert prefixes.longest([[1, 2, 3, 4], [1, 2]])[0] == 1


def test_what_prompts_read_together_do_not_share_is_read() -> None:
    prefixes = Prefixes(10**9)
    prefixes.keep([1, 2, 3, 4], cache(4), 0)
    assert prefixes.longest([[1, 2, 3, 4, 5], [1, 2, 7, 4, 5]])[0] == 2


@pytest.mark.parametrize("prompts", [[[1, 2]], [[5], [5, 6]]])
def test_nothing_alike_is_nothing_known(prompts: list[list[int]]) -> None:
    prefixes = Prefixes(10**9)
    assert prefixes.longest(prompts) == (0, None)
    prefixes.keep([7, 8], cache(2), 0)
    assert prefixes.longest(prompts) == (0, None)


def test_what_was_used_longest_ago_is_forgotten_first() -> None:
    size = 2 * 2 * 3 * 10 * 4  # keys and values, heads, numbers, tokens, bytes
    prefixes = Prefixes(2 * size)
    for first in (1, 2):
        prefixes.keep([first] * 10, cache(10), 0)
    prefixes.longest([[1] * 10])
    prefixes.keep([3] * 10, cache(10), 0)
    assert prefixes.size == 2 * size
    assert [prefixes.longest([[first] * 10])[0] for first in (1, 2, 3)] == [9, 0, 9]


def test_one_prompt_is_kept_whatever_its_size_and_once() -> None:
    prefixes = Prefixes(0)
    for _ in range(3):
        prefixes.keep([1, 2, 3], cache(3), 0)
    assert len(prefixes) == 1
    assert prefixes.size == 2 * 2 * 3 * 3 * 4
