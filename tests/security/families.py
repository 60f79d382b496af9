"""Small tokenizers with the chat templates of the families that people run, made without their weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_LLAMA3 = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# `[INST]` and `<<SYS>>` are no tokens of Llama 2's tokenizer, and were none of Mistral's first.
_LLAMA2 = (
    "{% set ns = namespace(system='') %}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{% set ns.system = '<<SYS>>\n' + m['content'] + '\n<</SYS>>\n\n' %}{% elif m['role'] == 'user' %}"
    "<s>[INST] {{ ns.system }}{{ m['content'] }} [/INST]{% set ns.system = '' %}{% else %} {{ m['content'] }} </s>"
    "{% endif %}{% endfor %}"
)
_GEMMA = (
    "<bos>{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_VICUNA = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }} {% elif m['role'] == 'user' %}"
    "USER: {{ m['content'] }} {% else %}ASSISTANT: {{ m['content'] }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)

# Name -> chat template, special tokens, a normaliser of its own, what a description must not say.
FAMILIES: Final[dict[str, tuple[str | None, list[str], bool, list[str]]]] = {
    "chatml": (_CHATML, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], False, ["<|im_start|>", "<|im_end|>"]),
    "llama-3": (
        _LLAMA3,
        ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        False,
        ["<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"],
    ),
    "llama-2": (_LLAMA2, ["<s>", "</s>", "<unk>"], True, ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<s>", "</s>"]),
    "gemma": (
        _GEMMA,
        ["<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>"],
        True,
        ["<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>"],
    ),
    "vicuna": (_VICUNA, ["<s>", "</s>"], True, ["USER:", "ASSISTANT:", "</s>"]),
    "gpt-2": (None, ["<|endoftext|>"], False, ["<|endoftext|>"]),
    "t5": (None, ["</s>", "<pad>", "<unk>", "<extra_id_0>"], True, ["</s>", "<pad>", "<extra_id_0>"]),
}


def family_tokenizer(name: str) -> Any:
    """A tokenizer of single bytes with that family's template and special tokens.

    Those of the SentencePiece families bring compatibility forms to plain ones before they look for tokens, and their
    special tokens are looked for afterwards: the hardest case.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    template, special, normalises, _ = FAMILIES[name]
    vocabulary = {token: i for i, token in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    if normalises:
        unseen = normalizers.Replace("\u200b", "")
        raw.normalizer = normalizers.Sequence([normalizers.NFKC(), unseen])
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(token, normalized=normalises, special=True) for token in special])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=special[1 % len(special)])
    tokenizer.chat_template = template
    return tokenizer


# How a mark may be hidden from a search for its letters: by name, a change of a text.
DISGUISES: Final[dict[str, Callable[[str], str]]] = {
    "plain": str,
    "zero-width space": lambda mark: f"{mark[:2]}\u200b{mark[2:]}",
    "zero-width joiner": lambda mark: f"{mark[0]}\u200d{mark[1:]}",
    "soft hyphen": lambda mark: f"{mark[:-1]}\xad{mark[-1]}",
    "right-to-left override": lambda mark: f"\u202e{mark[:1]}\u202c{mark[1:]}",
    "variation selector": lambda mark: f"{mark[0]}\ufe0f{mark[1:]}",
    "tag character": lambda mark: f"{mark[0]}\U000e0061{mark[1:]}",
    "full width": lambda mark: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in mark),
    "half full width": lambda mark: f"{mark[0]}{''.join(chr(ord(c) + 0xFEE0) if c.isalpha() else c for c in mark[1:])}",
    "nested": lambda mark: f"{mark[:1]}{mark}{mark[1:]}",
}
