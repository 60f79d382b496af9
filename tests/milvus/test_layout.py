import pytest

from ragqa.errors import InputError
from ragqa.milvus import layout


def test_a_word_is_letters_and_digits_whatever_the_term_is() -> None:
    terms = ["lt350", "c++", "4.5mm", "-5", "камера", "水筒", "x" * 500, "ß"]
    words = [layout.encoded(term) for term in terms]
    assert words[0] == "lt350"
    assert len(set(words)) == len(terms)
    assert all(word.isascii() and word.isalnum() and word == word.lower() and len(word) <= 40 for word in words)


def test_words_beyond_what_a_field_holds_are_left_out_whole() -> None:
    text = layout.joined(["abcdefghi"] * 10_000)
    assert len(text) <= layout.LONGEST
    assert set(text.split()) == {"abcdefghi"}


def test_hashes_are_whole_numbers_of_milvus() -> None:
    assert [layout.signed(one) for one in (0, 2**63 - 1, 2**63, 2**64 - 1)] == [0, 2**63 - 1, -(2**63), -1]


def test_the_index_of_vectors_goes_by_recipe_and_number() -> None:
    assert layout.dense_index("auto", 50_000)["type"] == "FLAT"
    assert layout.dense_index("auto", 50_001)["type"] == "HNSW"
    assert layout.search_params(layout.dense_index("hnsw", 10), 1000)["params"] == {"ef": 2000}
    for recipe, wrong in (("ivf-pq", "FAISS alone"), ("IVF16,Flat", "no recipe")):
        with pytest.raises(InputError, match=f"--recipe {recipe}: {wrong}"):
            layout.dense_index(recipe, 10)


def test_only_a_catalogues_own_collections_are_its() -> None:
    assert layout.is_collection_of("shop", "shop_0123456789ab")
    others = ("shop", "shop_0123456789ab_words", "shop_2_0123456789ab", "workshop_0123456789ab", "shop_customers")
    assert not any(layout.is_collection_of("shop", other) for other in others)


def test_lists_of_vectors_go_by_their_number() -> None:
    few, many = (layout.dense_index("ivf", count) for count in (10_000, 1_000_000))
    assert few["type"] == many["type"] == "IVF_FLAT"
    assert few["build"]["nlist"] < many["build"]["nlist"]
    assert few["search"] == many["search"]


def test_a_manifest_longer_than_a_field_of_milvus_is_refused() -> None:
    fits = layout.note_row("#manifest", "x" * (layout.LONGEST - 2))
    assert len(fits["text"]) == layout.LONGEST
    with pytest.raises(InputError, match=f"the manifest has {layout.LONGEST + 1:,} bytes, Milvus takes"):
        layout.note_row("#manifest", "x" * (layout.LONGEST - 1))
