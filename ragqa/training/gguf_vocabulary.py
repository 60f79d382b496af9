"""A tokenizer -> the vocabulary of a GGUF file: byte-level byte-pair encodings whose way of parting texts llama.cpp has."""

from __future__ import annotations

import json
from typing import Any, Final

from gguf import GGUFWriter, TokenType

from ragqa.errors import ModelError
from ragqa.models.gguf import PARTING

CONVERTER: Final = "llama.cpp's convert_hf_to_gguf.py"


def parting(tokenizer: Any, name: str) -> str:
    """llama.cpp's name for the way in which a tokenizer parts texts.

    Args:
        tokenizer: a fast one.
        name: the model's, for messages.

    Raises:
        ModelError: llama.cpp has no such way, or the tokenizer is none that a GGUF file can hold.
    """
    told = json.loads(tokenizer.backend_tokenizer.to_str())
    kind, before, normal = told["model"], told["pre_tokenizer"] or {}, told["normalizer"] or {"type": "NFC"}
    # Trimming is about where tokens stand in a text, not which they are.
    steps = [
        step | ({"trim_offsets": True} if "trim_offsets" in step else {})
        for step in before.get("pretokenizers", [before])
    ]
    found = [one for one, (named, _) in PARTING.items() if named == steps]
    lacking = ""
    if kind["type"] != "BPE" or kind.get("byte_fallback") or not any(s.get("type") == "ByteLevel" for s in steps):
        lacking = "is no byte-level byte-pair encoding"
    elif kind.get("continuing_subword_prefix") or kind.get("end_of_word_suffix") or not kind["merges"]:
        lacking = "has marks within words, or no merges"
    elif not found:
        lacking = f"parts texts in a way that is none of {', '.join(PARTING)}"
    elif bool(kind.get("ignore_merges")) != PARTING[found[0]][1]:
        lacking = f"parts texts as {found[0]} does, but joins them otherwise"
    elif normal != {"type": "NFC"}:  # llama.cpp normalises nothing; what ragqa sends is in NFC
        lacking = "changes letters before it parts texts"
    elif any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in told["added_tokens"]):
        lacking = "has added tokens that take the blanks beside them"
    elif tokenizer.eos_token_id is None:
        lacking = "has no token that ends a text"
    if lacking:
        raise ModelError(
            f"{name}: its tokenizer {lacking}, so ragqa cannot write it as GGUF; export it with --format safetensors and "
            f"convert that folder with {CONVERTER}"
        )
    return found[0]


def write_vocabulary(writer: GGUFWriter, tokenizer: Any, size: int, name: str) -> None:
    """Write a tokenizer's tokens, merges, special tokens and chat template.

    Args:
        writer: of the file.
        tokenizer: see `parting`.
        size: rows of the model's embeddings; those that no token has are filled with unused ones.
        name: the model's, for messages.

    Raises:
        ModelError: see `parting`; or there are more tokens than rows.
    """
    way, told = parting(tokenizer, name), json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = {number: token for token, number in tokenizer.get_vocab().items()}
    if max(tokens) >= size:
        raise ModelError(f"{name}: its tokenizer has token {max(tokens)}, and its embeddings have {size:,} rows")
    kinds = dict.fromkeys(tokens, TokenType.NORMAL)
    for token in told["added_tokens"]:
        kinds[token["id"]] = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(way)
    writer.add_token_list([tokens.get(number, f"[PAD{number}]") for number in range(size)])
    writer.add_token_types([int(kinds.get(number, TokenType.UNUSED)) for number in range(size)])
    # Older files of tokenizers have a merge as one text.
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in told["model"]["merges"]])
    special = {
        writer.add_bos_token_id: tokenizer.bos_token_id,
        writer.add_eos_token_id: tokenizer.eos_token_id,
        writer.add_unk_token_id: tokenizer.unk_token_id,
        writer.add_pad_token_id: tokenizer.pad_token_id,
    }
    for add, number in special.items():
        if number is not None:
            add(number)
    # What the tokenizer itself puts around a text, whatever its settings say.
    ids = tokenizer("a")["input_ids"]
    writer.add_add_bos_token(len(ids) > 1 and ids[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(len(ids) > 1 and ids[-1] == tokenizer.eos_token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
