"""What a model could take for a control token or a turn of its chat template, found in texts and broken up.

Four kinds are looked for: the tokenizer's own added tokens; what its chat template writes around turns, which need not
be tokens (``[INST]``, ``ASSISTANT:``); the marks of the usual families, whatever the model, since one that was tuned
on another family's data may know them as text; and the numbers by which the prompt tells entries apart (``[2]``), which
are what the model answers with. They are found as a tokenizer's normaliser may come to see them: with
characters that cannot be seen left out and compatibility forms such as full-width letters made plain.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any, Final

from ragqa.catalogue.clean import UNSEEN

# Takes no room on a screen, and some normalisers drop it: joiners, directional controls, fillers, variation selectors, tags.
# What cleaning leaves in texts, for the sake of emoji, of some scripts, and of white space, is among it here.
_UNSEEN: Final = re.compile(
    f"[{UNSEEN}\x1c-\x1f\u180b-\u180f\u200c\u200d\u2065\ufe00-\ufe0f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a]"
)
# ChatML and Llama 3, Llama 2 and Mistral, Gemma, sentence ends. The second character follows the first at once: a blank
# between them breaks each up.
_FAMILIES: Final = (
    r"<\|[^\s<>|][^<>|]{0,60}\|>",
    r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]",
    r"<</?SYS>>",
    r"<(?:start|end)_of_turn>",
    r"</?s>",
    r"<(?:bos|eos|pad|unk)>",
)
# How an entry is numbered, and how an answer begins.
_ENTRY: Final = r"\[\d{1,3}\]"
_TURNS: Final = ("\ue000", "\ue001", "\ue002")


class Markers:
    """The control marks of one tokenizer.

    Args:
        tokenizer: the generator's.
    """

    def __init__(self, tokenizer: Any) -> None:
        tokens = {str(token).strip() for token in (*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens)}
        own = sorted({mark for mark in {*tokens, *_between_turns(tokenizer)} if len(mark) > 1}, key=_longest_first)
        self._pattern = re.compile("|".join([*map(re.escape, own), *_FAMILIES, _ENTRY]))

    def broken(self, text: str) -> str:
        """`text` with each mark broken up by a blank after its first character, so that it is read as text."""
        # Breaking one up may leave another: each pass parts two visible characters, so the passes end.
        while True:
            seen, places = (text, None) if text.isascii() and text.isprintable() else _as_normalised(text)
            found = [match.span() for match in self._pattern.finditer(seen)]
            if not found:
                return text
            parts, done = [], 0
            for start, stop in found:
                first, last = (start, stop - 1) if places is None else (places[start], places[stop - 1])
                if first == last:  # a single character that stands for all of the mark
                    parts += [text[done:first], f"{seen[start]} {seen[start + 1 : stop]}"]
                else:
                    parts += [text[done : first + 1], " "]
                done = first + 1
            text = "".join([*parts, text[done:]])


def _longest_first(mark: str) -> tuple[int, str]:
    return -len(mark), mark


def _as_normalised(text: str) -> tuple[str, list[int]]:
    """`text` in compatibility form without what cannot be seen, and for each of its characters the place it came from."""
    forms, places = [], []
    for place, letter in enumerate(text):
        if _UNSEEN.match(letter):
            continue
        form = letter if letter.isascii() else unicodedata.normalize("NFKC", letter)
        forms.append(form)
        places += [place] * len(form)
    return "".join(forms), places


def _between_turns(tokenizer: Any) -> Iterator[str]:
    """What the chat template writes around turns, piece by piece; plain words such as the names of roles are none."""
    if not tokenizer.chat_template:
        return
    from jinja2 import TemplateError

    first, answer, second = _TURNS
    talk = [{"role": role, "content": text} for role, text in zip(("user", "assistant", "user"), _TURNS, strict=True)]
    try:
        text = tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
    except (TemplateError, TypeError, ValueError):
        return
    # What stands before the first turn may be a page of instructions; its last line is what opens the turn.
    before, _, after = str(text).partition(first)
    for piece in re.split(rf"[{answer}{second}\n]", "\n".join([before.rpartition("\n")[2], after])):
        mark = piece.strip()
        if 1 < len(mark) <= 60 and not mark.replace(" ", "").isalnum():
            yield mark
