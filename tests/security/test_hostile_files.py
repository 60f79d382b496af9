"""Files made to harm: none runs code, fills the memory, reads outside its folder, or ends in a traceback."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragqa import Answerer, models, open_index
from ragqa.catalogue.columns import ReadOptions
from ragqa.catalogue.read import Catalogue
from ragqa.catalogue.store import ProductStore
from ragqa.errors import CatalogueError, IndexDamagedError, ModelError, RagqaError
from ragqa.files import ends_sha256, sha256_of
from ragqa.generation.adapter import read_adapter
from ragqa.index.generations import MANIFEST, live_generation, write_current
from ragqa.index.storage import PRODUCTS, VECTORS
from ragqa.json_files import read_json
from ragqa.records import Product
from ragqa.retrieval.dense import DenseIndex
from ragqa.retrieval.lexical import TITLE_WORDS
from ragqa.retrieval.postings import Postings
from ragqa.saved import SAVED, Saved, read_saved
from ragqa.training.checkpoints import checkpoints, newest_sealed, seal
from tests.conftest import ROOT


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._place),)


# --- code ------------------------------------------------------------------------------------------------------------


def test_no_module_reads_pickles_or_asks_for_a_models_code() -> None:
    banned = ("pickle.load", "torch.load", "joblib", "dill", "shelve", "marshal", "yaml.load", "trust_remote_code=True")
    texts = {path: path.read_text("utf-8") for path in (ROOT / "ragqa").rglob("*.py")}
    assert [(path.name, word) for path, text in texts.items() for word in banned if word in text] == []
    assert all("allow_pickle=False" in text for text in texts.values() if "np.load(" in text)
    assert not any(word in text for text in texts.values() for word in ("extractall", "unpack_archive"))


@pytest.fixture
def model_folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.mark.parametrize(
    ("modules", "says"),
    [
        (
            [{"idx": 0, "path": "", "type": "modeling.Evil"}],
            "names the class 'modeling.Evil'; code that comes with a model",
        ),
        ([{"idx": 0, "path": "", "type": "os.system"}], "names the class 'os.system'; code that comes with a model"),
        ([{"path": "../x", "type": "sentence_transformers.models.Pooling"}], "names the place '../x' outside of it"),
        ([{"path": "/etc", "type": "sentence_transformers.models.Pooling"}], "names the place '/etc' outside of it"),
        ([{"path": "1/" * 200, "type": "sentence_transformers.models.Pooling"}], "names the place '1/1/"),
        ([{"path": "a\\b", "type": "sentence_transformers.models.Pooling"}], "names the place"),
        (
            [{"path": "1", "type": "sentence_transformers.models.Dense"}],
            "the weights in 1/pytorch_model.bin are a pickle",
        ),
        ({"type": 1}, "its modules.json is no list of modules"),
        ([1], "its modules.json is no list of modules"),
    ],
)
def test_an_embedder_that_names_code_or_other_places_is_refused(model_folder: Path, modules: Any, says: str) -> None:
    (model_folder / "modules.json").write_text(json.dumps(modules))
    (model_folder / "modeling.py").write_text("raise SystemExit('ran')")
    (model_folder / "1").mkdir()
    (model_folder / "1" / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(model_folder / "ran")))
    for load in (models.load_embedder, models.load_reranker, models.load_generator):
        with pytest.raises(ModelError) as told:
            load(str(model_folder))
        assert says in str(told.value)
    assert not (model_folder / "ran").exists()


def test_code_beside_a_generator_is_not_run_and_nothing_is_asked(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model_folder / "evil.py").write_text("import pathlib\npathlib.Path(__file__).with_name('ran').mkdir()")
    for name, kind in (("config.json", "AutoConfig"), ("tokenizer_config.json", "AutoTokenizer")):
        said = read_json(model_folder / name)
        said |= {"auto_map": {kind: "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}, "model_type": "evil"}
        if name == "tokenizer_config.json":
            said["tokenizer_class"] = "EvilTokenizer"
        (model_folder / name).write_text(json.dumps(said))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was put to the user"))
    with pytest.raises(ModelError, match="cannot be loaded as a language model"):
        models.load_reader(str(model_folder))
    assert not (model_folder / "ran").exists()


def test_weights_that_are_pickles_are_not_read(model_folder: Path, tmp_path: Path) -> None:
    (model_folder / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "adapter_model.bin"):
        (model_folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(ModelError, match=r"no \.safetensors weights in this folder; ragqa reads no other kind"):
        models.load_generator(str(model_folder))
    with pytest.raises(ModelError, match=r"no LoRA adapter in this folder \(adapter_config\.json is missing\)"):
        models.load_generator(models.DEFAULT_GENERATOR, adapter=str(model_folder))
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_no_safetensors_are_refused(model_folder: Path, tmp_path: Path) -> None:
    whole = (model_folder / "model.safetensors").read_bytes()
    for data in (b"", b"\xff" * 64, pickle.dumps(Bomb(tmp_path / "ran")), whole[:200], (2**62).to_bytes(8, "little")):
        (model_folder / "model.safetensors").write_bytes(data)
        with pytest.raises(ModelError, match="cannot be loaded as a language model"):
            models.load_reader(str(model_folder))
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_has_no_pickled_arguments_and_one_that_was_changed_is_not_gone_on_from(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint-5"
    checkpoint.mkdir()
    (checkpoint / "optimizer.pt").write_bytes(b"numbers")
    seal(checkpoint)
    assert newest_sealed(tmp_path) == checkpoint
    (checkpoint / "optimizer.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    assert newest_sealed(tmp_path) is None
    assert checkpoints(tmp_path) == [checkpoint]
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_that_panics_is_refused(model_folder: Path) -> None:
    told = read_json(model_folder / "tokenizer.json")
    told["post_processor"] = {
        "type": "TemplateProcessing", "special_tokens": {},
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<none>", "type_id": 0}}], "pair": [],
    }  # fmt: skip
    (model_folder / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(ModelError, match=r"(cannot be loaded as a language model|its tokenizer cannot be used)"):
        models.load_generator(str(model_folder))


# --- JSON ------------------------------------------------------------------------------------------------------------

JSONS: dict[str, bytes] = {
    "deep": b"[" * 200_000,
    "deep and whole": b"[" * 5000 + b"]" * 5000,
    "an infinite number": b'{"format_version": 1e999, "kind": "ragqa adapter", "settings": {"top_k": 1e999}}',
    "not a number": b'{"format_version": NaN}',
    "a long number": b'{"format_version": ' + b"9" * 5000 + b"}",
    "a list": b"[]",
    "null": b"null",
    "a text": b'"x"',
    "not UTF-8": b"\xff\xfe{}",
    "nothing": b"",
    "twice": b'{"settings": {}} {"settings": {}}',
    "names twice": b'{"format_version": 1, "format_version": 2}',
}


@pytest.mark.parametrize("data", JSONS.values(), ids=list(JSONS))
def test_manifests_that_are_none_are_told_in_one_line(own_index: Path, tmp_path: Path, data: bytes) -> None:
    generation = live_generation(own_index)
    for path, read in (
        (generation / MANIFEST, lambda: open_index(own_index)),
        (tmp_path / SAVED, lambda: read_saved(tmp_path / SAVED)),
        (tmp_path / "manifest.json", lambda: read_adapter(tmp_path)),
    ):
        path.write_bytes(data)
        try:
            told = read()
        except RagqaError as error:
            assert "\n" not in str(error)
        else:
            assert told is None  # a manifest of another program's adapter


def test_a_saved_answerer_that_names_no_reranker_or_other_places_is_read_or_refused(tmp_path: Path) -> None:
    model = {"weights_sha256": "0", "config_sha256": "0"}
    told: dict[str, Any] = {"format_version": 1, "settings": {}, "generator": model}
    (tmp_path / SAVED).write_text(json.dumps(told))
    assert Saved.of(read_saved(tmp_path / SAVED), None, None, None).reranker is None
    for name in ("../secret", "/etc/passwd", "a/b", ""):
        wrong = told | {"adapter_files": {name: {"size": 1, "sha256": "0"}}}
        (tmp_path / SAVED).write_text(json.dumps(wrong))
        with pytest.raises(IndexDamagedError, match="not a saved Answerer; save it anew with save_pretrained"):
            read_saved(tmp_path / SAVED)


def test_a_json_file_has_a_size_that_it_may_have(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text('{"a": "' + "x" * 100 + '"}')
    assert read_json(path, 200)["a"] == "x" * 100
    with pytest.raises(ValueError, match=r"^more than 64 bytes$"):
        read_json(path, 64)


# --- FAISS -----------------------------------------------------------------------------------------------------------


def test_vectors_are_hashed_before_faiss_reads_them_also_of_large_indexes(
    own_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = live_generation(own_index) / VECTORS
    data = bytearray(vectors.read_bytes())
    data[len(data) // 2] ^= 1
    vectors.write_bytes(data)
    monkeypatch.setattr("ragqa.index.storage._FULL_BELOW", 0)
    monkeypatch.setattr(DenseIndex, "load", lambda *_: pytest.fail("FAISS read what was changed"))
    with pytest.raises(IndexDamagedError, match="its content changed since it was written"):
        open_index(own_index)


@pytest.mark.parametrize(("at", "value"), [(4, 2**31 - 1), (8, 2**60), (8, -1), (4, 0), (33, 2**61)])
def test_a_faiss_file_that_says_it_has_more_than_is_there_is_refused(tmp_path: Path, at: int, value: int) -> None:
    import faiss

    index = faiss.IndexFlatIP(8)
    index.add(np.eye(8, dtype=np.float32))
    path = tmp_path / "vectors.faiss"
    faiss.write_index(index, str(path))
    data = bytearray(path.read_bytes())
    width = 4 if at == 4 else 8
    data[at : at + width] = value.to_bytes(width, "little", signed=True)
    path.write_bytes(data)
    with pytest.raises(IndexDamagedError, match="not a whole FAISS index; build the index anew"):
        DenseIndex.load(path)
    assert faiss.get_deserialization_vector_byte_limit() == 1 << 40  # left as it was


# --- catalogues ------------------------------------------------------------------------------------------------------

_LIMITED = """
import resource, sys, json
from pathlib import Path
import pyarrow, pyarrow.parquet
from ragqa import prepare
from ragqa.catalogue.columns import ReadOptions
from ragqa.errors import RagqaError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    report = prepare(sys.argv[1], sys.argv[2], options=ReadOptions(on_error=sys.argv[3]))
    said = f"kept {report.kept}"
