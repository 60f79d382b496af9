"""A new generation of the index is taken into service while questions are answered."""

import json
import threading
from pathlib import Path

import pytest

from ragqa import Answerer, open_index, update_index
from ragqa.index.generations import CURRENT
from ragqa.serving.generations import Generation, ProductIds, next_generation
from tests.conftest import DEMO
from tests.serving.conftest import LT350, serving, until

NEW = {"uid": "NEW0000001", "title": "Zephyr Kite Mark IV", "content": "A kite for the fourth wind."}


def catalogue_with(extra: list[dict[str, str]], path: Path) -> Path:
    path.write_text(DEMO.read_text("utf-8") + "".join(json.dumps(row) + "\n" for row in extra), "utf-8")
    return path


def test_an_update_is_taken_into_service_without_a_failed_request(
    own_index: Path, answerer: Answerer, tmp_path: Path
) -> None:
    own = answerer.on(open_index(own_index))
    asked, failed, ended = 0, [], threading.Event()
    with serving(own, watch=0.05) as here:

        def load() -> None:
            nonlocal asked
            while not ended.is_set():
                response = here.ask(LT350, settings={"decoding": "copy"})
                asked += 1
                if response.status_code != 200 or not response.json()["sources"][0]["exact"]:
                    failed.append(response.text)

        clients = [threading.Thread(target=load) for _ in range(4)]
        for client in clients:
            client.start()
        assert here.client.get(f"/v1/products/{NEW['uid']}").status_code == 404
        first = here.service.live
        update_index(own_index, catalogue_with([NEW], tmp_path / "new.json"))
        until(lambda: here.client.get("/v1/about").json()["index"]["generation"] == "g000002")
        assert here.client.get(f"/v1/products/{NEW['uid']}").json()["title"] == NEW["title"]
        assert here.ask(NEW["title"]).json()["text"] == NEW["content"]
        so_far = asked
        until(lambda: asked > so_far + 20)
        ended.set()
        for client in clients:
            client.join()
        assert failed == []
        assert here.service.live.answerer.generator is answerer.generator
        # The old one was closed when its last question was answered.
        assert first.answerer.index.store._file.closed
        assert not here.service.live.answerer.index.store._file.closed


def test_a_generation_that_cannot_be_opened_leaves_the_one_in_service(
    own_index: Path, answerer: Answerer, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(answerer.on(open_index(own_index)), watch=0.05) as here:
        (own_index / "g000002").mkdir()
        (own_index / CURRENT).write_text("g000002\n")
        until(lambda: "cannot be opened, g000001 stays in service" in caplog.text)
        assert here.ask(LT350).json()["sources"][0]["exact"] is True


def test_the_same_generation_is_not_opened_again(own_index: Path, answerer: Answerer) -> None:
    assert next_generation(Generation(answerer.on(open_index(own_index))), "auto") is None


def test_products_are_found_by_their_ids_and_no_others(answerer: Answerer) -> None:
    store = answerer.index.store
    ids = ProductIds(store)
    assert [ids.find(product.id) for product in store] == list(store)
    assert ids.find("") is None
    assert ids.find("\ud800") is None
    assert ids.find(store[0].id.lower()) is None
