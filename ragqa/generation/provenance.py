"""Provenance of an answer: for every character of it, which source it was copied from, or none.

What is shown is agreement in words, not proof of meaning: a run of words that an answer shares with a description
may stand in another sense there, and a common phrase may stand in several. A paraphrase counts as without source,
however faithful it is.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Final

from ragqa.records import Product, Span

# Each character of scripts that write no blanks is a word: Chinese, Japanese and Korean.
_IDEOGRAPH: Final = (
    r"\u1100-\u11ff\u3005-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc\U00020000-\U0003ffff"
)
_LETTERS: Final = rf"[^\W{_IDEOGRAPH}]+"
# A number is one word with its sign and what stands between its digits: "1,800", "1/4" and "-5" are no copies of
# "1,900", "1/2" and "5", not even in part.
_JOINED: Final = rf"{_LETTERS}(?:[.,/](?<=\d.)(?=\d){_LETTERS})*"
# A word or white space; together they are the whole text. The most frequent come first.
_TOKEN: Final = re.compile(rf"{_JOINED}|\s+|(?<!\w)[-−](?=\d){_JOINED}|[{_IDEOGRAPH}]|[^\w\s]")

# Shorter runs agree by chance: of 400 Best Buy descriptions, each held against five others at random, two words and
# eight characters "copy" 1.9 times a text ("with this"), these 0.4 times, many of them real stock phrases.
_FEWEST_WORDS: Final = 3  # that hold a letter or digit
_FEWEST_CHARACTERS: Final = 12
# But a number of two digits or more with its unit ("92 g", "42-inch", "50%") does not, and matters most. A single
# digit ("2 cm", "5 years") does. Possessive, so that many digits take no quadratic time.
_MEASURE: Final = re.compile(r"(?<!\d)(?<!\d[.,/])\d(?:[.,/]?\d)++(?:\s|-)?(?:[^\W\d_]|[%‰°\"”″'’′])")

# Stands for every word of the sources that the text does not have, and for their ends.
_OTHER: Final = "\0"
# Three words and the white space between them; what stands in no source is told by them at once.
_GRAM: Final = 5
_KNOWN: Final = re.compile(rf"[^{_OTHER}]{{{_GRAM},}}")

_UNDERLINED: Final = 4
# ANSI colours that can be told apart on light and dark grounds; red last, since it looks like an error.
_COLORS: Final = (32, 36, 35, 33, 34, 31)
# What moves the cursor or begins a command of the terminal; line feeds and tabs stay.
_STEERING: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def spans(
    text: str,
    sources: Sequence[Product],
    cited: str | None = None,
    log_probs: Sequence[tuple[int, int, float]] = (),
) -> tuple[Span, ...]:
    """Where each part of an answer was copied from.

    A copied run begins and ends at word borders, and all its characters are the source's. From the left, the longest
    run over all descriptions is taken at each place; runs that could agree by chance count only if they are the
    whole text.

    Args:
        text: the answer.
        sources: the products whose descriptions it may have been copied from.
        cited: id of the product that the answer names as its source; of runs as long as each other, its own is
            taken. Then that of the source copied from before, if it goes on there, then that of the first.
        log_probs: of the tokens that the model wrote, in order: first character, end, natural logarithm of the
            probability. A token begins at its first visible character: the blank before a word often is part of it.

    Returns:
        Spans in order, none empty, that cover the text from end to end; no two without a source side by side.
    """
    whole = next((source for source in sources if source.id == cited), None)
    if whole and _begins(whole.description, text):
        return _with_probabilities(text, [Span(0, len(text), whole.id, 0, len(text))], log_probs)
    tokens = _TOKEN.findall(text)
    starts = [*accumulate(map(len, tokens), initial=0)]
    # Each word, and each kind of white space, as one character: `str.find` then looks for runs of whole words.
    codes = {token: chr(code) for code, token in enumerate(dict.fromkeys(tokens), 1)}
    told = "".join([codes[token] for token in tokens])
    held = [_TOKEN.findall(source.description) for source in sources]
    pool = "".join(["".join([codes.get(token, _OTHER) for token in one]) + _OTHER for one in held])
    begins = [*accumulate((len(one) + 1 for one in held), initial=0)]
    grams = {known[at : at + _GRAM] for known in _KNOWN.findall(pool) for at in range(len(known) - _GRAM + 1)}
    first = [number for number, source in enumerate(sources) if source.id == cited]

    found: list[Span] = []
    offsets: dict[int, list[int]] = {}
    done, previous, after = 0, None, 0  # tokens done; source of the previous copied run, its end in the pool
    for start, least in enumerate(_least(text, tokens, starts)):
        if start < done or not least or (least - start >= _GRAM and told[start : start + _GRAM] not in grams):
            continue
        stop = _longest(told, start, least, pool)
        if stop == start:
            continue
        stop -= tokens[stop - 1].isspace()
        places = [(number, begins[number]) for number in (*first, *range(len(sources)))]
        if previous is not None:
            places.insert(0 if previous in first else len(first), (previous, after))
        source, at = next(
            (number, at)
            for number, begin in places
            if (at := pool.find(told[start:stop], begin, begins[number + 1])) >= 0
        )
        # White space after the run is the source's too if it stands there; so is white space before it that
        # no other words come before.
        stop += stop < len(told) and told[stop] == pool[at + stop - start]
        if done == start - 1 and told[done] == pool[at - 1]:
            start, at = start - 1, at - 1
        if done < start:
            found.append(Span(starts[done], starts[start], None, None, None))
        if source not in offsets:
            offsets[source] = [*accumulate(map(len, held[source]), initial=0)]
        begin = at - begins[source]
        here, there = (offsets[source][place] for place in (begin, begin + stop - start))
        found.append(Span(starts[start], starts[stop], sources[source].id, here, there))
        done, previous, after = stop, source, at + stop - start
    if done < len(tokens):
        found.append(Span(starts[done], len(text), None, None, None))
    return _with_probabilities(text, found, log_probs)


def _begins(description: str, text: str) -> bool:
    """Whether a text is all of a description, or of its first words; there is then nothing to look for."""
    return (
        description.startswith(text)
        and bool(text)
        and not text[0].isspace()
        and not text[-1].isspace()
        and (len(text) == len(description) or description[len(text)].isspace())
    )


def _least(text: str, tokens: Sequence[str], starts: Sequence[int]) -> list[int]:
    """For each token, where the shortest run from there ends that does not agree by chance; 0 where none does."""
    least, distinct = [0] * len(tokens), set(tokens)
    blanks = {token for token in distinct if token.isspace()}
    spoken = {token for token in distinct if any(map(str.isalnum, token))}
    words = [place for place, token in enumerate(tokens) if token not in blanks]
    counted = [*accumulate((token in spoken for token in tokens), initial=0)]
    ends = [place + 1 for place in words]
    last = 0
    for word in words:
        while last < len(ends) and (
            counted[ends[last]] - counted[word] < _FEWEST_WORDS
            or starts[ends[last]] - starts[word] < _FEWEST_CHARACTERS
        ):
            last += 1
        if last == len(ends):
            break
        least[word] = ends[last]
    # A run with a measure in it ends with the measure, or sooner.
    measured = 0
    for match in _MEASURE.finditer(text):
        begin, end = (bisect_right(starts, place) - 1 for place in (match.start(), match.end() - 1))
        for word in range(measured, begin + 1):
            if tokens[word] not in blanks:
                least[word] = min(least[word] or len(tokens), end + 1)
        measured = begin + 1
    if words:
        least[words[0]] = least[words[0]] or ends[-1]
    return least


def _longest(told: str, start: int, least: int, pool: str) -> int:
    """Where the longest run from `start` ends that stands in the pool; `start` where it is shorter than `least`."""
    stop, at = start, pool.find(told[start:least])
    while at >= 0:
        stop = max(stop, least)
        while stop < len(told) and told[stop] == pool[at + stop - start]:
            stop += 1
        # Where the text ends, no other place has more.
        at = pool.find(told[start : stop + 1], at + 1) if stop < len(told) else -1
    return stop


def _with_probabilities(
    text: str, found: Sequence[Span], log_probs: Sequence[tuple[int, int, float]]
) -> tuple[Span, ...]:
    """The spans, each with the geometric mean of the probabilities of the tokens that begin in it."""
    if not log_probs:
        return tuple(found)
    starts = [span.start for span in found]
    values: list[list[float]] = [[] for _ in found]
    for start, stop, value in log_probs:
        piece = text[start:stop]
        begin = start + (len(piece) - len(piece.lstrip()) if piece.strip() else 0)
        if begin < len(text):
            values[bisect_right(starts, begin) - 1].append(value)
    return tuple(
        replace(span, probability=math.exp(sum(own) / len(own)) if own else None)
        for span, own in zip(found, values, strict=True)
    )


def explained(text: str, spans: Sequence[Span], ids: Sequence[str], color: bool) -> str:
    """An answer for a terminal, with marks that tell where its parts come from.

    Characters that could steer the terminal are shown as U+FFFD, so that a description cannot do so.

    Args:
        text: the answer.
        spans: of the answer; where there are none, it has no marks.
        ids: of the products, as they are numbered for the reader. One that is not among them is named by its id.
        color: each source in its own colour and what has none underlined; else copied parts in brackets, each
            after the number of its source, from 1.

    >>> explained("Weighs 92 g, I think.", [Span(0, 11, "a", 0, 11), Span(11, 21, None, None, None)], ["a"], False)
    '[1: Weighs 92 g], I think.'
    """
    if not spans:
        return _harmless(text)
    numbers = {product: number for number, product in reversed([*enumerate(ids, 1)])}
    parts = []
    for span in spans:
        part = text[span.start : span.stop]
        words = part.strip()
        # White space at either end stays outside of the marks.
        before, after = part[: len(part) - len(part.lstrip())], part[len(part.rstrip()) :] if words else ""
        shown = _harmless(words)
        if words and color:
            place = numbers.get(span.source, len(ids) + 1) - 1 if span.source is not None else None
            style = _UNDERLINED if place is None else _COLORS[place % len(_COLORS)]
            shown = f"\x1b[{style}m{shown}\x1b[0m"
        elif words and span.source is not None:
            shown = f"[{numbers.get(span.source) or _harmless(span.source)}: {shown}]"
        parts += [_harmless(before), shown, _harmless(after)]
    return "".join(parts)


def _harmless(text: str) -> str:
    return _STEERING.sub("\ufffd", text)
