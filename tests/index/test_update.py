"""An updated index is the index of its products, and an update that ends early changes nothing."""

import json
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ragqa import models, open_index, update_index
from ragqa.cli import main
from ragqa.errors import (
    BusyError,
    CatalogueError,
    IndexDamagedError,
    IndexMismatchError,
    IndexNotFoundError,
    InputError,
    StorageError,
)
from ragqa.files import HashingFile
from ragqa.index.build import build_index
from ragqa.index.generations import CURRENT, live_generation
from ragqa.index.lock import writing_lock
from ragqa.index.storage import CONFIDENCE, PRODUCTS, TITLES, VECTORS, ProductIndex
from ragqa.retrieval import lexical
from ragqa.retrieval.embed import Vectors
from ragqa.retrieval.retriever import Retriever
from ragqa.retrieval.searcher import LocalSearcher
from ragqa.settings import CleaningSettings
from tests.conftest import DEMO, TrigramEmbedder

Row = dict[str, str]
Rows = list[Row]


class ToyModel:
    """Trigram vectors in the place of a sentence-transformers model; remembers what it embedded."""

    device = "cpu"

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def parameters(self) -> Iterator[torch.Tensor]:
        return iter([torch.zeros(1)])

    def get_embedding_dimension(self) -> int:
        return TrigramEmbedder.dimension

    def encode_document(self, texts: Sequence[str], **_: Any) -> Vectors:
        self.embedded += texts
        return TrigramEmbedder().embed_titles(texts)

    def encode_query(self, texts: Sequence[str], **_: Any) -> Vectors:
        return TrigramEmbedder().embed_questions(texts)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyModel:
    """The toy takes the place of every embedder."""
    model, folder = ToyModel(), tmp_path / "toy-model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"toy")

    def load(*_: Any) -> tuple[ToyModel, models.ModelSource]:
        return model, models.ModelSource("toy", "folder", "", folder)

    monkeypatch.setattr(models, "load_embedder", load)
    return model


ADJECTIVES = "red blue small large cotton steel garden kitchen folding electric trail winter".split()
NOUNS = "lamp kettle hammock chair table bicycle tent backpack mirror clock basket blanket".split()


def row(number: int, seed: int = 0) -> Row:
    """A product; of another seed, another one."""
    random_ = random.Random(f"{number} {seed}")
    title = " ".join([*random_.sample(ADJECTIVES, 2), random_.choice(NOUNS), f"{number % 70}"])
    text = " ".join(random_.choices([f"{one}{two}" for one in ADJECTIVES for two in NOUNS], k=8))
    return {"id": f"p{number}", "title": title, "text": f"This is it: {text}."}


ROWS = [row(number) for number in range(120)]


def changed(rows: Rows) -> Rows:
    """The rows in another order, without some, with some changed and some more."""
    new = [dict(one) for one in rows if int(one["id"][1:]) % 9 != 4]
    for one in new[::11]:
        one["text"] += " Now better."
    for one in new[5::17]:
        one["title"] += " Mark II"
    random.Random(1).shuffle(new)
    return new[:50] + [row(number) for number in range(200, 215)] + new[50:]


def in_the_order_of_an_update(old: Rows, new: Rows) -> Rows:
    return [one for one in old if one in new] + [one for one in new if one not in old]


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def titles_of(index: ProductIndex) -> list[str]:
    return [product.title for product in index.store]


def file(index: ProductIndex, name: str) -> bytes:
    return (index.folder / name).read_bytes()


def test_an_updated_index_is_that_of_the_same_products_in_its_order(tmp_path: Path, toy: ToyModel) -> None:
    new = changed(ROWS)
    old = build_index(ROWS, tmp_path / "x")
    update_index(tmp_path / "x", new)
    updated = open_index(tmp_path / "x", verify="full")
    built = build_index(in_the_order_of_an_update(ROWS, new), tmp_path / "y")
    for part in (PRODUCTS, VECTORS, TITLES, *lexical.FILES):
        assert file(updated, part) == file(built, part), part
    assert file(updated, CONFIDENCE) == file(old, CONFIDENCE)


