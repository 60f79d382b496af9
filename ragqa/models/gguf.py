"""A GGUF file -> the model in it as transformers reads it, to check one that was written."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ragqa.errors import ModelError, first_line
from ragqa.models.device import choose_device
from ragqa.models.packaged import dequantising
from ragqa.models.source import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _bytes(words: bool) -> dict[str, Any]:
    """Bytes as letters; `words`: parted into words, too, as GPT-2 does."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": words}


def _split(digits: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": _SPLIT % digits}, "behavior": "Isolated", "invert": False}


# llama.cpp's name -> the steps by which a text is parted, and whether a whole word that is a token is taken without merges.
PARTING: Final[Mapping[str, tuple[list[dict[str, Any]], bool]]] = {
    "gpt-2": ([_bytes(words=True)], False),
    "smollm": ([{"type": "Digits", "individual_digits": True}, _bytes(words=True)], False),
    "qwen2": ([_split(r"\p{N}"), _bytes(words=False)], False),
    "llama-bpe": ([_split(r"\p{N}{1,3}"), _bytes(words=False)], True),
}


def load_gguf(file: Path, device: str = "auto") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the language model in a GGUF file, its weights turned into float32, and its tokenizer.

    Args:
        file: alone in its folder: the library would read a configuration or a tokenizer beside it in place of its own.
        device: see `choose_device`.

    Raises:
        ModelError: it cannot be read.
    """
    place = choose_device(device)
    import torch
    from gguf import GGUFReader, Keys
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with quiet(), contextlib.redirect_stderr(io.StringIO()):  # a bar of its own
            model: Any = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.float32, **dequantising()
            )
            tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
            # The library knows some of these ways alone, and takes the architecture's in the place of others.
            way = GGUFReader(file).fields[Keys.Tokenizer.PRE].contents()
            told = json.loads(tokenizer.backend_tokenizer.to_str())
            told["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": PARTING[way][0]}
            tokenizer.backend_tokenizer.pre_tokenizer = Tokenizer.from_str(json.dumps(told)).pre_tokenizer
    except Exception as error:  # the library raises anything
        raise ModelError(f"{file}: cannot be read as a GGUF file ({first_line(error)})") from error
    return model.to(place).eval(), tokenizer
