from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from ragqa.models.attention import NAME, _mask, by_blocks, use_blocks
from tests.generation.test_decode import made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("count", "known"), [(2, 0), (64, 0), (65, 0), (200, 0), (1, 30), (70, 90), (64, 64)])
@pytest.mark.parametrize("heads", [1, 3])
def test_blocks_see_what_the_whole_would(count: int, known: int, heads: int, dtype: torch.dtype) -> None:
    torch.manual_seed(count)
    queries = torch.randn(2, count, 3, 8, dtype=dtype).transpose(1, 2)
    keys, values = (torch.randn(2, heads, known + count, 8, dtype=dtype) for _ in range(2))
    places = torch.ones(count, known + count, dtype=torch.bool).tril(known)
    whole = scaled_dot_product_attention(queries, keys, values, attn_mask=places, scale=0.3, enable_gqa=True)
    found = by_blocks(queries, keys, values, 0.3)
    assert found.dtype == dtype
    assert torch.allclose(found.transpose(1, 2), whole, atol=1e-5 if dtype == torch.float32 else 0.03)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt_neox"])
def test_a_model_computes_the_same_by_blocks(kind: str) -> None:
    model: Any = made(kind)
    ids = torch.randint(1, 60, (1, 150), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 150, dtype=torch.long)
    mask[0, 20:30] = 0

    def computed() -> list[torch.Tensor]:
        with torch.inference_mode():
            first = model(ids[:, :90], use_cache=True)
            rest = model(ids[:, 90:], past_key_values=first.past_key_values)
            return [first.logits, rest.logits, model(ids, attention_mask=mask).logits[:, 30:]]

    before = computed()
    assert use_blocks(model)
    assert model.config._attn_implementation == NAME
    for one, other in zip(before, computed(), strict=True):
        assert torch.allclose(one, other, atol=1e-3)


def test_a_model_with_attention_of_its_own_keeps_it() -> None:
    assert not use_blocks(made("bloom"))
    assert not use_blocks(made("llama", attn_implementation="eager"))


def test_a_window_that_slides_is_masked() -> None:
    model: Any = made("mistral", sliding_window=16)
    ids = torch.randint(1, 60, (1, 100), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = model(ids).logits
        assert use_blocks(model)
        assert torch.allclose(model(ids).logits, before, atol=1e-3)


def test_what_is_trained_attends_as_before() -> None:
    model: Any = made("llama")
    ids = torch.randint(1, 60, (1, 100), generator=torch.Generator().manual_seed(0))
    before = model(ids).logits
    assert use_blocks(model)
    after = model(ids).logits
    assert after.requires_grad
    assert torch.allclose(after, before, atol=1e-3)


def test_a_model_that_refuses_another_attention_keeps_its_own() -> None:
    def refuse(name: str) -> None:
        raise ValueError(name)

    config = SimpleNamespace(_attn_implementation="sdpa")
    model = SimpleNamespace(config=config, _supports_attention_backend=True, set_attn_implementation=refuse)
    assert not use_blocks(model)
    assert config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    "told",
    [{"cache_position": torch.arange(2, 5)}, {"q_offset": 2, "q_length": 3}],
    ids=["transformers 5.0", "later"],
)
def test_a_mask_is_left_out_where_each_place_sees_all_before_it(
    told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.masking_utils.sdpa_mask", lambda **_: "a mask")
    assert _mask(kv_length=5, **told) is None
    assert _mask(kv_length=6, **told) == "a mask"
    assert _mask(kv_length=5, attention_mask=torch.ones(1, 5), **told) == "a mask"
    assert _mask(kv_length=5, kv_offset=1, **told) == "a mask"
