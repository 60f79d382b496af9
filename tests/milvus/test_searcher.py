"""What Milvus no longer has is told, without a server."""

from types import SimpleNamespace
from typing import Any

import pytest

from ragqa.errors import IndexDamagedError
from ragqa.milvus.address import Address
from ragqa.milvus.searcher import MilvusSearcher


def test_a_row_that_is_gone_is_told_by_its_number() -> None:
    kept = [{"row": 1, "id": "p1", "title": "Lamp", "description": "warm"}]
    connection: Any = SimpleNamespace(address=Address.parse("milvus://host/shop"), read=lambda *_, **__: kept)
    vocabulary: Any = None
    searcher = MilvusSearcher(connection, "shop_0123456789ab", vocabulary, 3, {})
    assert [product.id for product in searcher.products([1])] == ["p1"]
    with pytest.raises(
        IndexDamagedError, match=r"^milvus://host/shop: row 2 is not there any more; build the index anew"
    ):
        searcher.products([1, 2])
