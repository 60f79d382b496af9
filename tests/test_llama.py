"""What is read of files and computed by `LlamaReader` is what transformers and peft make of them."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from ragqa import models
from ragqa.errors import ModelError
from ragqa.models.llama import KeyValues, LlamaReader
from ragqa.models.llama_files import configuration, read_llama

_SIZES = {
    "vocab_size": 80, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 512, "pad_token_id": 0, "eos_token_id": [2, 3],
}  # fmt: skip
_KINDS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**_SIZES, num_key_value_heads=2),
    "llama, tied": lambda: transformers.LlamaConfig(**_SIZES, num_key_value_heads=1, tie_word_embeddings=True),
    "llama, biased": lambda: transformers.LlamaConfig(
        **_SIZES, num_key_value_heads=4, attention_bias=False, head_dim=16
    ),
    "qwen2": lambda: transformers.Qwen2Config(**_SIZES, num_key_value_heads=2),
    "mistral": lambda: transformers.MistralConfig(**_SIZES, num_key_value_heads=2, sliding_window=None),
}


def saved(folder: Path, config: Any) -> Any:
    """A random model in a folder, with weights that are not near zero, biases neither."""
    torch.manual_seed(5)
    model: Any = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model


def ids(rows: int, tokens: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(4, 80, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one.float(), other.float(), atol=2e-4, rtol=1e-3)


@pytest.fixture(scope="module", params=_KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, LlamaReader]:
    folder = tmp_path_factory.mktemp("model")
    model = saved(folder, _KINDS[request.param]())
    reader = read_llama(folder, torch.float32)
    assert reader is not None
    return model, reader


@torch.inference_mode()
def test_a_prompt_of_any_length_has_the_same_logits(pair: tuple[Any, LlamaReader]) -> None:
    model, reader = pair
    for tokens in (1, 2, 31, 33, 130):
        given = ids(2, tokens, tokens)
        assert alike(reader(given).logits, model(given).logits)
        assert alike(reader(given, logits_to_keep=1).logits, model(given, logits_to_keep=1).logits)


@torch.inference_mode()
def test_what_is_read_in_parts_and_taken_back_is_the_same(pair: tuple[Any, LlamaReader]) -> None:
    model, reader = pair
    given, cache = ids(1, 400), KeyValues()
    start = 0
    for tokens, wrong in ((100, 7), (1, 0), (40, 40), (3, 1), (256, 0)):
        beside = (
            torch.cat([given[:, start : start + tokens], ids(1, wrong, 9)], 1)
            if wrong
            else given[:, start : start + tokens]
        )
        found = reader(beside, past_key_values=cache).logits[:, :tokens]
        if wrong:
            cache.crop(-wrong)
        start += tokens
        assert cache.get_seq_length() == start
        assert alike(found, model(given[:, :start]).logits[:, -tokens:])


@torch.inference_mode()
def test_places_that_fill_up_count_for_nothing(pair: tuple[Any, LlamaReader]) -> None:
    model, reader = pair
    one, other, more = ids(1, 50), ids(1, 20, 1), ids(2, 5, 2)
    mask = torch.ones(2, 55, dtype=torch.long)
    mask[1, :30] = 0
    places = (mask.cumsum(1) - 1).clamp(min=0)
    first = torch.cat([one, torch.cat([torch.zeros(1, 30, dtype=torch.long), other], 1)])
    cache = KeyValues()
    reader(first, past_key_values=cache, attention_mask=mask[:, :50], position_ids=places[:, :50])
    found = reader(more, past_key_values=cache, attention_mask=mask, position_ids=places[:, 50:]).logits
    for row, before in enumerate((one, other)):
        assert alike(found[row], model(torch.cat([before, more[row : row + 1]], 1)).logits[0, -5:])
    cache.batch_select_indices(torch.tensor([1]))
    longer = torch.ones(1, 56, dtype=torch.long)
    longer[0, :30] = 0
    again = ids(1, 1, 3)
    found = reader(again, past_key_values=cache, attention_mask=longer, position_ids=torch.tensor([[25]])).logits
    assert alike(found[0, -1], model(torch.cat([other, more[1:], again], 1)).logits[0, -1])


@torch.inference_mode()
def test_known_keys_and_values_are_copied(pair: tuple[Any, LlamaReader]) -> None:
    model, reader = pair
    given, cache = ids(1, 30), KeyValues()
    reader(given[:, :20], past_key_values=cache)
    held = [
        (layer.keys[:, :, :12].expand(2, -1, -1, -1), layer.values[:, :, :12].expand(2, -1, -1, -1))
        for layer in cache.layers
    ]
    rest = torch.cat([given[:, 12:], ids(1, 18, 4)])
    found = reader(rest, past_key_values=KeyValues(held)).logits
    assert alike(found[0], model(given).logits[0, 12:])
    assert alike(found[1], model(torch.cat([given[:, :12], rest[1:]], 1)).logits[0, 12:])
    assert alike(reader(given[:, 20:], past_key_values=cache).logits, model(given).logits[:, 20:])


@torch.inference_mode()
def test_several_are_joined_so_that_all_end_together(pair: tuple[Any, LlamaReader]) -> None:
    model, reader = pair
    given, more = [ids(1, 12), ids(1, 40, 1), ids(1, 1, 2)], ids(3, 4, 5)
    caches = [KeyValues() for _ in given]
    for one, cache in zip(given, caches, strict=True):
        reader(one, past_key_values=cache)
    whole = KeyValues.joined(caches)
    assert whole.get_seq_length() == 40
    assert all(layer.keys.numel() == 0 for cache in caches for layer in cache.layers)
    lengths = torch.tensor([one.shape[1] for one in given])
    mask = (torch.arange(44) >= 40 - lengths[:, None]).long()
    places = lengths[:, None] + torch.arange(4)
    found = reader(more, past_key_values=whole, attention_mask=mask, position_ids=places).logits
    for row, one in enumerate(given):
        assert alike(found[row], model(torch.cat([one, more[row : row + 1]], 1)).logits[0, -4:])


@torch.inference_mode()
def test_bfloat16_is_near(tmp_path: Path) -> None:
    model = saved(tmp_path, _KINDS["llama"]())
    reader = read_llama(tmp_path, torch.bfloat16)
    assert reader is not None
    assert reader.dtype == torch.bfloat16
    assert models.dtype_name(reader) == "bfloat16"
    given = ids(1, 60)
    wanted, found = model(given).logits.softmax(-1), reader(given).logits.float().softmax(-1)
    halved = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)(given).logits.float()
    assert (found - wanted).abs().mean() <= 1.1 * (halved.softmax(-1) - wanted).abs().mean()


@pytest.mark.parametrize("more", [{}, {"use_rslora": True}, {"target_modules": ["q_proj", "down_proj"], "r": 3}])
def test_an_adapter_is_added(tmp_path: Path, more: dict[str, Any]) -> None:
    base = saved(tmp_path / "base", _KINDS["qwen2"]())
    adapted = _adapted(base, tmp_path / "adapter", **more)
    reader = read_llama(tmp_path / "base", torch.float32, str(tmp_path / "adapter"))
    assert reader is not None
    with torch.inference_mode():
        given = ids(1, 40)
        assert alike(reader(given).logits, adapted(given).logits)
        bare = read_llama(tmp_path / "base", torch.float32)
        assert bare is not None
        assert not alike(bare(given).logits, adapted(given).logits)


def _adapted(base: Any, folder: Path, **more: Any) -> Any:
    config: dict[str, Any] = {"target_modules": "all-linear", "r": 4, "lora_alpha": 6} | more
    model: Any = peft.get_peft_model(base, peft.LoraConfig(**config)).eval()
    torch.manual_seed(8)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    "more", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"rank_pattern": {"q_proj": 2}}, {"bias": "all"}]
)
def test_an_adapter_of_more_than_sums_goes_the_general_way(tmp_path: Path, more: dict[str, Any]) -> None:
    _adapted(saved(tmp_path / "base", _KINDS["llama"]()), tmp_path / "adapter", **more)
    assert read_llama(tmp_path / "base", torch.float32, str(tmp_path / "adapter")) is None


def test_an_adapter_that_makes_weights_infinite_goes_the_general_way(tmp_path: Path) -> None:
    adapted = _adapted(saved(tmp_path / "base", _KINDS["llama"]()), tmp_path / "adapter")
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data[0, 0] = float("inf")
    adapted.save_pretrained(tmp_path / "adapter")
    assert read_llama(tmp_path / "base", torch.float32, str(tmp_path / "adapter")) is None


@pytest.mark.parametrize(
    "said",
    [
        {"model_type": "gemma"},
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        {"quantization_config": {"quant_method": "gptq"}},
        {"model_type": "mistral", "sliding_window": 128},
        {"model_type": "mistral"},
        {"model_type": "qwen2", "use_sliding_window": True},
        {"num_hidden_layers": 2},
        {"num_hidden_layers": 4},
        {"tie_word_embeddings": None, "vocab_size": None},
        {"num_attention_heads": "many"},
    ],
)
def test_other_kinds_go_the_general_way(tmp_path: Path, said: dict[str, Any]) -> None:
    saved(tmp_path, _KINDS["llama"]())
    assert read_llama(tmp_path, torch.float32) is not None
    assert read_llama(tmp_path, torch.float16) is None
    _say(tmp_path / "config.json", said)
    assert read_llama(tmp_path, torch.float32) is None


def _say(path: Path, said: dict[str, Any], without: Iterable[str] = ()) -> None:
    whole = json.loads(path.read_text("utf-8")) | said
    path.write_text(json.dumps({name: value for name, value in whole.items() if name not in without}), "utf-8")


def test_a_configuration_of_before_is_read(tmp_path: Path) -> None:
    saved(tmp_path, _KINDS["llama"]())
    now = configuration(tmp_path)
    _say(tmp_path / "config.json", {"rope_theta": 10000.0, "rope_scaling": None}, ("rope_parameters", "head_dim"))
    assert now is not None
    assert configuration(tmp_path) == now
    assert now.ends == (2, 3)
    _say(tmp_path / "generation_config.json", {"eos_token_id": 7})
    changed = configuration(tmp_path)
    assert changed is not None
    assert changed.ends == (7,)


def test_the_default_generator_is_read_and_says_what_transformers_says() -> None:
    reader, tokenizer, source = models.load_reader(device="cpu", dtype="float32")
    assert isinstance(reader, LlamaReader)
    whole, other, _ = models.load_generator(device="cpu", dtype="float32")
    text = "The LT-350 is our all-round headlamp: 350 lumens on high, a beam of 85 m and 40 hours on low."
    assert tokenizer(text)["input_ids"] == other(text)["input_ids"]
    assert tokenizer.chat_template == other.chat_template
    given = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.inference_mode():
        assert torch.allclose(reader(given).logits, whole(given).logits, atol=1e-3)
    assert source.name == models.DEFAULT_GENERATOR


def test_what_cannot_be_read_is_said_by_the_general_way(tmp_path: Path) -> None:
    saved(tmp_path, _KINDS["llama"]())
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    models.find_model(models.DEFAULT_GENERATOR)
    with pytest.raises(ModelError, match="cannot be loaded as a language model"):
        models.load_reader(str(tmp_path), device="cpu")
    with pytest.raises(ModelError, match="no LoRA adapter in this folder"):
        models.load_reader(device="cpu", adapter=str(tmp_path))


def test_where_no_ends_are_written_for_generation_the_configurations_count(tmp_path: Path) -> None:
    saved(tmp_path, _KINDS["llama"]())
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 7}')
    written = configuration(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    told = configuration(tmp_path)
    assert written is not None
    assert told is not None
    assert (written.ends, told.ends) == ((7,), (2, 3))
