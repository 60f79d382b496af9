"""The index in service: one generation after the other, without a pause.

A new generation is opened beside the one in service and takes its place in one step; the old one is closed when the
last question that began with it is answered.
"""

from __future__ import annotations

import logging
from typing import Final

import numpy as np
import xxhash

from ragqa.answerer import Answerer
from ragqa.catalogue.store import ProductStore
from ragqa.errors import RagqaError
from ragqa.index.storage import Verify, on_disk
from ragqa.milvus.index import MilvusIndex
from ragqa.records import Product

_LOG: Final = logging.getLogger("ragqa.serving")
_BLOCK: Final = 65_536


class ProductIds:
    """Products by their ids: sorted 64-bit hashes and rows, 12 bytes a product."""

    def __init__(self, store: ProductStore) -> None:
        self._store = store
        hashes = np.empty(len(store), np.uint64)
        for start in range(0, len(store), _BLOCK):
            ids = store.column("id", start, min(start + _BLOCK, len(store)))
            hashes[start : start + len(ids)] = [xxhash.xxh3_64_intdigest(one.encode()) for one in ids]
        self._rows = np.argsort(hashes, kind="stable").astype(np.uint32)
        self._hashes = hashes[self._rows]

    def find(self, id_: str) -> Product | None:
        """The product with this id, None if there is none; the first of several."""
        wanted = np.uint64(xxhash.xxh3_64_intdigest(id_.encode("utf-8", "replace")))
        start, stop = np.searchsorted(self._hashes, wanted, "left"), np.searchsorted(self._hashes, wanted, "right")
        products = (self._store[int(row)] for row in self._rows[start:stop])
        return next((product for product in products if product.id == id_), None)


class Generation:
    """A generation of the index, opened. Its users are counted in the event loop.

    Attributes:
        answerer: on this generation.
        name: of its folder, such as "g000003", or of its collection.
        ids: its products by id.
    """

    def __init__(self, answerer: Answerer) -> None:
        self.answerer = answerer
        index = answerer.index
        self.name = index.name
        self.ids = index if isinstance(index, MilvusIndex) else ProductIds(on_disk(index).store)
        self._users, self._retired = 0, False

    def hold(self) -> None:
        """Keep it open for one more user."""
        self._users += 1

    def let_go(self) -> None:
        """The user has done."""
        self._users -= 1
        self._close_if_done()

    def retire(self) -> None:
        """Another has taken its place: close it when its last user has done."""
        self._retired = True
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._retired and not self._users:
            self.answerer.index.close()


def next_generation(live: Generation, verify: Verify) -> Generation | None:
    """The generation that an update or a build has made the live one since; None where there is none.

    Raises:
        RagqaError: it cannot be opened, or its embedder cannot be found.
    """
    index = live.answerer.index.newer(verify)
    return None if index is None else Generation(live.answerer.on(index))


def try_next(live: Generation, verify: Verify) -> Generation | None:
    """`next_generation`; what goes wrong is logged, and the live one stays."""
    try:
        return next_generation(live, verify)
    except RagqaError as error:
        _LOG.warning("the new generation of the index cannot be opened, %s stays in service: %s", live.name, error)
        return None
