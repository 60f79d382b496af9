"""Searches a catalogue in Milvus, several questions a request.

Milvus finds the nearest titles and, by BM25, the rows that share words; it gives each row's words with it, and the vectors of
those rows that were not found by theirs. What is known of a row is reckoned here, as it is of an index on this machine, so
that rows found by both are put in the same order. An error is raised, and no answer given, where a request fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from ragqa.errors import IndexDamagedError, InputError
from ragqa.milvus.connection import Connection
from ragqa.milvus.layout import BM25, DESCRIPTION_WORDS, TITLE_WORDS, VECTOR, search_params, signed
from ragqa.milvus.vocabulary import Vocabulary, Word, has, query
from ragqa.records import Product
from ragqa.retrieval.embed import Vectors
from ragqa.retrieval.lexical import DESCRIPTION_WEIGHT
from ragqa.retrieval.searcher import Found, Titled
from ragqa.retrieval.titles import title_hash
from ragqa.settings import Lexical

# Questions a request: what comes back for so many is some megabytes.
_AT_ONCE: Final = 64
_ROWS_AT_ONCE: Final = 1000
# The most that one query gives back.
_MOST_ROWS: Final = 16_384
_WEIGHTS: Final = {TITLE_WORDS: 1.0, DESCRIPTION_WORDS: DESCRIPTION_WEIGHT}
# So many times as many rows are taken from either field as of both together.
_DEEPER: Final = 2


class MilvusSearcher:
    """See `ragqa.retrieval.searcher.Searcher`.

    Args:
        connection: to Milvus.
        collection: of products.
        vocabulary: its words.
        count: how many products there are.
        dense: what the manifest says of the vectors' index.
    """

    def __init__(
        self, connection: Connection, collection: str, vocabulary: Vocabulary, count: int, dense: Mapping[str, Any]
    ) -> None:
        self._connection = connection
        self._collection = collection
        self._vocabulary = vocabulary
        self._count = count
        self._dense = dict(dense)

    def __len__(self) -> int:
        return self._count

    def products(self, rows: Sequence[int]) -> list[Product]:
        """The products of these rows, in their order.

        Raises:
            IndexDamagedError: one is not there.
        """
        found = self._rows(rows, ["id", "title", "description"])
        return [Product(row["id"], row["title"], row["description"]) for row in (found[row] for row in rows)]

    def with_id(self, id_: str, hashed: int) -> Product | None:
        """The product with this id, the first of several; None if there is none."""
        fields = ["row", "id", "title", "description"]
        rows = self._connection.read(
            "query", self._collection, filter=f"id_hash == {signed(hashed)}", output_fields=fields, limit=_MOST_ROWS
        )
        same = min((row for row in rows if row["id"] == id_), key=lambda row: int(row["row"]), default=None)
        return Product(same["id"], same["title"], same["description"]) if same else None

    def titled(self, readings: Sequence[str]) -> Titled:
        """What finds the rows of these titles, asked of Milvus together."""
        hashes = {reading: signed(title_hash(reading)) for reading in readings}
        by_hash: dict[int, list[tuple[int, str]]] = {}
        for part in _parts(list(dict.fromkeys(hashes.values()))):
            rows = self._connection.read(
                "query",
                self._collection,
                filter=f"title_hash in {list(part)}",
                output_fields=["row", "title", "title_hash"],
                limit=_MOST_ROWS,
            )
            for row in sorted(rows, key=lambda row: int(row["row"])):
                by_hash.setdefault(row["title_hash"], []).append((row["row"], row["title"]))
        return lambda reading: by_hash.get(hashes[reading], [])

    def search(
        self,
        vectors: Vectors,
        words: Sequence[Sequence[str]],
        exact: Sequence[frozenset[int]],
        depths: tuple[int, int],
        lexical: Lexical = "postings",
    ) -> list[Found]:
        """What is found for each question, see `Searcher.search`.

        Raises:
            InputError: another search by words is asked for than Milvus's.
        """
        if lexical != "postings":
            raise InputError(
                f"--lexical {lexical} reads all titles, which lie in Milvus here; leave it out, and Milvus's BM25 searches"
            )
        found: list[Found] = []
        for start in range(0, len(words), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            found += self._search(vectors[part], words[part], exact[part], depths)
        return found

    def _search(
        self,
        vectors: Vectors,
        asked: Sequence[Sequence[str]],
        exact: Sequence[frozenset[int]],
        depths: tuple[int, int],
    ) -> list[Found]:
        words = self._vocabulary.look_up(term for terms in asked for term in terms)
        near = self._hits(
            VECTOR, list(vectors), min(depths[0], self._count), search_params(self._dense, depths[0]), list(_WEIGHTS)
        )
        by_words = self._by_words(asked, words, depths[1])
        # Of what was found by its vector the cosine is known.
        cosines = [{int(hit["row"]): float(hit["distance"]) for hit in hits} for hits in near]
        held = {int(hit["row"]): hit["entity"] for hits in near for hit in hits}
        lacking = {
            row
            for known, listed, same in zip(cosines, by_words, exact, strict=True)
            for row in {*listed, *same} - known.keys()
        }
        more = self._rows(sorted(lacking), [*_WEIGHTS, VECTOR])
        sets = {
            row: tuple(frozenset(entity[field].split()) for field in _WEIGHTS)
            for row, entity in {**held, **more}.items()
        }
        found = []
        for vector, terms, known, listed, same in zip(vectors, asked, cosines, by_words, exact, strict=True):
            rows = sorted({*known, *listed, *same})
            angles = [
                known[row] if row in known else float(np.asarray(more[row][VECTOR], np.float32) @ vector)
                for row in rows
            ]
            found.append(
                Found(
                    (list(known), listed),
                    np.array(rows, np.uint32),
                    np.array(angles, np.float32),
                    self._coverage([words[term] for term in dict.fromkeys(terms)], [sets[row] for row in rows]),
                )
            )
        return found

    def _coverage(self, words: Sequence[Word], rows: Sequence[tuple[frozenset[str], ...]]) -> Vectors:
        """The share of a question's words that each row has, see `LexicalIndex.coverage`."""
        covered, total = np.zeros(len(rows), np.float32), 0.0
        for word in words:
            rarity = self._vocabulary.rarity(word)
            total += rarity
            covered += np.array([has(word, *sets) for sets in rows], np.bool_) * np.float32(rarity)
        return covered / np.float32(max(total, 1e-9))

    def _by_words(self, asked: Sequence[Sequence[str]], words: dict[str, Word], depth: int) -> list[list[int]]:
        """For each question the rows that share its words, best first, equal ones by row."""
        scores: list[dict[int, float]] = [{} for _ in asked]
        for field, weight in _WEIGHTS.items():
            texts = {place: text for place, terms in enumerate(asked) if (text := query(terms, words, field))}
            params = {"metric_type": "BM25"}
            listed = self._hits(BM25[field], list(texts.values()), _DEEPER * depth, params)
            for place, hits in zip(texts, listed, strict=True):
                for hit in hits:
                    row = int(hit["row"])
                    # Milvus Lite gives scores their opposite sign.
                    scores[place][row] = scores[place].get(row, 0.0) + weight * abs(float(hit["distance"]))
        return [sorted(found, key=lambda row: (-found[row], row))[:depth] for found in scores]

    def _hits(
        self, field: str, data: Sequence[Any], limit: int, params: Mapping[str, Any], fields: Sequence[str] = ()
    ) -> list[list[Any]]:
        if not data:
            return []
        found = self._connection.read(
            "search",
            self._collection,
            data=data,
            anns_field=field,
            limit=limit,
            search_params=dict(params),
            output_fields=list(fields),
        )
        return [list(hits) for hits in found]

    def _rows(self, rows: Sequence[int], fields: Sequence[str]) -> dict[int, Any]:
        """Fields of rows.

        Raises:
            IndexDamagedError: one is not there.
        """
        found: dict[int, Any] = {}
        for part in _parts(rows):
            answer = self._connection.read(
                "query", self._collection, filter=f"row in {list(part)}", output_fields=["row", *fields]
            )
            found |= {int(row["row"]): row for row in answer}
        lost = next((row for row in rows if row not in found), None)
        if lost is not None:
            raise IndexDamagedError(
                f"{self._connection.address.shown}: row {lost} is not there any more; build the index anew"
            )
        return found


def _parts(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    return (rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(rows), _ROWS_AT_ONCE))
