"""Models for servers: what is written reads and answers as what it was made from, and what cannot be written is said."""

import errno
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from gguf import GGUFReader, TokenType
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers import models as kinds
from transformers import PreTrainedTokenizerFast

from ragqa import RagqaError, export, fine_tune, merge
from ragqa.cli import main
from ragqa.commands import export as export_command
from ragqa.errors import InputError, ModelError, StorageError
from ragqa.generation.adapter import read_adapter
from ragqa.generation.choice import Choice
from ragqa.generation.prompt import NUMBERED
from ragqa.models.gguf import load_gguf
from ragqa.models.source import ModelSource
from ragqa.training import export as exporting
from ragqa.training import merge as merging
from ragqa.training.gguf_file import write_gguf
from ragqa.training.gguf_vocabulary import parting, write_vocabulary
from tests.conftest import DEMO
from tests.training.conftest import SMALL, config_of

SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LETTERS = pre_tokenizers.ByteLevel(add_prefix_space=False)


def split(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


WAYS: dict[str, Any] = {
    "gpt-2": LETTERS,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), LETTERS]),
    "qwen2": split(WORDS % r"\p{N}"),
    "llama-bpe": split(WORDS % r"\p{N}{1,3}"),
}
TEXT = "<|user|>Lumen's LT-350,  2024 — Descrição\n\n\n1,800mAh don't DON'T 12345 日本<kept> <|end|>"


@functools.cache
def trained() -> str:
    """Byte pairs learnt from whole lines, some of them numbers: with them, another way of parting texts gives other tokens."""
    raw = Tokenizer(kinds.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    lines = DEMO.read_text("utf-8").splitlines()
    raw.train_from_iterator([*lines, *(f"12345 {i}; don't!\n\n" for i in range(2000, 2600))], trainer)
    raw.add_tokens([AddedToken("<kept>", normalized=False)])
    return str(raw.to_str())


def make_tokenizer(way: str = "gpt-2", **more: Any) -> Any:
    """A byte-level tokenizer that parts texts in a way of llama.cpp's."""
    raw = Tokenizer.from_str(trained())
    raw.model.ignore_merges = way == "llama-bpe"
    raw.pre_tokenizer = WAYS[way]
    given = {"eos_token": "<|end|>", "pad_token": "<|end|>", "additional_special_tokens": SPECIAL[1:]} | more
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, **given)
    tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    return tokenizer


def make_model(folder: Path, family: str = "llama", way: str = "gpt-2", **changed: Any) -> Path:
    """A random model whose answers depend on all its weights, with three rows more than there are tokens."""
    from transformers import AutoModelForCausalLM, Qwen3Config

    tokenizer = make_tokenizer(way)
    config = config_of("llama" if family == "qwen3" else family, len(tokenizer) + 3)
    if family == "qwen3":
        # transformers reads no other width of a head from a GGUF file of Qwen3.
        config = Qwen3Config(**{**config.to_dict(), "head_dim": 128, "model_type": "qwen3", "architectures": None})
    for name, value in ({"initializer_range": 0.3} | changed).items():
        setattr(config, name, value)
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        # Weights that 16 bits hold: by rounding, the answers of so wild a model would change.
        parameter.data = parameter.data.bfloat16().float()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_merged(folder: Path, family: str = "llama", way: str = "gpt-2", **changed: Any) -> Path:
    """The same, as `merge` writes it."""
    make_model(folder, family, way, **changed)
    manifest = {
        "kind": "ragqa merged model",
        "format_version": 2,
        "mode": "retrieval",
        "context": {"products": 3, "tokens": 1500, "max_new_tokens": 160},
        "choice": Choice().to_dict(),
        "base": {"name": "somewhere/base", "weights_sha256": "0" * 64, "config_sha256": "0" * 64},
        "prompt": {"fingerprint": NUMBERED.fingerprint(), "version": NUMBERED.version},
        "merged": {"dtype": "float32", "prompts": 3, "same_answers": 3, "largest_log_prob_difference": 0.0},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    texts = [TEXT, "<|user|>What is the description of LT-350?<|end|><|assistant|>Answer: [", "<|system|>Rede 2024"]
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return folder


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A merged model of Llama's kind. Tests must not change it."""
    return make_merged(tmp_path_factory.mktemp("merged") / "llama")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, demo_index: Path) -> Path:
    """A trained adapter. Tests must not change it."""
    folder = tmp_path_factory.mktemp("trained")
    base, out = make_model(folder / "base", initializer_range=0.02), folder / "adapter"
    fine_tune(demo_index, out, mode="retrieval", device="cpu", dtype="float32", generator=str(base), **SMALL)
    return out


