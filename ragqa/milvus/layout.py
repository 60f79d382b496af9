"""How a catalogue lies in Milvus: two collections, and an alias that names the live one.

::

    shop                          alias: the catalogue's name -> the live collection
    shop_3f09ab12cd34             the products: row, id, title, description, the title's vector, the words of both
    shop_3f09ab12cd34_words       by word how many titles and descriptions have it, and what finds it mistyped;
                                  beside them, under keys that no word has, the manifest and what has been loaded

The twelve letters are a hash of all that the content depends on: the same build goes on with the collection that a killed
one left. A collection is whole when its manifest is there, which is written last; then the alias is changed, in one step.
Readers keep to the collection that they found behind the alias; the one that was live before is kept, older ones are dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from ragqa.errors import InputError
from ragqa.index.recipe import RECIPES, lists_for
from ragqa.retrieval.postings import K1, B, term_hash
from ragqa.retrieval.spelling import remainders

FORMAT_VERSION: Final = 1
MANIFEST: Final = "#manifest"
LOAD: Final = "#load"
# Bytes of a VARCHAR; the most that Milvus takes.
LONGEST: Final = 65_535
TITLE_WORDS: Final = "title_words"
DESCRIPTION_WORDS: Final = "description_words"
BM25: Final = {TITLE_WORDS: "title_bm25", DESCRIPTION_WORDS: "description_bm25"}
VECTOR: Final = "vector"
REMAINDERS: Final = "remainders"
# Names in `ragqa.index.recipe.RECIPES` -> what Milvus has for them.
_INDEXES: Final = {"flat": "FLAT", "ivf": "IVF_FLAT", "ivf-sq8": "IVF_SQ8", "hnsw": "HNSW"}
# Rows up to which every vector is compared, which Milvus does in some milliseconds.
_EXACT: Final = 50_000
# Of a hierarchical graph: links a row, candidates while it is built, and while it is searched at least.
_LINKS, _BUILT, _SEARCHED = 32, 200, 256
_LISTS_SEARCHED: Final = 32
# Words are kept as they are if they are letters and digits of ASCII and no longer than this.
_LONGEST_WORD: Final = 40
_DIMENSIONS: Final = 2**32 - 3  # of a sparse vector, but for the first, which stands for "none"


def collections_of(name: str, key: str) -> tuple[str, str]:
    """Names of a catalogue's two collections."""
    return f"{name}_{key}", f"{name}_{key}_words"


def is_collection_of(name: str, collection: str) -> bool:
    """Whether a collection is one of a catalogue's, as `collections_of` names its first."""
    return re.fullmatch(rf"{re.escape(name)}_[0-9a-f]{{12}}", collection) is not None


def encoded(term: str) -> str:
    """A term as one word of letters and digits, which every analyzer of Milvus leaves whole."""
    plain = len(term) <= _LONGEST_WORD and term.isascii() and term.isalnum() and term == term.lower()
    return term if plain else f"x{term_hash(term):016x}"


def joined(terms: Iterable[str]) -> str:
    """Terms as the text of a field; what would be beyond its limit is left out."""
    text = " ".join(map(encoded, terms))
    return text if len(text) <= LONGEST else text[:LONGEST].rpartition(" ")[0]


def signed(hashed: int) -> int:
    """A 64-bit hash as Milvus has whole numbers."""
    return hashed - 2**64 if hashed >= 2**63 else hashed


def sparse(words: Sequence[str]) -> dict[int, float]:
    """Words as a sparse vector, of which each has a dimension."""
    return {term_hash(word) % _DIMENSIONS + 1: 1.0 for word in words} or {0: 1.0}


def remainders_of(term: str) -> dict[int, float]:
    """What finds a word mistyped, see `ragqa.retrieval.spelling`."""
    return sparse(list(remainders(term)))


