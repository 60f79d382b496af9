"""A saved Answerer is whole, stays what it was when it was opened, or says so."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.toys import QUESTIONS, rows, told, toy_embedder
from ragqa import Answerer, build_index
from ragqa.answerer import ABSTENTIONS
from ragqa.errors import BusyError, IndexDamagedError, IndexMismatchError, InputError, ModelError
from ragqa.index.generations import MANIFEST, live_generation
from ragqa.index.lock import writing_lock
from ragqa.index.storage import on_disk
from ragqa.saved import SAVED
from ragqa.settings import AnswerSettings
from ragqa.training.recipe import Recipe
from tests.training.conftest import SMALL

Make = Callable[..., Answerer]


@pytest.fixture
def make(tmp_path: Path, tiny_model: Path) -> Iterator[Make]:
    """Makes an Answerer over a toy index of a state, with a small generator."""

    def made(state: int, **more: Any) -> Answerer:
        index = tmp_path / f"index{state}"
        if not index.exists():
            build_index(rows(state, 30), index)
        return open_(index, generator=str(tiny_model), settings=AnswerSettings(top_k=state + 2), **more)

    with toy_embedder(tmp_path / "toy-model"):
        yield made


def open_(path: Path, **more: Any) -> Answerer:
    return Answerer.from_pretrained(path, device="cpu", dtype="float32", **more)


def test_a_saved_answerer_answers_as_before_and_nothing_else_is_left(make: Make, tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    before = make(1)
    before.save_pretrained(tmp_path / "place" / "saved")
    again = open_(tmp_path / "place" / "saved")
    assert again.settings == before.settings
    assert told(again, QUESTIONS[:2]) == told(before, QUESTIONS[:2])
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["saved"]


def test_what_a_killed_save_left_is_cleaned_up(make: Make, tmp_path: Path) -> None:
    left = tmp_path / "place" / ".saved.saving" / "new" / "index"
    left.mkdir(parents=True)
    (left / "CURRENT").write_text("half")
    make(1).save_pretrained(tmp_path / "place" / "saved")
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["saved"]
    open_(tmp_path / "place" / "saved")


def test_two_do_not_save_to_one_place_at_once(make: Make, tmp_path: Path) -> None:
    opened = make(1)
    with writing_lock(tmp_path / ".saved.saving"), pytest.raises(BusyError, match="is writing there"):
        opened.save_pretrained(tmp_path / "saved")


def test_one_that_was_replaced_after_it_was_opened_is_not_mixed_with_what_replaced_it(
    make: Make, tmp_path: Path, tiny_model: Path
) -> None:
    make(1).save_pretrained(tmp_path / "saved")
    opened = open_(tmp_path / "saved")
    other = make(2)
    config = json.loads((tiny_model / "generation_config.json").read_text())
    other.generator_source, _ = _changed_copy(tiny_model, tmp_path / "other", config), other.generator
    other.save_pretrained(tmp_path / "saved")
    for _ in range(2):
        with pytest.raises(IndexDamagedError, match=r"changed since it was saved, or replaced since it was opened"):
            opened.ask(QUESTIONS[0], min_confidence=0.0)
    assert open_(tmp_path / "saved").settings.top_k == 4


def _changed_copy(model: Path, folder: Path, config: dict[str, Any]) -> Any:
    import shutil

    from ragqa.models import find_model

    shutil.copytree(model, folder)
    (folder / "generation_config.json").write_text(json.dumps(config | {"max_length": 77}))
    return find_model(str(folder))


def test_the_index_of_another_save_is_refused(make: Make, tmp_path: Path) -> None:
    for state in (1, 2):
        make(state).save_pretrained(tmp_path / f"saved{state}")
    (tmp_path / "saved1" / "index").rename(tmp_path / "away")
    (tmp_path / "saved2" / "index").rename(tmp_path / "saved1" / "index")
    with pytest.raises(IndexDamagedError, match="not the index that was saved"):
        open_(tmp_path / "saved1")


def test_settings_that_were_changed_are_refused(make: Make, tmp_path: Path) -> None:
    make(1).save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved" / SAVED
    file.write_text(file.read_text().replace('"top_k": 3', '"top_k": 2'))
    with pytest.raises(IndexDamagedError, match=r"answerer\.json: changed since it was written; save it anew"):
        open_(tmp_path / "saved")


def test_one_that_an_earlier_ragqa_saved_is_read(make: Make, tmp_path: Path) -> None:
    make(1).save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved" / SAVED
    saved = json.loads(file.read_text())
    later = ("manifest_sha256", "index", "adapter_files")
    file.write_text(json.dumps({name: value for name, value in saved.items() if name not in later}))
    assert open_(tmp_path / "saved").ask(QUESTIONS[0], min_confidence=0.0).sources


def test_damage_is_not_carried_over_beside_hashes_that_are_right(make: Make, tmp_path: Path) -> None:
    opened = make(1)
    part = live_generation(tmp_path / "index1") / "products.arrow"
    written = bytearray(part.read_bytes())
    written[2000] ^= 1
    part.write_bytes(written)
    with pytest.raises(IndexDamagedError, match=r"products\.arrow: its content changed"):
        opened.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_generator_that_changed_since_it_was_loaded_is_not_saved(
    make: Make, tmp_path: Path, tiny_model: Path
) -> None:
    import shutil

    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    make(1)
    opened = open_(tmp_path / "index1", generator=str(model))
    assert opened.generator_source is None
    opened.generator  # noqa: B018
    opened.generator_source.weights_sha256  # type: ignore[union-attr]  # noqa: B018
    opened.generator_source.config_sha256  # type: ignore[union-attr]  # noqa: B018
    (model / "generation_config.json").write_text("{}")
    with pytest.raises((IndexDamagedError, ModelError), match="changed while it was copied"):
        opened.save_pretrained(tmp_path / "saved")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """An adapter trained for one step on a toy index. Tests must not change it."""
    from ragqa.training.fine_tune import fine_tune

    folder = tmp_path_factory.mktemp("trained")
    recipe = Recipe.from_dict(
        SMALL | {"generator": str(tiny_model), "steps": 1, "evaluations": 1, "max_new_tokens": 40}
    )
    with toy_embedder(folder / "toy-model"):
        build_index(rows(1, 200), folder / "index")
        fine_tune(folder / "index", folder / "adapter", recipe=recipe, device="cpu", dtype="float32")
    return folder / "adapter"


@pytest.fixture
def foreign(adapter: Path, tmp_path: Path) -> Path:
    """The same as another program would have written it: a test may change it."""
    wanted = shutil.copytree(adapter, tmp_path / "foreign", ignore=shutil.ignore_patterns("manifest.json"))
    return Path(wanted)


def test_an_adapter_is_saved_with_its_answerer_and_asked_as_it_was_trained(
    make: Make, adapter: Path, tmp_path: Path
) -> None:
    make(1)
    before = open_(tmp_path / "index1", adapter=str(adapter))
    before.save_pretrained(tmp_path / "saved")
    again = open_(tmp_path / "saved")
    assert again.adapter_name == str(tmp_path / "saved" / "adapter")
    assert (again.settings.context_tokens, again.settings.max_new_tokens) == (1200, 40)
    assert told(again, QUESTIONS[:1]) == told(before, QUESTIONS[:1])


def test_an_adapter_of_another_program_is_saved_and_not_taken_if_it_changed_since(
    make: Make, foreign: Path, tmp_path: Path
) -> None:
    make(1)
    open_(tmp_path / "index1", adapter=str(foreign), generator=make(1).generator_name).save_pretrained(tmp_path / "s")
    again = open_(tmp_path / "s")
    config = tmp_path / "s" / "adapter" / "adapter_config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(IndexDamagedError, match=r"adapter_config\.json: .*; open it anew, or save it anew with save_"):
        _ = again.generator


def test_another_adapter_than_the_saved_one_is_asked_as_it_was_trained(
    make: Make, adapter: Path, tmp_path: Path
) -> None:
    make(1).save_pretrained(tmp_path / "saved")
    assert open_(tmp_path / "saved").settings == AnswerSettings(top_k=3)
    other = open_(tmp_path / "saved", adapter=str(adapter))
    assert other.settings == AnswerSettings(top_k=3, context_products=3, context_tokens=1200, max_new_tokens=40)


def test_an_answer_that_an_adapter_is_not_sure_enough_of_is_streamed_as_there_is_none(
    make: Make, adapter: Path, tmp_path: Path
) -> None:
    make(1)
    opened = open_(tmp_path / "index1", adapter=str(adapter))
    streamed = opened.stream(QUESTIONS[0], min_confidence=1.0, decoding="free")
    assert list(streamed) == [ABSTENTIONS["en"]]
    assert streamed.answer.abstained


def test_one_that_another_ragqa_saved_in_another_format_is_refused(make: Make, tmp_path: Path) -> None:
    make(1).save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved" / SAVED
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format_version": 2}))
    with pytest.raises(IndexMismatchError, match=r"answerer\.json: saved in format 2; this ragqa reads format 1$"):
        open_(tmp_path / "saved")


def test_an_index_whose_manifest_was_changed_since_it_was_opened_is_not_saved(make: Make, tmp_path: Path) -> None:
    opened = make(1)
    make(2)
    other = live_generation(tmp_path / "index2") / MANIFEST
    shutil.copy(other, live_generation(tmp_path / "index1") / MANIFEST)
    with pytest.raises(IndexDamagedError, match=r"manifest\.json: changed since it was opened; open the index anew"):
        opened.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_one_that_was_made_from_parts_cannot_be_saved(make: Make, tmp_path: Path, tiny_model: Path) -> None:
    opened = make(1)
    parts = Answerer(opened.index, opened.retriever.embedder, generator=str(tiny_model), device="cpu", dtype="float32")
    with pytest.raises(InputError, match=r"^this Answerer was made from parts, not by from_pretrained; it cannot be"):
        parts.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_on_an_index_of_another_embedder_that_one_is_loaded_and_the_generator_kept(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, further = make(1), make(2)
    generator = opened.generator
    wanted = further.index.manifest["embedder"] | {"name": "another"}
    index = replace(on_disk(further.index), manifest=dict(further.index.manifest) | {"embedder": wanted})
    found, loaded = further.retriever.embedder, list[str]()

    def own_embedder(index: Any, *_: object) -> tuple[Any, Any]:
        loaded.append(index.manifest["embedder"]["name"])
        return found, further.embedder_source

    monkeypatch.setattr("ragqa.answerer.own_embedder", own_embedder)
    other = opened.on(index)
    assert loaded == ["another"]
    assert (other.retriever.embedder, other.embedder_source) == (found, further.embedder_source)
    assert other.generator is generator
    assert opened.retriever.embedder is not found
    assert opened.on(opened.index).retriever.embedder is opened.retriever.embedder