@pytest.mark.parametrize(
    ("family", "way", "dtype", "tied"),
    [
        ("llama", "smollm", "f16", True),
        ("llama", "llama-bpe", "f32", False),
        ("qwen", "qwen2", "bf16", True),
        ("qwen3", "gpt-2", "f32", False),
    ],
)
def test_what_is_written_holds_the_weights_and_answers_alike(
    family: str, way: str, dtype: str, tied: bool, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, out = make_merged(tmp_path / "whole", family, way, tie_word_embeddings=tied), tmp_path / "out"
    manifest = export(folder, out, format="gguf", dtype=dtype, device="cpu")
    told = manifest["gguf"]
    assert (told["dtype"], told["prompts"], told["same_answers"]) == (dtype, 3, 3)
    assert told["bytes"] == (out / "model.gguf").stat().st_size

    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(out / "model.gguf", alone)
    model, tokenizer = load_gguf(alone / "model.gguf", "cpu")
    rounding = {"f32": 0.0, "f16": 2.0**-11, "bf16": 2.0**-8}[dtype]
    expected = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    found = model.state_dict()
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.allclose(found[name], weight, rtol=rounding, atol=1e-7), name
    original = AutoTokenizer.from_pretrained(folder)
    assert tokenizer(TEXT)["input_ids"] == original(TEXT)["input_ids"]
    assert tokenizer.chat_template == original.chat_template
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 0)
    assert GGUFReader(out / "model.gguf").get_field("tokenizer.ggml.pre").contents() == way  # type: ignore[union-attr]


def test_ways_of_parting_texts_differ_so_that_the_right_one_matters() -> None:
    ids = {way: tuple(make_tokenizer(way)("12345 20245; don't!\n\n")["input_ids"]) for way in WAYS}
    assert len(set(ids.values())) == len(WAYS)
    assert {way: parting(make_tokenizer(way), "m") for way in WAYS} == {way: way for way in WAYS}


def test_the_rows_of_llamas_queries_and_keys_are_put_in_pairs(merged: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    export(merged, tmp_path / "out", format="gguf", dtype="f32", device="cpu")
    weights = load_file(merged / "model.safetensors")
    tensors = GGUFReader(tmp_path / "out" / "model.gguf").tensors
    held = {tensor.name: torch.tensor(tensor.data) for tensor in tensors}
    # Heads of 8: of each the rows 0, 4, 1, 5, 2, 6, 3, 7.
    order = [8 * head + row for head in range(4) for row in (0, 4, 1, 5, 2, 6, 3, 7)]
    assert held["blk.1.attn_q.weight"].equal(weights["model.layers.1.self_attn.q_proj.weight"][order])
    assert held["blk.1.attn_k.weight"].equal(weights["model.layers.1.self_attn.k_proj.weight"][order[:16]])
    assert held["blk.1.attn_v.weight"].equal(weights["model.layers.1.self_attn.v_proj.weight"])


def test_tokens_are_marked_as_what_they_are(merged: Path, tmp_path: Path) -> None:
    export(merged, tmp_path / "out", format="gguf", device="cpu")
    fields = GGUFReader(tmp_path / "out" / "model.gguf").fields
    tokens, types = fields["tokenizer.ggml.tokens"].contents(), fields["tokenizer.ggml.token_type"].contents()
    assert len(tokens) == fields["llama.vocab_size"].contents() == len(make_tokenizer()) + 3
    marked = {token: kind for token, kind in zip(tokens, types, strict=True) if kind != TokenType.NORMAL}
    last = len(tokens) - 1
    assert marked == dict.fromkeys(SPECIAL, TokenType.CONTROL) | {"<kept>": TokenType.USER_DEFINED} | dict.fromkeys(
        [f"[PAD{last - 2}]", f"[PAD{last - 1}]", f"[PAD{last}]"], TokenType.UNUSED
    )
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False
    assert "tokenizer.ggml.bos_token_id" not in fields


def test_a_token_that_the_tokenizer_puts_first_is_put_first_by_servers(tmp_path: Path) -> None:
    folder = make_merged(tmp_path / "whole")
    told = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    told["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|system|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|system|>": {"id": "<|system|>", "ids": [3], "tokens": ["<|system|>"]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(told), "utf-8")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"bos_token": "<|system|>"}))
    export(folder, tmp_path / "out", format="gguf", device="cpu")
    fields = GGUFReader(tmp_path / "out" / "model.gguf").fields
    assert fields["tokenizer.ggml.add_bos_token"].contents() is True
    assert fields["tokenizer.ggml.add_eos_token"].contents() is False
    assert fields["tokenizer.ggml.bos_token_id"].contents() == 3