except RagqaError as error:
    said = str(error)
print(json.dumps([said, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024]))
"""


def grown(path: Path, on_error: str = "stop") -> tuple[str, int]:
    """What reading a catalogue in a process of its own said, and the MB that it took."""
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(path), str(path.with_suffix(".csv.out.csv")), on_error],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    said, megabytes = json.loads(done.stdout)
    return said, megabytes


def bomb(path: Path, piece: bytes, times: int, head: bytes = b"", tail: bytes = b"") -> Path:
    """A gzip file of a piece, many times."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(head)
        for _ in range(times):
            file.write(piece)
        file.write(tail)
    return path


def test_a_gzip_bomb_of_one_line_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.json.gz", b" " * (1 << 20), 400)
    said, megabytes = grown(path)
    assert said == f"{path}: line 1: longer than 16 MiB; one row a line is accepted; mend it, or leave such rows out with --on-error skip"  # fmt: skip
    assert megabytes < 150


def test_rows_as_long_as_they_may_be_are_not_held_together(tmp_path: Path) -> None:
    row = json.dumps({"title": "T", "text": "x" * 15_000_000}).encode() + b"\n"
    path = bomb(tmp_path / "a.json.gz", row, 40)
    said, megabytes = grown(path)
    assert said == "kept 1"
    assert megabytes < 300