def test_an_updated_index_answers_like_one_that_was_built(
    tmp_path: Path, toy: ToyModel, trigram_embedder: TrigramEmbedder
) -> None:
    new = changed(ROWS)
    old = build_index(ROWS, tmp_path / "x")
    update_index(tmp_path / "x", new)
    found = []
    for index in (open_index(tmp_path / "x"), build_index(new, tmp_path / "y")):  # rows in another order
        retriever = Retriever(
            LocalSearcher(index.store, index.dense, index.titles, index.words), trigram_embedder, old.confidence
        )
        questions = [one["title"] for one in new[::5]] + ["better kettle", "hammok mark ii", "folding steel lamp 7"]
        found.append(
            [
                [(c.product, c.score) for c in one.candidates if c.exact] or one.candidates[0].product.id
                for one in retriever.retrieve(questions)
            ]
        )
    assert found[0] == found[1]


def test_updates_of_updates_stay_that_of_the_same_products(tmp_path: Path, toy: ToyModel) -> None:
    build_index(ROWS, tmp_path / "x")
    rows = ROWS
    for step in range(1, 4):
        new = [dict(one) for one in rows if int(one["id"][1:]) % 13 != step]
        new += [row(300 + number) for number in range(step * 9, step * 14)]
        new[step * 7]["text"] = f"Changed in step {step}."
        update_index(tmp_path / "x", new)
        rows = in_the_order_of_an_update(rows, new)
    updated, built = open_index(tmp_path / "x"), build_index(rows, tmp_path / "y")
    assert titles_of(updated) == titles_of(built)
    assert updated.manifest["updated"]["times"] == 3
    for part in (VECTORS, TITLES, *lexical.FILES):
        assert file(updated, part) == file(built, part), part


def test_the_report_and_the_manifest_tell_what_was_done(tmp_path: Path, toy: ToyModel) -> None:
    build_index(ROWS, tmp_path / "x")
    before = open_index(tmp_path / "x").manifest
    new = [dict(one) for one in ROWS[3:]]
    new[0]["text"] = "Another text"
    new[1]["title"] = "Another title"
    new.append({"id": "new", "title": "A new title", "text": "Of a new product"})
    done = update_index(tmp_path / "x", new)
    numbers = {"count": 118, "added": 1, "changed": 2, "deleted": 3, "unchanged": 115, "embedded": 2}
    assert {name: value for name, value in done.to_dict().items() if name != "seconds"} == numbers
    assert set(done.seconds) == {"check", "clean", "embed", "write", "words", "total"}
    manifest = open_index(tmp_path / "x").manifest
    assert manifest["updated"] == done.to_dict() | {"times": 1, "words_of": 120}
    assert manifest["count"] == 118
    assert manifest["content_sha256"] != before["content_sha256"]
    assert manifest["dense"] == before["dense"] | {"bytes": manifest["parts"][VECTORS]["size"]}
    same = set(before) - {"count", "dense", "parts", "content_sha256", "created"}
    assert {name: manifest[name] for name in same} == {name: before[name] for name in same}
    report = json.loads(file(open_index(tmp_path / "x"), "cleaning.json"))
    assert report["kept"] == 118


def test_only_titles_that_no_product_had_are_embedded(tmp_path: Path, toy: ToyModel) -> None:
    build_index(ROWS, tmp_path / "x")
    toy.embedded.clear()
    new = [dict(one) for one in ROWS]
    new[7]["text"] = "The title is as it was"
    new[8]["title"] = "Never heard before"
    new[9]["title"] = new[10]["title"]
    new.append({"id": "twin", "title": new[11]["title"], "text": "Of the same name"})
    assert update_index(tmp_path / "x", new).embedded == 1
    assert toy.embedded == ["Never heard before"]
    index = open_index(tmp_path / "x")
    expected = TrigramEmbedder().embed_titles(titles_of(index))
    np.testing.assert_allclose(index.dense.vectors(range(len(index))), expected, atol=1e-6)