def test_an_adapter_becomes_a_folder_that_says_how_it_is_asked(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "for a server"
    assert main(["export", str(adapter), "--out", str(out), "--format", "gguf", "--device", "cpu", "-q"]) == 0
    shown = capsys.readouterr().out
    assert f"{out}: 8 of 8 test prompts answered as before (f16, " in shown
    assert f"llama-server --model '{out}'/model.gguf --alias 'for a server'" in shown
    assert f"ragqa ask INDEX --adapter '{out}' --server http://localhost:8000/v1 --server-model 'for a server'" in shown
    assert sorted(path.name for path in out.iterdir()) == [
        "Modelfile", "chat_template.jinja", "config.json", "generation_config.json", "manifest.json", "model.gguf",
        "prompts.jsonl", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    before, after = read_adapter(adapter), read_adapter(out)
    assert before
    assert after
    assert (after.merged, after.mode, after.choice, after.context_tokens) == (True, "retrieval", before.choice, 1200)
    assert [path.name for path in tmp_path.iterdir()] == ["for a server"]


def test_safetensors_are_what_merge_writes(adapter: Path, tmp_path: Path) -> None:
    exported = export(adapter, tmp_path / "exported", device="cpu")
    written = merge(adapter, tmp_path / "merged", device="cpu")
    assert exported["merged"] | {"created": ""} == written["merged"] | {"created": ""}
    names = sorted(path.name for path in (tmp_path / "merged").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "exported").iterdir())
    for name in set(names) - {"manifest.json"}:
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "exported" / name).read_bytes(), name
    with pytest.raises(InputError, match="is a merged model already, ready to be served: vllm serve"):
        export(tmp_path / "merged", tmp_path / "again", device="cpu")
    assert not (tmp_path / "again").exists()
    whole = export(tmp_path / "merged", tmp_path / "gguf", format="gguf", device="cpu")
    assert whole["gguf"]["same_answers"] == 8


def test_the_modelfile_leaves_prompts_as_they_are(merged: Path, tmp_path: Path) -> None:
    export(merged, tmp_path / "out", format="gguf", device="cpu")
    lines = (tmp_path / "out" / "Modelfile").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "FROM ./model.gguf",
        'TEMPLATE """{{ .Prompt }}"""',
        "PARAMETER temperature 0",
        "PARAMETER top_k 0",
        "PARAMETER top_p 1.0",
        "PARAMETER min_p 0.0",
        "PARAMETER repeat_penalty 1.0",
        "PARAMETER num_ctx 2048",  # 1,500 + 160 + the number, in whole thousands
    ]


