import pytest

from ragqa.errors import InputError
from ragqa.milvus.address import TOKEN, Address, is_milvus, name_of, names_catalogue, without_secrets


@pytest.mark.parametrize(
    ("text", "uri", "database", "name"),
    [
        ("milvus://host/shop", "http://host:19530", "", "shop"),
        ("milvus://10.0.0.7:1234/shop/", "http://10.0.0.7:1234", "", "shop"),
        ("milvus+tls://cloud.example/eu/shop", "https://cloud.example:443", "eu", "shop"),
        ("milvus://[::1]:19530/shop", "http://[::1]:19530", "", "shop"),
        ("milvus:///data/my.db/shop", "/data/my.db", "", "shop"),
        ("milvus://./my.db/shop", "./my.db", "", "shop"),
    ],
)
def test_an_address_is_taken_apart(text: str, uri: str, database: str, name: str) -> None:
    address = Address.parse(text)
    assert (address.uri, address.database, address.name) == (uri, database, name)
    assert is_milvus(text)
    assert names_catalogue(text)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("milvus://host:19530", "no catalogue is named"),
        ("milvus://host/a/b/c", "no address in Milvus"),
        ("milvus://host/shop-1", "letters, digits and _ only"),
        ("milvus:///data/shop", "neither a server nor a file that ends in .db"),
        ("milvus://host/shop?timeout=soon", "only timeout=SECONDS"),
        ("milvus://host/shop?retries=3", "only timeout=SECONDS"),
        ("milvus://host:port/shop", "cannot be read"),
        ("http://host/shop", "give it as milvus://"),
    ],
)
def test_what_is_no_address_is_told_in_a_line(text: str, wrong: str) -> None:
    with pytest.raises(InputError, match=wrong) as caught:
        Address.parse(text)
    assert "\n" not in str(caught.value)


def test_a_name_may_stand_beside_the_address() -> None:
    address = Address.parse("milvus://host:19530?timeout=3", "shop")
    assert (address.name, address.shown, address.timeout) == ("shop", "milvus://host:19530/shop?timeout=3", 3)
    with pytest.raises(InputError, match="two names"):
        Address.parse("milvus://host/shop", "other")
    assert name_of("lf-amazon.1") == "lf_amazon_1"
    assert name_of("2024") == "_2024"


def test_who_asks_is_printed_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "milvus://ana:pass%40word@host/shop"
    address = Address.parse(text)
    assert address.token == "ana:pass@word"
    assert without_secrets(text) == address.shown == "milvus://host/shop"
    assert "pass" not in repr(address)
    others = ("milvus://ana:secret@host:x/shop", "milvus://ana:secret@host/a/b/c", "http://ana:secret@host/shop")
    for wrong in others:
        with pytest.raises(InputError) as caught:
            Address.parse(wrong)
        assert "secret" not in str(caught.value)
    monkeypatch.setenv(TOKEN, "root:Milvus")
    assert Address.parse("milvus://host/shop").token == "root:Milvus"


def test_a_token_of_other_characters_is_refused_unshown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "clé")
    with pytest.raises(InputError, match=f"^{TOKEN}: has characters that no token has; it is not shown here$"):
        Address.parse("milvus://host/shop")
