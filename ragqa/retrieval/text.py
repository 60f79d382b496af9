"""Folding of text for comparison: what two titles must share to count as the same."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final

# Signs that tell products apart ("C++", "C#", "4.5 mm", "1/4", "-5 °C") stay; all other punctuation is a blank.
_SIGN: Final = re.compile(r"(?P<kept>(?<=\d)[.,/](?=\d)|(?<!\w)-(?=\d))|[^\w\s+#]|_")

# The same for ASCII, where what goes can be said without what stays: several times as fast.
_ASCII_SIGN: Final = re.compile(r"(?<!\d)[.,/]|[.,/](?!\d)|(?<=\w)-|-(?!\d)|[^\w\s+#.,/-]|_")
_FRACTION: Final = re.compile("[\u00bc-\u00be\u2150-\u215e]")


# Words in a row that are a quotation of a longer question.
_RUN: Final = 3

# Letters of a word that may be kept for when it comes again: thousands of longer ones would be the memory's end.
LONGEST_KEPT: Final = 40


def encodable(text: str) -> str:
    """`text` with a question mark for each lone surrogate, which broken terminals and JSON have and nothing can encode."""
    return text.encode("utf-8", "replace").decode("utf-8")


def fold(text: str) -> str:
    """Case, accents and punctuation folded away, words parted by single blanks.

    >>> fold("  L'Âge d'Or – DVD ")
    'l age d or dvd'
    >>> fold("C++ Primer")
    'c++ primer'
    """
    if text.isascii():
        return " ".join(_ASCII_SIGN.sub(" ", text.lower()).split())
    text = _FRACTION.sub(r" \g<0>", text)
    # Twice, since compatibility forms such as a mathematical A have a capital inside.
    for _ in range(2):
        decomposed = unicodedata.normalize("NFKD", text.casefold())
        text = _without_accents(decomposed)
    return " ".join(_SIGN.sub(_fold_sign, text.casefold()).split())


def _fold_sign(match: re.Match[str]) -> str:
    # A vowel sign or another mark (category M) is part of its word, though not one of \w.
    return match[0] if match["kept"] or unicodedata.category(match[0])[0] == "M" else " "


def _without_accents(text: str) -> str:
    """`text`, decomposed, without the marks over Latin, Greek and Cyrillic letters and over signs.

    Those of other letters are part of what is written.
    """
    kept, plain = [], False
    for char in text:
        if unicodedata.category(char) == "Mn" and plain:
            continue
        plain = ord(char) < 0x530 or unicodedata.category(char)[0] not in "LNM"
        kept.append(char)
    return "".join(kept)


def trigrams(text: str) -> frozenset[str]:
    """The character trigrams of the folded words, each word padded by one blank on either side."""
    return frozenset().union(*map(_word_trigrams, fold(text).split()))


def _word_trigrams(word: str) -> frozenset[str]:
    return _known_trigrams(word) if len(word) <= LONGEST_KEPT else frozenset(_trigrams_of(word))


# Titles that are compared with one question share most of their words.
@functools.lru_cache(maxsize=8192)
def _known_trigrams(word: str) -> frozenset[str]:
    return frozenset(_trigrams_of(word))


def _trigrams_of(word: str) -> Iterator[str]:
    return (f" {word} "[i : i + 3] for i in range(len(word)))


# A question is compared with many titles, one after the other.
_asked_trigrams = functools.lru_cache(maxsize=16)(trigrams)


def overlaps(question: str, title: str) -> tuple[float, float]:
    """Share of the question's character trigrams that stand in the title, and of the title's in the question, in [0, 1].

    Trigrams forgive typing errors, plurals and re-ordered words, which whole words do not.
    """
    asked, held = _asked_trigrams(question), trigrams(title)
    both = len(asked & held)
    return both / len(asked) if asked else 0.0, both / len(held) if held else 0.0


def overlap(question: str, title: str) -> float:
    """The first of `overlaps`."""
    return overlaps(question, title)[0]


def coverage(question: str, title: str, description: str) -> float:
    """Share of the question's folded words that stand in a product's title or description, in [0, 1]; 0 for no words.

    A description that repeats the question, two thirds of its words or more in a row, was written for the question and not
    about the product: there the repeated words do not count.
    """
    asked, held = fold(question).split(), fold(description).split()
    if not asked:
        return 0.0
    words = set(fold(title).split()).union(_without_quotes(held, asked))
    return sum(word in words for word in asked) / len(asked)


def _without_quotes(words: Sequence[str], asked: Sequence[str]) -> Iterator[str]:
    """The words that are not part of a long run of those asked for."""
    least = min(len(asked), max(_RUN, -(-2 * len(asked) // 3)))
    begins = {tuple(asked[start : start + least]) for start in range(len(asked) - least + 1)}
    quoted = -1
    for place, word in enumerate(words):
        if tuple(words[place : place + least]) in begins:
            quoted = place + least
        if place >= quoted:
            yield word
