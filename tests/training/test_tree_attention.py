import random

import pytest
import torch

from ragqa.training.packs import pack, packed_batch
from ragqa.training.tokens import Tokens
from ragqa.training.tree_attention import Segment, attend, holding, segments


def test_a_chain_is_one_segment() -> None:
    assert segments([-1, 0, 1, 2]) == (Segment(0, 4, ((0, 4),)),)


def test_a_branch_cuts_what_it_leaves() -> None:
    # 0 1 2 3 4 and, from 2, 5 6 7; from 6, 8.
    found = segments([-1, 0, 1, 2, 3, 2, 5, 6, 6])
    assert found == (
        Segment(0, 3, ((0, 3),)),
        Segment(3, 5, ((0, 5),)),
        Segment(5, 7, ((0, 3), (5, 7))),
        Segment(7, 8, ((0, 3), (5, 8))),
        Segment(8, 9, ((0, 3), (5, 7), (8, 9))),
    )


def test_two_roots_do_not_see_each_other() -> None:
    assert segments([-1, 0, -1, 2]) == (Segment(0, 2, ((0, 2),)), Segment(2, 4, ((2, 4),)))


def random_pack(seed: int) -> tuple[dict[str, torch.Tensor], tuple[Segment, ...]]:
    random_ = random.Random(seed)
    shared = [tuple(random_.choices(range(5, 9), k=random_.randint(1, 12))) for _ in range(3)]
    examples = []
    for _ in range(random_.randint(1, 8)):
        prompt = random_.choice(shared) + tuple(random_.choices(range(5, 9), k=random_.randint(1, 6)))
        examples.append(Tokens((*prompt, *random_.choices(range(9, 20), k=random_.randint(1, 5)), 0), len(prompt)))
    (one,) = pack(examples, 10_000, 100)
    return packed_batch(one, torch.float64), segments(one.parents)


@pytest.mark.parametrize("seed", range(12))
def test_it_is_attention_under_the_packs_mask_forwards_and_backwards(seed: int) -> None:
    batch, parts = random_pack(seed)
    size = batch["input_ids"].shape[1]
    generator = torch.Generator().manual_seed(seed)

    def tensor(heads: int) -> torch.Tensor:
        return torch.randn(1, heads, size, 8, generator=generator, dtype=torch.float64, requires_grad=True)

    query, key, value, weight = tensor(6), tensor(2), tensor(2), tensor(6).detach()
    found = []
    for use in (parts, None):
        with holding(use):
            if use:
                out, _ = attend(None, query, key, value, batch["attention_mask"], scaling=0.3)
            else:
                wide = [x.repeat_interleave(3, 1) for x in (key, value)]
                out = torch.nn.functional.scaled_dot_product_attention(
                    query, *wide, attn_mask=batch["attention_mask"], scale=0.3
                ).transpose(1, 2)
        grads = torch.autograd.grad((out.transpose(1, 2) * weight).sum(), (query, key, value))
        found.append((out, *grads))
    for ours, theirs in zip(*found, strict=True):
        # Sums over keys are kept in float32.
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