def test_a_row_of_quoted_lines_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.csv.gz", b'",a,"\n' * (1 << 17), 40, head=b'title,text\nT,t\n"')
    said, megabytes = grown(path, "skip")
    assert said == "kept 1"
    assert megabytes < 500


def test_a_dictionary_of_parquet_that_repeats_a_long_text_does_not_fill_the_memory(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.DictionaryArray.from_arrays(pa.array([0] * 640, pa.int32()), pa.array(["x" * 1_000_000]))
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"title": pa.array(["T"] * 640), "text": text}), path)
    assert path.stat().st_size < 5_000_000
    said, megabytes = grown(path)
    assert said == "kept 1"
    assert megabytes < 600


def test_after_a_row_without_end_reading_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragqa.catalogue.formats.MAX_LINE", 40)
    path = tmp_path / "a.csv"
    path.write_text('title,text\nA,"' + '",a,"\n' * 20 + '""\nB,b\n')
    catalogue = Catalogue(path, ReadOptions(on_error="skip"))
    assert [row.title for row in catalogue.rows()][-1] == "B"
    assert "a row longer than 0 MiB; is a quotation mark not closed?" in catalogue.malformed[0]


def test_a_field_longer_than_a_line_may_be_is_malformed() -> None:
    with pytest.raises(CatalogueError, match=r"row 1: field 'text' has 16,777,217 characters; at most 16,777,216 are"):
        list(Catalogue([{"title": "T", "text": "x" * ((1 << 24) + 1)}]).rows())


