"""Packed, padded and single examples have the same losses, on every family."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ragqa import models
from ragqa.training.batches import answer_loss, make_batches, packs_agree
from ragqa.training.packs import length_grouped, pack, packed_batch, padded_batch
from ragqa.training.recipe import Recipe
from ragqa.training.tokens import Tokens

# Two questions of one context, one of another, one that shares nothing; token 0 is the end.
EXAMPLES = [
    Tokens((5, 6, 7, 8, 20, 30, 31, 0), 5, numbered=True),
    Tokens((5, 6, 7, 8, 21, 22, 40, 0), 6, numbered=True),
    Tokens((5, 6, 9, 9, 9, 41, 42, 43, 0), 5),
    Tokens((77, 78, 50, 0), 2),
]


def family(name: str, **more: Any) -> Any:
    """A random model of two small layers."""
    import transformers

    torch.manual_seed(1)
    common = {"vocab_size": 100, "pad_token_id": 0, "eos_token_id": 0, "bos_token_id": None}
    if name == "gpt2":
        config: Any = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=512, **common)
    else:
        sizes = {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "max_position_embeddings": 512, "head_dim": 8,
        }  # fmt: skip
        kinds = {
            "llama": transformers.LlamaConfig,
            "mistral": transformers.MistralConfig,
            "qwen": transformers.Qwen3Config,
            "gemma": transformers.Gemma3TextConfig,
        }
        config = kinds[name](**sizes, **common, **more)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def alone(model: Any) -> torch.Tensor:
    """Losses of each example's answer by itself, by the model's own forward pass over it."""
    found = []
    for example in EXAMPLES:
        ids = torch.tensor([example.ids])
        log_probs = model(ids).logits[0].log_softmax(-1)
        found += [-log_probs[i - 1, example.ids[i]] for i in range(example.prompt, len(example.ids))]
    return torch.stack(found)


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "qwen", "gemma"])
@torch.no_grad()
def test_a_packed_example_has_the_loss_it_has_alone(name: str) -> None:
    model = family(name)
    packs = pack(EXAMPLES, 100, 10)
    assert len(packs) == 1
    packed, _ = answer_loss(model, packed_batch(packs[0], torch.float32))
    expected = alone(model)
    torch.testing.assert_close(packed, expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 1e-3, "losses that are all alike would prove nothing"


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@torch.no_grad()
def test_a_padded_example_has_the_loss_it_has_alone(name: str) -> None:
    model = family(name)
    padded, _ = answer_loss(model, padded_batch(EXAMPLES, 0))
    torch.testing.assert_close(padded, alone(model), rtol=1e-4, atol=1e-5)


def test_gradients_of_packed_and_padded_examples_agree() -> None:
    grads = []
    for batch in (packed_batch(pack(EXAMPLES, 100, 10, 7.0)[0], torch.float32), padded_batch(EXAMPLES, 0, 7.0)):
        model = family("llama")
        losses, _ = answer_loss(model, batch)
        (losses * batch["weights"]).sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-3, atol=1e-5)


def test_a_pack_holds_what_is_shared_once() -> None:
    (one,) = pack(EXAMPLES[:2], 100, 10)
    # 5 6 7 8 once, then 20 30 31 and 21 22 40; the ends are predicted, not read.
    assert one.ids == (5, 6, 7, 8, 20, 30, 31, 21, 22, 40)
    assert one.parents == (-1, 0, 1, 2, 3, 4, 5, 3, 7, 8)
    assert one.targets == (30, 31, 0, 40, 0)
    assert one.sources == (4, 5, 6, 8, 9)
    assert one.numbers == (True, False, False, True, False)
    assert (one.examples, one.tokens) == (2, 16)


def test_the_number_of_a_source_has_its_own_weight() -> None:
    (one,) = pack(EXAMPLES[:1], 100, 10, number_weight=20.0)
    assert one.weights == (20.0, 1.0, 1.0)
    assert padded_batch(EXAMPLES[:1], 0, 20.0)["weights"].tolist() == [20.0, 1.0, 1.0]


def test_packs_keep_to_their_limits_and_lose_nothing() -> None:
    examples = [Tokens((1, 2, 3, *range(10 + i, 20 + i), 0), 8) for i in range(50)]
    packs = pack(examples, 40, 3)
    assert all(len(p.ids) <= 40 and p.examples <= 3 for p in packs)
    assert sum(p.examples for p in packs) == 50
    assert sorted(t for p in packs for t in p.targets) == sorted(t for e in examples for t in e.ids[8:])


def test_an_example_longer_than_the_limit_is_a_pack_of_its_own() -> None:
    long = Tokens(tuple(range(1, 60)), 50)
    assert [p.examples for p in pack([*EXAMPLES, long], 30, 10)].count(1) >= 1
    assert sum(p.examples for p in pack([*EXAMPLES, long], 30, 10)) == 5


def test_padded_batches_are_of_like_length_and_within_their_limits() -> None:
    examples = [Tokens((1,) * n + (0,), n) for n in (3, 30, 4, 31, 5, 90)]
    batches = length_grouped(examples, 64, 3, seed=1)
    assert sorted(sorted(len(e.ids) for e in batch) for batch in batches) == [[4, 5, 6], [31, 32], [91]]


def test_a_model_that_does_not_take_the_mask_is_noticed(tiny_model: Path) -> None:
    model, tokenizer, _ = models.load_generator(str(tiny_model), device="cpu", dtype="float32")
    assert packs_agree(model, tokenizer, EXAMPLES)
    forward = model.forward

    def deaf(*arguments: Any, attention_mask: Any = None, **more: Any) -> Any:
        if attention_mask.ndim == 4:
            attention_mask = torch.ones(attention_mask.shape[::3], dtype=torch.long)
        return forward(*arguments, attention_mask=attention_mask, **more)

    deaf.__signature__ = __import__("inspect").signature(forward)  # type: ignore[attr-defined]
    model.forward = deaf
    assert not packs_agree(model, tokenizer, EXAMPLES)


def test_packing_is_left_out_where_the_recipe_says_so(tiny_model: Path) -> None:
    model, tokenizer, _ = models.load_generator(str(tiny_model), device="cpu", dtype="float32")
    recipe = Recipe()
    packed, padded = (make_batches(EXAMPLES, model, tokenizer, recipe, packed) for packed in (True, False))
    assert packed[0]["attention_mask"].shape == (1, 1, packed.size(0), packed.size(0))
    assert padded[0]["attention_mask"].ndim == 2


def test_a_model_that_gives_all_logits_has_the_losses_of_those_that_are_wanted(tiny_model: Path) -> None:
    model, tokenizer, _ = models.load_generator(str(tiny_model), device="cpu", dtype="float32")
    batch, forward = padded_batch(EXAMPLES, tokenizer.pad_token_id), model.forward
    wanted = answer_loss(model, batch)

    def whole(input_ids: Any, attention_mask: Any, use_cache: bool) -> Any:
        return forward(input_ids, attention_mask=attention_mask, use_cache=use_cache)

    model.forward = whole
    torch.testing.assert_close(answer_loss(model, batch), wanted)


def test_a_model_that_cannot_read_packs_is_noticed_and_too_little_memory_is_no_sign_of_that(tiny_model: Path) -> None:
    model, tokenizer, _ = models.load_generator(str(tiny_model), device="cpu", dtype="float32")
    forward = model.forward

    def failing(error: Exception) -> Any:
        def fail(input_ids: Any, attention_mask: Any, **more: Any) -> Any:
            if attention_mask.ndim == 4:
                raise error
            return forward(input_ids, attention_mask=attention_mask, **more)

        return fail

    model.forward = failing(ValueError("no such mask"))
    assert not packs_agree(model, tokenizer, EXAMPLES)
    model.forward = failing(torch.OutOfMemoryError("no room"))
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        packs_agree(model, tokenizer, EXAMPLES)
