"""Titles as people type them: in part, mistyped, in another order. All chosen by a seeded generator."""

from __future__ import annotations

import random

from ragqa.retrieval.text import fold


def partial_title(title: str, random_: random.Random, keep: float = 0.65) -> str:
    """`title` with some of its words left out, in order, at least one kept."""
    words = title.split()
    count = max(1, round(len(words) * keep))
    return " ".join(words[i] for i in sorted(random_.sample(range(len(words)), count)))


def mistyped(title: str, random_: random.Random, rate: float = 0.06) -> str:
    """`title` with typing errors: letters swapped, doubled, dropped or replaced, at least one of them."""
    letters = [i for i, char in enumerate(title) if char.isalpha()]
    if not letters:
        return title
    chars = list(title)
    for i in random_.sample(letters, min(len(letters), max(1, round(len(letters) * rate)))):
        kind = random_.randrange(4)
        if kind == 0 and i + 1 < len(chars) and chars[i + 1].isalpha():
            chars[i], chars[i + 1] = chars[i + 1], chars[i]
        elif kind == 1:
            chars[i] *= 2
        elif kind == 2:
            chars[i] = ""
        else:
            chars[i] = random_.choice("abcdefghijklmnopqrstuvwxyz")
    return "".join(chars)


def with_clues(title: str, description: str, random_: random.Random) -> str:
    """Half of `title`'s words and two or three longer ones that stand only in `description`; "" if it has none."""
    held = set(fold(title).split())
    words = sorted({word for word in fold(description).split() if len(word) > 3} - held)
    clues = random_.sample(words, min(len(words), random_.choice((2, 3))))
    return " ".join([partial_title(title, random_, keep=0.5), *clues]) if clues else ""


def reordered(title: str, random_: random.Random) -> str:
    """The words of `title` in lower case and, where it has more than one, in another order."""
    words = title.lower().split()
    mixed = words[:]
    for _ in range(8):
        random_.shuffle(mixed)
        if mixed != words:
            break
    return " ".join(mixed)
