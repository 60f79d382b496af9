"""Questions about products, each labelled: which product, what kind, and whether the catalogue leaves it open.

=============  ==========================================================================
``exact``      the title as it stands
``partial``    some of its words left out
``typo``       typing errors in it
``reordered``  lower case, its words in another order
``clue``       part of the title and words that stand only in the description
``absent``     the title, whole or in part, of a product held out of the search
``nonsense``   invented words
=============  ==========================================================================
"""

from __future__ import annotations

import json
import random
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from ragqa.errors import InputError
from ragqa.records import Product
from ragqa.retrieval.noise import mistyped, partial_title, reordered
from ragqa.retrieval.text import fold

Kind = Literal["exact", "partial", "typo", "reordered", "clue", "absent", "nonsense"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
WITH_PRODUCT: Final[tuple[Kind, ...]] = ("exact", "partial", "typo", "reordered", "clue")

# The first Portuguese one is the original study's.
TEMPLATES: Final[tuple[str, ...]] = (
    "What is the description of {subject}?",
    "What is the description of this product: {subject}?",
    "Tell me about {subject}.",
    "Please describe this product: {subject}",
    "Can you give me the details of {subject}?",
    "{subject}",
    "Qual é a descrição deste produto: {subject}?",
    "Qual é a descrição do produto {subject}?",
    "Me fale sobre {subject}.",
    "Descreva o produto: {subject}",
    "Por favor, me diga os detalhes de {subject}.",
    "Quero saber mais sobre {subject}",
)


@dataclass(frozen=True, slots=True)
class LabelledQuestion:
    """A question with its answer key.

    Attributes:
        text: as a user types it.
        kind: see the module.
        product_id: the product it is about, None where there is none to be found.
        subject: the part that names the product.
        ambiguous: several products of the catalogue fit all its words, so that nobody could be sure; the share of
            questions that are not is a ceiling for any answerer.
        about: for `absent` questions the held-out product they name, else "".
    """

    text: str
    kind: Kind
    product_id: str | None
    subject: str
    ambiguous: bool = False
    about: str = ""


class WordIndex:
    """Which titles hold which folded words."""

    def __init__(self, titles: Iterable[str]) -> None:
        rows: dict[str, array[int]] = {}
        self._lengths = array("H")
        for row, title in enumerate(titles):
            words = set(fold(title).split())
            self._lengths.append(min(len(words), 0xFFFF))
            for word in words:
                rows.setdefault(word, array("I")).append(row)
        self._rows = rows

    def holding(self, words: Iterable[str]) -> npt.NDArray[np.uint32]:
        """Rows of the titles that hold all these folded words, ascending; none for no words."""
        lists = sorted((self._rows.get(word, array("I")) for word in set(words)), key=len)
        if not lists:
            return np.empty(0, np.uint32)
        found = np.frombuffer(lists[0], np.uint32) if lists[0] else np.empty(0, np.uint32)
        for other in lists[1:]:
            if not len(found):
                break
            found = np.intersect1d(found, np.frombuffer(other, np.uint32), assume_unique=True)
        return found

    def bearing(self, words: Iterable[str]) -> npt.NDArray[np.uint32]:
        """Rows of the titles made of just these folded words, in any order."""
        wanted = set(words)
        return np.array([row for row in self.holding(wanted) if self._lengths[row] == len(wanted)], np.uint32)


class QuestionMaker:
    """Makes labelled questions about the products of one catalogue.

    Args:
        products: all products, by row.
        templates: questions with ``{subject}`` in them.
        seed: the same seed gives the same questions.

    Raises:
        InputError: a template lacks ``{subject}``.
    """

    def __init__(self, products: Sequence[Product], templates: Sequence[str] = TEMPLATES, seed: int = 0) -> None:
        wrong = [template for template in templates if "{subject}" not in template]
        if wrong or not templates:
            raise InputError(f"every question template needs {{subject}} in it; these have none: {wrong}")
        self._products = products
        self._templates = tuple(templates)
        self._seed = seed
        self._words = WordIndex(product.title for product in products)
        sample = random.Random(seed).sample(range(len(products)), min(5000, len(products)))  # noqa: S311
        self._frequency = Counter(word for row in sample for word in set(fold(products[row].description).split()))

    def about(self, row: int, kind: Kind, number: int = 0) -> LabelledQuestion | None:
        """A question of one kind about the product in `row`; None where it gives none of that kind.

        Args:
            row: the product's row.
            kind: one of `KINDS`; `absent` presumes that the product is held out of the search.
            number: another number gives another question of the same kind.
        """
        product = self._products[row]
        random_ = random.Random(f"{self._seed}/{kind}/{product.id}/{number}")  # noqa: S311
        subject = self._subject(product, kind, random_)
        if not subject:
            return None
        text = random_.choice(self._templates).replace("{subject}", subject)
        if kind == "absent":
            return LabelledQuestion(text, kind, None, subject, about=product.id)
        if kind == "nonsense":
            return LabelledQuestion(text, kind, None, subject)
        return LabelledQuestion(text, kind, product.id, subject, self._ambiguous(product, kind, subject))

    def _subject(self, product: Product, kind: Kind, random_: random.Random) -> str:
        title = product.title
        if kind == "exact":
            return title
        if kind == "partial":
            part = partial_title(title, random_, keep=random_.uniform(0.5, 0.8))
            return part if fold(part) != fold(title) else ""
        if kind == "typo":
            wrong = mistyped(title, random_, rate=random_.uniform(0.04, 0.1))
            return wrong if fold(wrong) != fold(title) else ""
        if kind == "reordered":
            return reordered(title, random_) if len(title.split()) > 1 else ""
        if kind == "clue":
            clues = self._clues(product)
            if not clues:
                return ""
            picked = random_.sample(clues, min(len(clues), random_.choice((2, 3))))
            return f"{partial_title(title, random_, keep=0.4)} {' '.join(picked)}"
        if kind == "absent":
            return title if random_.random() < 0.5 else partial_title(title, random_, keep=0.65)
        return " ".join(_invented(random_) for _ in range(random_.randint(2, 4)))

    def _clues(self, product: Product) -> list[str]:
        """Up to eight of the rarest words of the description that the title does not have."""
        title = set(fold(product.title).split())
        words = {word for word in fold(product.description).split() if len(word) > 3 and word not in title}
        return sorted(words, key=lambda word: (self._frequency[word], word))[:8]

    def _ambiguous(self, product: Product, kind: Kind, subject: str) -> bool:
        if kind in ("exact", "typo"):
            key = fold(product.title)
            rows = self._words.bearing(key.split())
            return sum(fold(self._products[row].title) == key for row in rows) > 1
        words = fold(subject).split()
        if kind == "reordered":
            return len(self._words.bearing(words)) > 1
        if kind == "partial":
            return len(self._words.holding(words)) > 1
        # A clue question: the title's words in titles, the others in descriptions.
        title = set(fold(product.title).split())
        clues = {word for word in words if word not in title}
        fitting = 0
        for row in self._words.holding(word for word in words if word in title):
            other = self._products[row]
            fitting += clues <= set(fold(f"{other.title} {other.description}").split())
        return fitting > 1


def _invented(random_: random.Random) -> str:
    syllables = random_.randint(2, 4)
    return "".join(random_.choice("bdfgklmnprstvz") + random_.choice("aeiou") for _ in range(syllables))


def to_json(question: LabelledQuestion) -> dict[str, Any]:
    """A JSON-ready dictionary of all fields."""
    return {name: getattr(question, name) for name in LabelledQuestion.__slots__}


def read_questions(path: str | Path, ids: Mapping[str, Any] | frozenset[str]) -> Iterator[LabelledQuestion]:
    """A user's own questions: JSON lines with ``question`` and ``product_id`` (null for none), and maybe ``kind``.

    Args:
        path: the file.
        ids: the ids of the catalogue's products.

    Raises:
        InputError: a line is malformed, or names a product that is not in the catalogue.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            values = json.loads(line)
            text, id_ = values["question"], values["product_id"]
            kind = values.get("kind", "exact" if id_ is not None else "absent")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InputError(
                f'{where}: not {{"question": "...", "product_id": "..." or null}} ({type(error).__name__}: {error})'
            ) from error
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{where}: the question is empty or no text")
        if not isinstance(kind, str) or kind not in KINDS:
            raise InputError(f"{where}: unknown kind {kind!r}; accepted are {', '.join(KINDS)}")
        if id_ is not None and (not isinstance(id_, str) or id_ not in ids):
            raise InputError(f"{where}: no product {id_!r} in the catalogue")
        yield LabelledQuestion(text, kind, id_, text)
