"""Catalogues of any size from real products, and questions about them, for `benchmarks.scale`.

The first 600,000 products or so are real: electronic components, electronics and media of a shop, rows of LF-Amazon-1.3M,
in an order that a seed shuffles. A smaller catalogue is the beginning of a larger one, which is a random part of it. Beyond
the real ones each product is a *varied* one: a real product, some of whose numbers are others, with a word or two of
another real title in its title and a tenth of its description's words from that one's description. Varied ones stand
among the real ones, so that every part of a catalogue is alike.

No two titles are the same once folded (see `ragqa.retrieval.text.fold`), and a product that its source does not describe
is described by its title's words in another order, so that cleaning drops none: n is the number of products indexed.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import xxhash

from benchmarks.road import CATALOGUES
from ragqa.catalogue.clean import clean_text
from ragqa.catalogue.read import Catalogue
from ragqa.files import replacing
from ragqa.records import Product
from ragqa.retrieval.noise import mistyped, partial_title, reordered, with_clues
from ragqa.retrieval.text import fold
from ragqa.training.questions import TEMPLATES

SEED: Final = 11
SOURCES: Final = {name: CATALOGUES[name] for name in ("parts", "bestbuy", "lf_amazon_sample")}
KINDS: Final = ("exact", "partial", "typo", "reordered", "clue")
_NUMBER: Final = re.compile(r"\d+")


class Raw(NamedTuple):
    """A product as its source has it, with entities and tags."""

    title: str
    content: str
    source: str


def make_catalogue(
    count: int, path: Path, sources: Mapping[str, Path] = SOURCES, seed: int = SEED
) -> dict[str, int | dict[str, int]]:
    """Write a catalogue as JSON lines (uid, title, content); the same for the same arguments.

    Args:
        count: of products.
        path: the file; it appears whole or not at all.
        sources: catalogues of real products by name.
        seed: of the order and of the varied products.

    Returns:
        How many products are real, by source, how many varied, and how many were without a description.
    """
    seen: set[int] = set()
    real = list(_real(sources, seen))
    random.Random(seed).shuffle(real)  # noqa: S311  (not for secrets)
    kept = min(count, len(real))
    varied = _varied(real, seen, random.Random(seed + 1))  # noqa: S311
    found: dict[str, int] = dict.fromkeys(sources, 0)
    described = random.Random(seed + 2)  # noqa: S311
    undescribed = 0
    with replacing(path) as file:
        for number in range(count):
            place = number * kept // count
            is_real = (number + 1) * kept // count > place
            product = real[place] if is_real else next(varied)
            content = product.content
            if is_real:
                found[product.source] += 1
            if not clean_text(content):
                undescribed += 1
                content = reordered(product.title, described)
            record = {"uid": f"p{number:08d}", "title": product.title, "content": content}
            file.write(f"{json.dumps(record)}\n".encode())
    return {"products": count, "real": found, "varied": count - kept, "undescribed": undescribed}


def _real(sources: Mapping[str, Path], seen: set[int]) -> Iterator[Raw]:
    for name, path in sources.items():
        for row in Catalogue(path).rows():
            if _is_new(row.title, seen):
                yield Raw(row.title, row.text, name)


def _is_new(title: str, seen: set[int]) -> bool:
    """Whether a title has words and is none that was seen before; it is seen from now on."""
    folded = fold(clean_text(title))
    known = xxhash.xxh3_64_intdigest(folded.encode("utf-8", "surrogatepass"))
    if not folded or known in seen:
        return False
    seen.add(known)
    return True


def _varied(real: Sequence[Raw], seen: set[int], random_: random.Random) -> Iterator[Raw]:
    """Products like the real ones, without end."""
    while True:
        one, other = random_.choice(real), random_.choice(real)
        numbers: dict[str, str] = {}
        title = _exchanged(_renumbered(one.title, numbers, random_), other.title, random_.choice((1, 2)), random_)
        if _is_new(title, seen):
            content = _renumbered(one.content, numbers, random_)
            yield Raw(title, _exchanged(content, other.content, len(content.split()) // 10, random_), one.source)


def _renumbered(text: str, numbers: dict[str, str], random_: random.Random) -> str:
    """`text` with every other number, or so, replaced by one of as many digits; the same one by the same in `numbers`."""

    def other(match: re.Match[str]) -> str:
        number = match[0]
        if number not in numbers:
            first, rest = random_.choice("123456789"), "".join(random_.choices("0123456789", k=len(number) - 1))
            numbers[number] = number if random_.random() < 0.5 else first + rest
        return numbers[number]

    return _NUMBER.sub(other, text)


def _exchanged(text: str, other: str, count: int, random_: random.Random) -> str:
    """`text` with so many of its words replaced by words of `other`, wherever both have any."""
    words, others = text.split(), other.split()
    if others:
        for place in random_.sample(range(len(words)), min(count, len(words))):
            words[place] = random_.choice(others)
    return " ".join(words)


def make_questions(products: Sequence[Product], seed: int = SEED) -> list[dict[str, Any]]:
    """A question about each product, as `text` a user types and as the `kind` it is of; kinds take turns.

    The kinds are those of `ragqa.training.questions`: its maker would read all titles to tell which questions are
    ambiguous, which does not matter to time.
    """
    asked = []
    for number, product in enumerate(products):
        random_ = random.Random(f"{seed}/{number}")  # noqa: S311
        kind = KINDS[number % len(KINDS)]
        subject = _subject(product, kind, random_)
        if not subject:  # no words to take from the description
            kind, subject = "partial", partial_title(product.title, random_)
        asked.append({"kind": kind, "text": random_.choice(TEMPLATES).replace("{subject}", subject)})
    return asked


def _subject(product: Product, kind: str, random_: random.Random) -> str:
    if kind == "exact":
        return product.title
    if kind == "clue":
        return with_clues(product.title, product.description, random_)
    changed = {"partial": partial_title, "typo": mistyped, "reordered": reordered}[kind]
    return changed(product.title, random_)
