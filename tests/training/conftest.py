"""Random models of every family, small enough to be trained in a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FAMILIES = ("gpt2", "llama", "mistral", "qwen", "t5")
# A byte is a token for the tiny tokenizer, so contexts are long; the rest is small.
SMALL = {
    "examples": 12, "validation": 24, "watched": 6, "test": 8, "steps": 4, "evaluations": 2, "context_tokens": 1200,
    "max_new_tokens": 96, "batch_tokens": 2500, "batch_size": 4, "accumulation": 1, "rank": 4, "learning_rate": 0.02,
}  # fmt: skip


def config_of(family: str, vocabulary: int) -> Any:
    """The configuration of a model of two layers."""
    import transformers

    ends = {"vocab_size": vocabulary, "pad_token_id": 0, "eos_token_id": 0, "bos_token_id": None}
    wide = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 2048, "head_dim": 8,
    }  # fmt: skip
    configs: dict[str, Callable[[], Any]] = {
        "gpt2": lambda: transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=2048, **ends),
        "llama": lambda: transformers.LlamaConfig(**wide, **ends),
        "mistral": lambda: transformers.MistralConfig(**wide, **ends),
        "qwen": lambda: transformers.Qwen2Config(**wide, **ends),
        "t5": lambda: transformers.T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, **ends),
    }
    return configs[family]()


@pytest.fixture(scope="session")
def family_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a random model of a family; T5's tokenizer has no chat template, as T5's have not."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        import torch
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

        if family not in made:
            tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
            torch.manual_seed(3)
            config = config_of(family, len(tokenizer))
            kind: Any = AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM
            if family == "t5":
                tokenizer.chat_template = None
            made[family] = tmp_path_factory.mktemp(family)
            model = kind.from_config(config)
            model.generation_config.decoder_start_token_id = 0 if family == "t5" else None
            model.save_pretrained(made[family])
            tokenizer.save_pretrained(made[family])
        return made[family]

    return make