def test_answers_that_change_are_counted_in_8_bits_and_refused_else(
    merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {}
    for dtype in ("f16", "q8_0"):
        sizes[dtype] = export(merged, tmp_path / dtype, format="gguf", dtype=dtype, device="cpu")["gguf"]["bytes"]
    assert sizes["q8_0"] < sizes["f16"]
    monkeypatch.setattr(exporting, "agreement", lambda before, after: (1, 0.5))
    told = export(merged, tmp_path / "a", format="gguf", dtype="q8_0", device="cpu")["gguf"]
    assert (told["same_answers"], told["prompts"], told["largest_log_prob_difference"]) == (1, 3, 0.5)
    with pytest.raises(ModelError, match=r"in bf16 answers 2 of 3 test prompts otherwise .*; choose --dtype f32"):
        export(merged, tmp_path / "b", format="gguf", dtype="bf16", device="cpu")
    assert not (tmp_path / "b").exists()


def test_wrong_weights_and_wrong_tokens_are_noticed(
    merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(folder: Path) -> ModelSource:
        return ModelSource("other", "folder", "", folder)

    write = exporting.write_gguf
    other = make_merged(tmp_path / "qwen", "qwen")
    monkeypatch.setattr(exporting, "write_gguf", lambda _, *rest: write(of(other), *rest))
    with pytest.raises(ModelError, match=r"not written, the model in f32 answers . of 3 test prompts otherwise"):
        export(merged, tmp_path / "out", format="gguf", dtype="f32", device="cpu")
    digits = make_merged(tmp_path / "digits", way="smollm")
    monkeypatch.setattr(exporting, "write_gguf", lambda _, *rest: write(of(digits), *rest))
    with pytest.raises(ModelError, match="read the test prompts as different tokens"):
        export(merged, tmp_path / "out", format="gguf", dtype="f32", device="cpu")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits", "qwen"]


def changed(change: Callable[[Any], Any], **more: Any) -> Any:
    tokenizer = make_tokenizer(**more)
    change(tokenizer.backend_tokenizer)
    return tokenizer


def lowered(raw: Any) -> None:
    raw.normalizer = normalizers.Lowercase()


def unmerged(raw: Any) -> None:
    vocabulary = {sign: number for number, sign in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    raw.model = kinds.BPE(vocab=vocabulary, merges=[])


def parted(way: Any) -> Callable[[Any], None]:
    def change(raw: Any) -> None:
        raw.pre_tokenizer = way

    return change


@pytest.mark.parametrize(
    ("tokenizer", "said"),
    [
        (
            lambda: changed(parted(split(r"\p{N}"))),
            "parts texts in a way that is none of gpt-2, smollm, qwen2, llama-bpe",
        ),
        (lambda: changed(parted(pre_tokenizers.ByteLevel(add_prefix_space=True))), "in a way that is none of gpt-2"),
        (lambda: changed(parted(pre_tokenizers.Metaspace())), "is no byte-level byte-pair encoding"),
        (lambda: changed(parted(WAYS["llama-bpe"])), "parts texts as llama-bpe does, but joins them otherwise"),
        (lambda: changed(lowered), "changes letters"),
        (lambda: changed(unmerged), "has marks within words, or no merges"),
        (lambda: changed(lambda raw: raw.add_tokens([AddedToken("<m>", lstrip=True)])), "take the blanks beside them"),
        (lambda: make_tokenizer(eos_token=None), "has no token that ends a text"),
    ],
)
def test_a_tokenizer_that_llama_cpp_would_read_otherwise_is_refused(tokenizer: Callable[[], Any], said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        parting(tokenizer(), "the/model")
    assert str(caught.value).startswith("the/model: its tokenizer ")
    assert "convert_hf_to_gguf.py" in str(caught.value)


@pytest.mark.parametrize(
    ("family", "changed", "said"),
    [
        ("gpt2", {}, "is a gpt2 model, none of llama, qwen2, qwen3"),
        ("llama", {"hidden_act": "gelu"}, "computes with gelu"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            r"has rotary positions of another kind than the plain one \(linear\)",
        ),
        ("llama", {"attention_bias": True}, "has biases"),
        (
            "qwen",
            {"layer_types": ["full_attention", "sliding_attention"]},
            "has layers that see a part of the text alone",
        ),
    ],
)
def test_a_model_that_cannot_be_written_is_said_before_any_work(
    family: str, changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = make_merged(tmp_path / "whole", family, **changed)
    with pytest.raises(ModelError, match=said) as caught:
        export(folder, tmp_path / "out", format="gguf", device="cpu")
    assert str(caught.value).startswith(f"{folder}: ")
    assert "--format safetensors and convert that folder with llama.cpp's convert_hf_to_gguf.py" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_what_was_given_wrongly_is_one_clear_line(
    merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> str:
        assert main(["export", *arguments, "--device", "cpu"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        return error

    empty, out = tmp_path / "empty", str(tmp_path / "out")
    empty.mkdir()
    assert "holds neither an adapter that ragqa.fine_tune wrote nor" in said(
        str(empty), "--out", out, "--format", "gguf"
    )
    assert "holds no adapter that ragqa.fine_tune wrote" in said(str(empty), "--out", out)
    assert "invalid choice: 'onnx'" in said(str(merged), "--out", out, "--format", "onnx")
    with pytest.raises(InputError, match="unknown format 'onnx'; accepted are safetensors, gguf"):
        export(merged, out, format="onnx")  # type: ignore[arg-type]
    assert "gguf is not written in 'float16'; accepted are f16, bf16, f32, q8_0" in said(
        str(merged), "--out", out, "--format", "gguf", "--dtype", "float16"
    )
    assert "safetensors is not written in 'q8_0'" in said(str(merged), "--out", out, "--dtype", "q8_0")
    assert "is there already; choose another --out" in said(str(merged), "--out", str(empty), "--format", "gguf")
    (empty / "thesis.txt").write_text("all of it")
    assert "holds something else" in said(str(merged), "--out", str(empty), "--format", "gguf", "--overwrite")
    bare = Path(shutil.copytree(merged, tmp_path / "bare"))
    (bare / "prompts.jsonl").unlink()
    assert "test prompts are needed" in said(str(bare), "--out", out, "--format", "gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare", "empty"]


@pytest.mark.parametrize(
    ("raised", "status"), [(KeyboardInterrupt(), 130), (OSError(errno.ENOSPC, "No space left on device"), 2)]
)
def test_an_export_that_is_broken_off_leaves_what_was_there(
    raised: BaseException,
    status: int,
    merged: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    export(merged, out, format="gguf", device="cpu")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    write = exporting.write_gguf

    def broken(*arguments: Any) -> None:
        write(*arguments)
        raise raised

    monkeypatch.setattr(exporting, "write_gguf", broken)
    given = ["export", str(merged), "--out", str(out), "--format", "gguf", "--dtype", "f32", "--overwrite"]
    assert main([*given, "--device", "cpu"]) == status
    assert ("nothing was written" if status == 130 else "cannot be written") in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    monkeypatch.undo()
    assert main([*given, "--device", "cpu"]) == 0
    assert (out / "model.gguf").read_bytes() != before["model.gguf"]


def test_a_full_disk_and_a_damaged_file_are_errors_of_ragqas_own(
    merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "model.gguf").write_bytes(b"GGUF, but nothing more")
    with pytest.raises(ModelError, match="cannot be read as a GGUF file"):
        load_gguf(tmp_path / "bad" / "model.gguf", "cpu")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(StorageError, match="MB are free"):
        export(merged, tmp_path / "out", format="gguf", device="cpu")
    assert issubclass(StorageError, RagqaError)
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


@pytest.mark.parametrize(
    ("name", "scale", "said"),
    [
        ("model.layers.0.self_attn.odd.weight", 1.0, "GGUF has no place for {} of a llama model"),
        ("model.layers.0.mlp.up_proj.weight", 1e6, "{} has weights that are too large for f16; choose --dtype bf16"),
    ],
)
def test_a_weight_that_a_gguf_file_cannot_hold_is_named(name: str, scale: float, said: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "whole")
    weights = load_file(folder / "model.safetensors")
    like = weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights | {name: scale * (1 + like.abs())}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError) as caught:
        write_gguf(ModelSource("mine", "folder", "", folder), tmp_path / "m.gguf", "f16", "mine")
    assert str(caught.value) == f"mine: {said.format(name)}"


def test_a_vocabulary_has_a_chat_template_only_where_the_tokenizer_has_one() -> None:
    tokenizer = make_tokenizer()
    for template in (tokenizer.chat_template, None):
        tokenizer.chat_template, writer = template, mock.Mock()
        write_vocabulary(writer, tokenizer, len(tokenizer), "mine")
        assert writer.add_chat_template.mock_calls == ([mock.call(template)] if template else [])
    with pytest.raises(
        ModelError, match=f"^mine: its tokenizer has token {len(tokenizer) - 1}, and its embeddings have 9"
    ):
        write_vocabulary(mock.Mock(), tokenizer, 9, "mine")


def test_a_merged_model_that_answers_otherwise_is_not_written(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "agreement", lambda before, _: (len(before) - 1, 0.5))
    for dtype, helps in (("float32", r" \(log-probabilities differ by 0\.5\)"), ("bfloat16", "; merge in float32")):
        said = (
            f"/out: not written, the merged model in {dtype} answers 1 of .* prompts otherwise than the adapter{helps}$"
        )
        with pytest.raises(ModelError, match=said):
            merge(adapter, tmp_path / "out", device="cpu", dtype=dtype)
    assert list(tmp_path.iterdir()) == []


def test_safetensors_are_served_by_vllm_and_asked_the_same_way() -> None:
    assert export_command._how(Path("/my models/one"), {"merged": {}}) == [
        "now serve it: vllm serve '/my models/one' --served-model-name one",
        "and ask it: ragqa ask INDEX --adapter '/my models/one' --server http://localhost:8000/v1 --server-model one "
        '"What is the description of ...?"',
    ]
