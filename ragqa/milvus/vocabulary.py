"""A question's words as the catalogue has them: how rare each is, and which was meant by one that nothing has."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple

from ragqa.milvus.connection import Connection
from ragqa.milvus.layout import DESCRIPTION_WORDS, REMAINDERS, TITLE_WORDS, encoded, remainders_of
from ragqa.retrieval.lexical import MOST_COMMON
from ragqa.retrieval.postings import term_hash
from ragqa.retrieval.spelling import remainders

_KEPT: Final = 100_000  # words that are remembered
_AT_ONCE: Final = 1000
# Words that share a remainder with one that was mistyped; of four letters and a million words a few hundred do.
_LIKE: Final = 512
_COUNTS: Final = ["key", "term", "titles", "descriptions"]


class Word(NamedTuple):
    """A word of a question.

    Attributes:
        key: as Milvus has the word, or the one that was meant.
        titles, descriptions: how many have it; of the descriptions none if they are too many to tell anything.
    """

    key: str
    titles: int
    descriptions: int


class Vocabulary:
    """Looks words up.

    Args:
        connection: to Milvus.
        collection: of words.
        count: how many products there are.
    """

    def __init__(self, connection: Connection, collection: str, count: int) -> None:
        self._connection = connection
        self._collection = collection
        self._count = count
        self._known: dict[str, Word] = {}

    def look_up(self, terms: Iterable[str]) -> dict[str, Word]:
        """Each term's word."""
        wanted = dict.fromkeys(terms)
        found = {term: word for term in wanted if (word := self._known.get(term))}
        new = [term for term in wanted if term not in found]
        if new:
            if len(self._known) + len(new) > _KEPT:
                self._known = {}
            found |= (looked_up := self._looked_up(new))
            self._known |= looked_up
        return found

    def rarity(self, word: Word) -> float:
        """How rare a word is, in nats; one that nothing has counts as the rarest there could be."""
        return math.log((self._count + 1) / max(word.titles, word.descriptions, 1))

    def _looked_up(self, terms: Sequence[str]) -> dict[str, Word]:
        keys = {encoded(term): term for term in terms}
        found: dict[str, Word] = {}
        for start in range(0, len(keys), _AT_ONCE):
            # Keys are letters and digits.
            listed = ", ".join(f'"{key}"' for key in list(keys)[start : start + _AT_ONCE])
            rows = self._connection.read("query", self._collection, filter=f"key in [{listed}]", output_fields=_COUNTS)
            found |= {keys[row["key"]]: self._word(row) for row in rows}
        mistyped = [term for term in terms if term not in found and any(remainders(term))]
        found |= self._meant(mistyped)
        return found | {term: Word(encoded(term), 0, 0) for term in terms if term not in found}

    def _meant(self, terms: Sequence[str]) -> dict[str, Word]:
        """The words that were most likely meant: near in letters first, then frequent; see `Spelling.meant`."""
        found = {}
        for start in range(0, len(terms), _AT_ONCE):
            asked = terms[start : start + _AT_ONCE]
            hits = self._connection.read(
                "search",
                self._collection,
                data=[remainders_of(term) for term in asked],
                anns_field=REMAINDERS,
                limit=_LIKE,
                output_fields=_COUNTS,
                search_params={"metric_type": "IP"},
            )
            for term, likely in zip(asked, hits, strict=True):
                rows = [hit["entity"] for hit in likely]
                rows = [row for row in rows if set(remainders(row["term"])) & set(remainders(term))]
                if rows:
                    found[term] = self._word(min(rows, key=lambda row: _distance(row, term)))
        return found

    def _word(self, row: Any) -> Word:
        told = row["descriptions"] <= MOST_COMMON * self._count
        return Word(row["key"], row["titles"], row["descriptions"] if told else 0)


def _distance(row: Any, term: str) -> tuple[bool, int, int]:
    # One letter more or less before another letter or two swapped.
    one_letter = row["term"] in remainders(term) or term in remainders(row["term"])
    return (not one_letter, -row["titles"], term_hash(row["term"]))


def has(word: Word, title_words: Collection[str], description_words: Collection[str]) -> bool:
    """Whether a product has a word, by the words of its title and description."""
    return (word.titles > 0 and word.key in title_words) or (word.descriptions > 0 and word.key in description_words)


def query(terms: Sequence[str], words: dict[str, Word], field: str) -> str:
    """A question's text for a search of titles' or descriptions' words."""
    asked = [words[term] for term in terms]
    counts = {TITLE_WORDS: lambda word: word.titles, DESCRIPTION_WORDS: lambda word: word.descriptions}
    return " ".join(word.key for word in asked if counts[field](word))