def test_a_catalogue_without_ids_is_updated_by_content(tmp_path: Path, toy: ToyModel) -> None:
    rows = [{"title": one["title"], "text": one["text"]} for one in ROWS]
    build_index(rows, tmp_path / "x")
    toy.embedded.clear()
    rows[4]["text"] = "A longer text of the same title"
    done = update_index(tmp_path / "x", rows)
    assert (done.added, done.changed, done.deleted, done.embedded) == (1, 0, 1, 0)


@pytest.mark.parametrize("order", [1, -1])
def test_where_nothing_changed_no_generation_is_written(order: int, tmp_path: Path, toy: ToyModel) -> None:
    build_index(ROWS, tmp_path / "x")
    toy.embedded.clear()
    done = update_index(tmp_path / "x", ROWS[::order])
    assert (done.added, done.changed, done.deleted, done.unchanged, done.count) == (0, 0, 0, 120, 120)
    assert entries(tmp_path / "x") == {CURRENT, "g000001", ".lock"}
    assert toy.embedded == []


def test_an_update_that_only_deletes_loads_no_embedder(
    tmp_path: Path, toy: ToyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(ROWS, tmp_path / "x")
    monkeypatch.setattr(models, "load_embedder", None)
    assert update_index(tmp_path / "x", [*ROWS[::2], ROWS[1]]).deleted == 59
    assert titles_of(open_index(tmp_path / "x")) == [one["title"] for one in (ROWS[0], ROWS[1], *ROWS[2::2])]


def test_a_reader_of_the_old_generation_goes_on_during_and_after_the_update(
    tmp_path: Path, toy: ToyModel, trigram_embedder: TrigramEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(ROWS, tmp_path / "x")
    reader = open_index(tmp_path / "x")
    retriever = Retriever(
        LocalSearcher(reader.store, reader.dense, reader.titles, reader.words), trigram_embedder, reader.confidence
    )
    before = retriever.retrieve(["folding lamp"])
    seen = []

    def during(*arguments: Any, **named: Any) -> Any:
        seen.append((titles_of(open_index(tmp_path / "x")), retriever.retrieve(["folding lamp"])))
        return write(*arguments, **named)

    write = lexical.write_lexical
    monkeypatch.setattr("ragqa.index.update.write_lexical", during)
    update_index(tmp_path / "x", changed(ROWS))
    assert seen == [([one["title"] for one in ROWS], before)]
    assert retriever.retrieve(["folding lamp"]) == before
    assert len(open_index(tmp_path / "x")) == len(changed(ROWS))


@pytest.mark.parametrize("where", ["clean_catalogue", "StoreWriter.copy", "write_lexical", "copy_file", "publish"])
def test_an_interrupted_update_changes_nothing_and_the_same_call_completes(
    where: str, tmp_path: Path, toy: ToyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(ROWS, tmp_path / "x")
    before = live_generation(tmp_path / "x")
    content = {path.name: path.read_bytes() for path in before.iterdir()}

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"ragqa.index.update.{where}", interrupt)
        with pytest.raises(KeyboardInterrupt):
            update_index(tmp_path / "x", changed(ROWS))
    assert entries(tmp_path / "x") == {CURRENT, "g000001", ".lock"}
    assert {path.name: path.read_bytes() for path in live_generation(tmp_path / "x").iterdir()} == content
    assert update_index(tmp_path / "x", changed(ROWS)).added == 15


def test_what_a_killed_update_left_is_taken_away(tmp_path: Path, toy: ToyModel) -> None:
    build_index(ROWS, tmp_path / "x")
    left = tmp_path / "x" / ".partial-update" / "generation"
    left.mkdir(parents=True)
    (left / PRODUCTS).write_bytes(b"half")
    assert len(open_index(tmp_path / "x")) == 120
    update_index(tmp_path / "x", changed(ROWS))
    assert entries(tmp_path / "x") == {CURRENT, "g000001", "g000002", ".lock"}


@pytest.mark.parametrize("failing", [PRODUCTS, VECTORS, TITLES, lexical.SPELLING, "manifest.json", CURRENT])
def test_a_full_disk_is_told_and_leaves_the_index_as_it_was(
    failing: str, tmp_path: Path, toy: ToyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: HashingFile, data: Any) -> int:
        if failing in self.path.name:
            raise OSError(28, "No space left on device", str(self.path))
        return write(self, data)

    write = HashingFile.write
    build_index(ROWS, tmp_path / "x")
    with monkeypatch.context() as patch:
        patch.setattr(HashingFile, "write", full)
        with pytest.raises((StorageError, OSError)) as caught:
            update_index(tmp_path / "x", changed(ROWS))
    assert isinstance(caught.value, StorageError), repr(caught.value)
    assert titles_of(open_index(tmp_path / "x")) == [one["title"] for one in ROWS]
    assert not (tmp_path / "x" / ".partial-update").exists()
    assert update_index(tmp_path / "x", changed(ROWS)).count == len(changed(ROWS))


def test_a_catalogue_without_most_of_the_products_is_refused_unless_told(tmp_path: Path, toy: ToyModel) -> None:
    build_index(ROWS, tmp_path / "x")
    message = (
        r"list: 61 of the index's 120 products are not in it, and nothing was changed; .* --allow-deletions if it is"
    )
    with pytest.raises(InputError, match=message):
        update_index(tmp_path / "x", ROWS[:59])
    assert len(open_index(tmp_path / "x")) == 120
    assert update_index(tmp_path / "x", ROWS[:60]).deleted == 60
    assert update_index(tmp_path / "x", ROWS[:10], allow_deletions=True).deleted == 50


def test_a_refusal_names_the_columns_where_they_are_others(tmp_path: Path, toy: ToyModel) -> None:
    build_index(ROWS, tmp_path / "x")
    other = [{"sku": f"s{number}", "title": one["title"], "text": one["text"]} for number, one in enumerate(ROWS)]
    with pytest.raises(InputError, match=r"its columns: {'id': 'sku', .*; the index's: {'id': 'id'"):
        update_index(tmp_path / "x", other)


def test_the_catalogue_is_cleaned_as_the_index_was(tmp_path: Path, toy: ToyModel) -> None:
    build_index(ROWS, tmp_path / "x", cleaning=CleaningSettings(lowercase=True, max_description_chars=30))
    assert update_index(tmp_path / "x", ROWS).unchanged == 120
    update_index(tmp_path / "x", [*ROWS, {"id": "n", "title": "NEW", "text": "LOUD " * 20}])
    assert open_index(tmp_path / "x").store[120].description == "loud loud loud loud loud loud"


def test_the_limit_of_the_index_holds_unless_another_is_given(tmp_path: Path, toy: ToyModel) -> None:
    build_index(ROWS, tmp_path / "x", limit=50)
    assert update_index(tmp_path / "x", ROWS).unchanged == 50
    done = update_index(tmp_path / "x", ROWS, limit=60)
    assert (done.added, done.unchanged) == (10, 50)
    assert open_index(tmp_path / "x").manifest["limit"] == 60
    with pytest.raises(InputError, match="--limit must be at least 1"):
        update_index(tmp_path / "x", ROWS, limit=0)


def test_words_that_are_not_too_common_any_more_are_found_once_the_index_has_doubled(
    tmp_path: Path, toy: ToyModel
) -> None:
    few = [{"id": str(n), "title": f"Thing {n}", "text": f"Made of {'oak' if n % 2 else 'glass'}"} for n in range(8)]
    build_index(few, tmp_path / "x")
    more = [row(number) for number in range(7)]
    update_index(tmp_path / "x", few + more)
    assert open_index(tmp_path / "x").words.search(["oak"], 9)[0].tolist() == []
    update_index(tmp_path / "x", few + [row(number) for number in range(40)])
    index = open_index(tmp_path / "x")
    assert index.words.search(["oak"], 9)[0].tolist() == [1, 3, 5, 7]
    assert index.manifest["updated"]["words_of"] == 48


def test_a_damaged_part_is_not_carried_over(tmp_path: Path, toy: ToyModel) -> None:
    build_index(ROWS, tmp_path / "x")
    part = live_generation(tmp_path / "x") / PRODUCTS
    content = bytearray(part.read_bytes())
    content[3000] ^= 1
    part.write_bytes(content)
    with pytest.raises(IndexDamagedError, match=r"products\.arrow: its content changed"):
        update_index(tmp_path / "x", changed(ROWS))


def test_another_embedder_is_refused_and_nothing_is_changed(
    tmp_path: Path, toy: ToyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(ROWS, tmp_path / "x")
    other = tmp_path / "other-model"
    other.mkdir()
    (other / "model.safetensors").write_bytes(b"other")
    monkeypatch.setattr(models, "load_embedder", lambda *_: (toy, models.ModelSource("toy", "folder", "", other)))
    with pytest.raises(IndexMismatchError, match="was built with the embedder toy"):
        update_index(tmp_path / "x", changed(ROWS))
    assert entries(tmp_path / "x") == {CURRENT, "g000001", ".lock"}


def test_mistakes_are_told_and_make_no_folder(tmp_path: Path, toy: ToyModel) -> None:
    with pytest.raises(IndexNotFoundError, match="no such index; build it"):
        update_index(tmp_path / "none", ROWS)
    assert not (tmp_path / "none").exists()
    build_index(ROWS, tmp_path / "x")
    with pytest.raises(CatalogueError, match="none of its 1 rows has both"):
        update_index(tmp_path / "x", [{"title": "a", "content": ""}])
    with writing_lock(tmp_path / "x"), pytest.raises(BusyError, match=f"process {os.getpid()} .* is writing there"):
        update_index(tmp_path / "x", ROWS)
    assert entries(tmp_path / "x") == {CURRENT, "g000001", ".lock"}


def test_the_command_says_what_it_did(tmp_path: Path, toy: ToyModel, capsys: pytest.CaptureFixture[str]) -> None:
    def write(rows: Rows) -> str:
        (tmp_path / "c.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
        return str(tmp_path / "c.jsonl")

    index = str(tmp_path / "x")
    build_index(write(ROWS), index)
    assert main(["update", index, write(ROWS), "-q"]) == 0
    assert f"{index}: nothing changed, 120 products" in capsys.readouterr().out
    assert main(["update", index, write(changed(ROWS))]) == 0
    captured = capsys.readouterr()
    assert f"{index}: 15 added, " in captured.out
    assert "15 products added, " in captured.err
    assert main(["update", index, write(ROWS[:9])]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "--allow-deletions" in line
    assert main(["update", index, write(ROWS[:9]), "--allow-deletions", "--limit", "5", "-q"]) == 0
    assert "5 products" in capsys.readouterr().out
    assert main(["update", str(tmp_path / "no"), write(ROWS)]) == 2


def test_a_product_that_was_added_is_found_and_one_that_was_deleted_is_not(own_index: Path) -> None:
    """With the real weights."""
    from ragqa import Answerer

    rows = [json.loads(line) for line in DEMO.read_text("utf-8").splitlines()]
    kept = [one for one in rows if "Maracatu" not in one["title"]]
    new = {"uid": "new", "title": "Tidewater Sailing Dinghy 320", "content": "A dinghy of 3.2 m for two."}
    done = update_index(own_index, [*kept, new])
    assert (done.added, done.embedded, done.deleted) == (1, 1, 320 - done.unchanged)
    answerer = Answerer.from_pretrained(own_index)
    found = answerer.retriever.retrieve(["What is the description of the Tidewater dinghy?", "Rede Maracatu, Azul"])
    assert found[0].candidates[0].product.id == "new"
    assert all("Maracatu" not in c.product.title for c in found[1].candidates)