def dense_index(recipe: str, count: int) -> dict[str, Any]:
    """The index of the vectors: its type, and the parameters to build and to search it with.

    Args:
        recipe: "auto", or a name in `RECIPES` that Milvus has something for.
        count: how many vectors.

    Raises:
        InputError: Milvus has no such index.
    """
    if recipe == "auto":
        recipe = "flat" if count <= _EXACT else "hnsw"
    if recipe not in _INDEXES:
        known = "FAISS alone" if recipe in RECIPES else "no recipe"
        raise InputError(f"--recipe {recipe}: {known}; in Milvus auto, {', '.join(_INDEXES)} are accepted")
    build: dict[str, Any] = {}
    search: dict[str, Any] = {}
    if recipe == "hnsw":
        build, search = {"M": _LINKS, "efConstruction": _BUILT}, {"ef": _SEARCHED}
    elif recipe != "flat":
        build, search = {"nlist": lists_for(count)}, {"nprobe": _LISTS_SEARCHED}
    return {"recipe": recipe, "type": _INDEXES[recipe], "build": build, "search": search}


def search_params(dense: dict[str, Any], depth: int) -> dict[str, Any]:
    """Parameters of a search for the nearest `depth` rows."""
    params = dict(dense["search"])
    if "ef" in params:
        params["ef"] = max(params["ef"], 2 * depth)
    return {"metric_type": "IP", "params": params}


def products_schema(milvus: Any, dimension: int) -> Any:
    """Of the collection of products."""
    kinds = milvus.DataType
    schema = milvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("row", kinds.INT64, is_primary=True)
    schema.add_field("id", kinds.VARCHAR, max_length=LONGEST)
    schema.add_field("title", kinds.VARCHAR, max_length=LONGEST)
    schema.add_field("description", kinds.VARCHAR, max_length=LONGEST)
    schema.add_field("title_hash", kinds.INT64)
    schema.add_field("id_hash", kinds.INT64)
    schema.add_field(VECTOR, kinds.FLOAT_VECTOR, dim=dimension)
    for words, bm25 in BM25.items():
        schema.add_field(
            words, kinds.VARCHAR, max_length=LONGEST, enable_analyzer=True, analyzer_params={"tokenizer": "standard"}
        )
        schema.add_field(bm25, kinds.SPARSE_FLOAT_VECTOR)
        schema.add_function(
            milvus.Function(
                name=f"of_{words}",
                function_type=milvus.FunctionType.BM25,
                input_field_names=[words],
                output_field_names=[bm25],
            )
        )
    return schema


def products_indexes(milvus: Any, dense: dict[str, Any]) -> Any:
    """Of the collection of products, made when its rows are there."""
    indexes = milvus.MilvusClient.prepare_index_params()
    indexes.add_index(VECTOR, index_type=dense["type"], metric_type="IP", params=dense["build"])
    for bm25 in BM25.values():
        params = {"bm25_k1": K1, "bm25_b": B}
        indexes.add_index(bm25, index_type="SPARSE_INVERTED_INDEX", metric_type="BM25", params=params)
    for hashed in ("title_hash", "id_hash"):
        indexes.add_index(hashed, index_type="INVERTED")
    return indexes


def words_schema(milvus: Any) -> Any:
    """Of the collection of words."""
    kinds = milvus.DataType
    schema = milvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", kinds.VARCHAR, is_primary=True, max_length=128)
    schema.add_field("term", kinds.VARCHAR, max_length=256)
    schema.add_field("titles", kinds.INT64)
    schema.add_field("descriptions", kinds.INT64)
    schema.add_field("text", kinds.VARCHAR, max_length=LONGEST)
    schema.add_field(REMAINDERS, kinds.SPARSE_FLOAT_VECTOR)
    return schema


def words_indexes(milvus: Any) -> Any:
    """Of the collection of words."""
    indexes = milvus.MilvusClient.prepare_index_params()
    indexes.add_index(REMAINDERS, index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    return indexes


def word_row(term: str, titles: int, descriptions: int) -> dict[str, Any]:
    """A word's row; one that no title has is nobody's meaning."""
    spelled = remainders_of(term) if titles else sparse([])
    known = term if 0 not in spelled else ""
    return {
        "key": encoded(term), "term": known, "titles": titles, "descriptions": descriptions, "text": "",
        REMAINDERS: spelled,
    }  # fmt: skip


def note_row(key: str, value: Any) -> dict[str, Any]:
    """A row that holds something else than a word.

    Raises:
        InputError: it is too much for a row.
    """
    text = json.dumps(value, ensure_ascii=True)
    if len(text) > LONGEST:
        raise InputError(f"the manifest has {len(text):,} bytes, Milvus takes {LONGEST:,}; use shorter options")
    return {"key": key, "term": "", "titles": 0, "descriptions": 0, "text": text, REMAINDERS: sparse([])}