def test_a_file_in_the_folder_that_is_no_catalogue_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"title": "T", "text": "t"}\n')
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    assert [row.title for row in Catalogue(tmp_path).rows()] == ["T"]
    assert not (tmp_path / "ran").exists()


# --- the whole -------------------------------------------------------------------------------------------------------


def test_an_index_whose_words_name_rows_that_are_not_there_is_told(own_index: Path) -> None:
    generation = live_generation(own_index)
    words = generation / TITLE_WORDS
    data = bytearray(words.read_bytes())
    named = 4 * len(Postings.load(words).rows)
    data[:named] = b"\xff" * named
    words.write_bytes(data)
    # Whoever wrote the file wrote the manifest, too, and the pointer.
    manifest = read_json(generation / MANIFEST)
    manifest["parts"][TITLE_WORDS] |= {"sha256": sha256_of(words), "ends_sha256": ends_sha256(words)}
    (generation / MANIFEST).write_text(json.dumps(manifest))
    write_current(own_index, generation.name, sha256_of(generation / MANIFEST))
    with pytest.raises(IndexDamagedError, match="names rows that are not there; build the index anew"):
        Answerer.from_pretrained(own_index).ask("headlamp", decoding="copy")


@pytest.mark.parametrize("letters", [b"\xff\xfe", b"\x00\xff"])
def test_a_store_whose_texts_do_not_lie_where_it_says_is_told(own_index: Path, letters: bytes) -> None:
    products = live_generation(own_index) / PRODUCTS
    data = bytearray(products.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = letters * 2000
    for start in range(400, 1400, 4):
        data[start : start + 4] = (2**31 - 7).to_bytes(4, "little")
    products.write_bytes(data)
    with pytest.raises(IndexDamagedError, match=r"products\.arrow: .*(row|whole|damaged)"):
        _all_products(products)


def _all_products(path: Path) -> list[Product]:
    store = ProductStore(path)
    return [store[row] for row in range(len(store))]
