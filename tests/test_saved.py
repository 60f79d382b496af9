"""A saved Answerer is whole, stays what it was when it was opened, or says so."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.toys import QUESTIONS, rows, told, toy_embedder
from ragqa import Answerer, build_index
from ragqa.errors import BusyError, IndexDamagedError, ModelError
from ragqa.index.generations import live_generation
from ragqa.index.lock import writing_lock
from ragqa.saved import SAVED
from ragqa.settings import AnswerSettings

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
