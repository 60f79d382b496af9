from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from ragqa import build_index, fine_tune_retriever, models, open_index
from ragqa.cli import main
from ragqa.errors import IndexMismatchError, IndexNotFoundError, InputError, ModelError, RagqaError, StorageError
from ragqa.files import sha256_of
from ragqa.training.checkpoints import newest_sealed, seal
from ragqa.training.pairs import Pair, RetrieverTrainingSettings
from tests.conftest import DEMO, ROOT

QUICK = RetrieverTrainingSettings(steps=6, batch_size=8, evaluations=3, validation=20, test=20, learning_rate=5e-3)


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers that reads letters, as a sentence-transformers folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    letters = [chr(i) for i in range(33, 127)]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder / "bert")
    part = Transformer(str(folder / "bert"))
    model = SentenceTransformer(modules=[part, Pooling(32)], device="cpu")
    model.save_pretrained(str(folder / "st"), create_model_card=False)
    return folder / "st"


@pytest.fixture(scope="module")
def tiny_index(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("indexes") / "tiny"
    build_index(DEMO, folder, embedder=str(tiny_encoder), device="cpu", dtype="float32")
    return folder


@pytest.fixture(scope="module")
def trained(tiny_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training; tests must not change it."""
    folder = tmp_path_factory.mktemp("embedders") / "tiny"
    train(tiny_index, folder)
    return folder


def train(index: Path, out: Path, **options: Any) -> dict[str, Any]:
    return fine_tune_retriever(index, out, **{"settings": QUICK, "device": "cpu", "dtype": "float32", **options})


def weights(folder: Path) -> str:
    return sha256_of(folder / "model.safetensors")


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_folder_is_an_encoder_that_builds_an_index(trained: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    assert weights(trained) != weights(tiny_encoder)
    index = build_index(DEMO, tmp_path / "tuned", embedder=str(trained), device="cpu", dtype="float32")
    assert index.manifest["embedder"]["weights_sha256"] == models.find_model(str(trained)).weights_sha256
    again = train(tmp_path / "tuned", tmp_path / "twice")
    assert again["base"]["name"] == str(trained)


def test_nothing_remains_beside_the_finished_folder(trained: Path) -> None:
    assert entries(trained.parent) == {"tiny"}
    assert {"README.md", "manifest.json", "metrics.jsonl", "modules.json", "model.safetensors"} <= entries(trained)
    assert not {p.suffix for p in trained.rglob("*")} & {".bin", ".pt", ".pth", ".pkl"}


def test_the_manifest_says_what_was_done(trained: Path, tiny_index: Path) -> None:
    manifest = json.loads((trained / "manifest.json").read_text())
    index = open_index(tiny_index)
    assert manifest["base"]["weights_sha256"] == index.manifest["embedder"]["weights_sha256"]
    assert manifest["index"]["content_sha256"] == index.manifest["content_sha256"]
    assert manifest["weights"] == {"model.safetensors": weights(trained)}
    assert (
        RetrieverTrainingSettings.from_dict(manifest["settings"] | {"kinds": tuple(manifest["settings"]["kinds"])})
        == QUICK
    )
    assert manifest["best_step"] == 6, "else the tests of resuming would compare weights of before the interruption"
    assert manifest["pairs"] == 48
    assert {"train.jsonl", "products_absent.txt"} <= set(manifest["split"])
    assert str(DEMO.parent) not in json.dumps(manifest["index"])
    figures = manifest["recalls"]
    assert figures["titles"] == figures["of"] < len(index), "held-out products are not searched"
    for when in ("before", "after"):
        assert figures[when]["unseen"]["all"]["questions"] == 20
        assert 0 <= figures[when]["unseen"]["all"]["retriever"]["1"] <= 1


def test_the_figures_after_are_those_of_the_saved_encoder(trained: Path, tiny_index: Path) -> None:
    """Recomputed from the folder, without the training's own code for it."""
    from ragqa.retrieval.embed import SentenceEmbedder
    from ragqa.training.splits import make_split

    products = list(open_index(tiny_index).store)
    split = make_split(products, QUICK.split())
    rows = [row for row in range(len(products)) if row not in set(split.rows["absent"])]
    encoder = SentenceEmbedder(models.load_embedder(str(trained), "cpu", "float32")[0])
    titles = encoder.embed_titles([products[row].title for row in rows])
    hits = 0
    for question in split.questions["test_unseen"]:
        best = int((titles @ encoder.embed_questions([question.subject])[0]).argmax())
        hits += products[rows[best]].id == question.product_id
    after = json.loads((trained / "manifest.json").read_text())["recalls"]["after"]["unseen"]["all"]["dense"]["1"]
    assert after == pytest.approx(hits / 20, abs=0.051)


def test_the_metrics_have_loss_and_validation(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "eval_mrr" in line] == [2, 4, 6]
    best = max((line for line in lines if "eval_mrr" in line), key=lambda line: line["eval_choice"])
    assert best["step"] == json.loads((trained / "manifest.json").read_text())["best_step"]


def test_training_lowers_the_loss(tiny_index: Path, tmp_path: Path) -> None:
    settings = RetrieverTrainingSettings(
        steps=40, batch_size=8, evaluations=1, validation=20, test=20, learning_rate=3e-3
    )
    train(tiny_index, tmp_path / "x", settings=settings)
    values = losses(tmp_path / "x")
    assert sum(values[-8:]) < 0.8 * sum(values[:8])


def test_the_card_has_both_tables_and_a_verdict(trained: Path) -> None:
    text = (trained / "README.md").read_text()
    figures = json.loads((trained / "manifest.json").read_text())["recalls"]
    assert text.count("| kind | questions | one fits | vectors | retriever |") == 2
    assert "questions about unseen products that only one product fits: the vectors alone at 1" in text
    assert f"{figures['after']['unseen']['all']['retriever']['10']:.3f} |" in text


def test_the_card_says_that_figures_of_a_sample_are_too_high(trained: Path) -> None:
    from ragqa.training.embedder_card import card

    manifest = json.loads((trained / "manifest.json").read_text())
    manifest["recalls"] |= {"sampled": True, "titles": 1000, "of": 20_000}
    text = card(manifest, "mine")
    assert "Searched were a random sample of 1,000 of 20,000 titles, so they are too high for all." in text
    assert "all 1,000 titles" not in text


def test_the_verdict_tells_a_gain_from_chance_and_from_a_loss() -> None:
    from ragqa.training.embedder_card import verdict

    def told(first: tuple[int, int, float], third: tuple[int, int, float]) -> str:
        recalls = {"questions": 100, "dense": {"1": 0.5, "3": 0.6}, "retriever": {"1": 0.7, "3": 0.8}}
        better = {"questions": 100, "dense": {"1": 0.6, "3": 0.6}, "retriever": {"1": 0.71, "3": 0.8}}
        moves = [dict(zip(("won", "lost", "p"), values, strict=True)) for values in (first, third)]
        same = {"won": 0, "lost": 0, "p": 1.0}
        change = {"dense": {"1": {"won": 10, "lost": 0, "p": 0.002}, "3": same}}
        change["retriever"] = dict(zip(("1", "3"), moves, strict=True))
        figures = {"before": {"unseen": {"sure": recalls}}, "after": {"unseen": {"sure": better}}}
        return verdict({"recalls": {**figures, "change": {"unseen": change}}})

    none, won, lost = (2, 2, 1.0), (9, 1, 0.02), (1, 9, 0.02)
    assert "the vectors alone at 1 0.500 -> 0.600, better (10 won, 0 lost, p = 0.002); at 3 0.600" in told(none, none)
    assert "at 1 0.700 -> 0.710, which may be chance (2 won, 2 lost, p = 1)" in told(none, none)
    assert told(none, none).endswith("is not shown: keep the encoder you have.")
    assert told(won, none).endswith("The whole retriever gets better (at 1).")
    assert told(won, won).endswith("The whole retriever gets better (at 1 and 3).")
    assert told((5, 2, 0.45), none).endswith("is not shown: keep the encoder you have.")
    assert told(won, lost).endswith("The whole retriever gets WORSE: keep the encoder you have.")


def test_the_same_seed_gives_the_same_weights_and_another_other_ones(
    trained: Path, tiny_index: Path, tmp_path: Path
) -> None:
    train(tiny_index, tmp_path / "again")
    assert weights(tmp_path / "again") == weights(trained)
    other = RetrieverTrainingSettings.from_dict(QUICK.to_dict() | {"seed": 1})
    train(tiny_index, tmp_path / "other", settings=other)
    assert weights(tmp_path / "other") != weights(trained)


KILLED = """
    import os, signal, sys
    import ragqa.training.contrastive as contrastive
    from ragqa import RetrieverTrainingSettings, fine_tune_retriever

    whole, index, out, where = contrastive.seal, sys.argv[1], sys.argv[2], sys.argv[3]

    def seal(folder):
        if where == "in a checkpoint" and folder.name == "checkpoint-4":
            (folder / "model.safetensors").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        whole(folder)

    def step(self, args, state, control, **kwargs):
        if where == "between two" and state.global_step == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    contrastive.seal = seal
    contrastive._Progress.on_step_end = step
    if where == "after the last":
        import ragqa.training.embedder as embedder
        embedder._before_and_after = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
    settings = RetrieverTrainingSettings(
        steps=6, batch_size=8, evaluations=3, validation=20, test=20, learning_rate=5e-3
    )
    fine_tune_retriever(index, out, settings=settings, device="cpu", dtype="float32")
"""


@pytest.mark.parametrize(("where", "left"), [("between two", 4), ("in a checkpoint", 2), ("after the last", 6)])
def test_a_killed_training_goes_on_to_the_same_weights(
    where: str, left: int, trained: Path, tiny_index: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tiny_index), str(out), where],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    assert not out.exists()
    checkpoint = newest_sealed(tmp_path / ".x.training")
    assert checkpoint is not None
    assert checkpoint.name == f"checkpoint-{left}"
    with pytest.raises(InputError, match=f"interrupted after {left} steps; add --resume to go on, or --overwrite"):
        train(tiny_index, out)
    other = RetrieverTrainingSettings.from_dict(QUICK.to_dict() | {"scale": 5.0})
    with pytest.raises(InputError, match=r"is of another training \(another settings\); give the same command"):
        train(tiny_index, out, settings=other, resume=True)
    manifest = train(tiny_index, out, resume=True)
    assert losses(out) == losses(trained)
    assert weights(out) == weights(trained)
    assert manifest["steps"] == 6
    assert (out / "metrics.jsonl").read_text().count('"eval_mrr"') == 3
    assert entries(tmp_path) == {"x"}


def test_an_interrupted_training_can_be_begun_anew(tiny_index: Path, trained: Path, tmp_path: Path) -> None:
    stale = tmp_path / ".x.training" / "checkpoint-2"
    stale.mkdir(parents=True)
    (stale / "model.safetensors").write_bytes(b"of another time")
    seal(stale)
    train(tiny_index, tmp_path / "x", overwrite=True)
    assert weights(tmp_path / "x") == weights(trained)


def test_a_checkpoint_without_seal_or_changed_since_is_not_used(tmp_path: Path) -> None:
    for steps in (2, 4, 10):
        folder = tmp_path / f"checkpoint-{steps}"
        (folder / "1_Pooling").mkdir(parents=True)
        (folder / "1_Pooling" / "config.json").write_text(str(steps))
        seal(folder)
    assert newest_sealed(tmp_path) == tmp_path / "checkpoint-10"
    (tmp_path / "checkpoint-10" / "1_Pooling" / "config.json").write_text("99")
    assert newest_sealed(tmp_path) == tmp_path / "checkpoint-4"
    (tmp_path / "checkpoint-4" / "more.bin").write_bytes(b"")
    assert newest_sealed(tmp_path) == tmp_path / "checkpoint-2"
    (tmp_path / "checkpoint-2" / "sealed.json").unlink()
    assert newest_sealed(tmp_path) is None


def test_a_training_that_ended_without_a_best_checkpoint_leaves_the_encoder_as_it_is(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.trainer_callback import TrainerState

    from ragqa.training import contrastive

    ended = TrainerState(global_step=QUICK.steps)
    monkeypatch.setattr(contrastive, "_ended", lambda *_: ended)
    model, _ = models.load_embedder(str(tiny_encoder), "cpu", "float32")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pairs = [Pair(f"question {i}", f"title {i}", f"title {(i + 1) % 20}", i, (i + 1) % 20) for i in range(20)]
    measured: list[Any] = []
    assert contrastive.train(model, pairs, QUICK, measured.append, tmp_path, False) is ended  # type: ignore[arg-type]
    assert measured == []
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_no_batch_has_a_right_title_as_anothers_negative() -> None:
    import torch

    from ragqa.training.contrastive import batches

    # Ten products in pairs of one group; each is asked about three times and is the negative of its neighbour.
    pairs = [
        Pair(f"question {i} {j}", f"title {i}", f"title {(i + 2) % 20}", i // 2, (i + 2) % 20 // 2)
        for i in range(20)
        for j in range(3)
    ]
    made = list(batches(pairs, 4, torch.Generator(), 0))
    assert len(made) >= 10
    for batch in made:
        groups = [group for i in batch for group in (pairs[i].group, pairs[i].negative_group)]
        assert len(set(groups)) == len(groups) == 8


def test_a_batch_larger_than_the_groups_is_told(tiny_encoder: Path, tmp_path: Path) -> None:
    rows = [
        {"uid": str(i), "title": f"thing number {i}", "content": f"{i} tells {i * 7} of {i * 3}"} for i in range(14)
    ]
    build_index(rows, tmp_path / "i", embedder=str(tiny_encoder), device="cpu", dtype="float32")
    with pytest.raises(InputError, match="too few products for a batch of 16; lower --batch-size"):
        train(tmp_path / "i", tmp_path / "x", settings=RetrieverTrainingSettings(steps=1, batch_size=16, test=5))
    assert entries(tmp_path) == {"i"}


def test_a_catalogue_too_small_to_split_is_told(tiny_encoder: Path, tmp_path: Path) -> None:
    rows = [{"uid": str(i), "title": f"thing {i}", "content": f"text {i}"} for i in range(5)]
    build_index(rows, tmp_path / "i", embedder=str(tiny_encoder), device="cpu", dtype="float32")
    with pytest.raises(InputError, match="5 products in 5 groups are too few to split"):
        train(tmp_path / "i", tmp_path / "x")
    assert entries(tmp_path) == {"i"}


def test_what_is_there_is_not_replaced_unless_told_to(trained: Path, tiny_index: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(trained, tmp_path / "x"))
    (out / "mark").write_text("")
    with pytest.raises(InputError, match="is there already; choose another --out, or add --overwrite"):
        train(tiny_index, out)
    assert (out / "mark").exists()
    train(tiny_index, out, overwrite=True)
    assert not (out / "mark").exists()
    assert entries(tmp_path) == {"x"}


def test_a_folder_of_something_else_is_never_replaced(tiny_index: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="holds something else than a ragqa embedder"):
        train(tiny_index, tmp_path / "x", overwrite=True)
    assert (tmp_path / "x" / "thesis.txt").read_text() == "precious"


def test_the_encoder_of_the_index_is_not_replaced_by_its_successor(trained: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(trained, tmp_path / "x"))
    build_index(DEMO, tmp_path / "i", embedder=str(out), device="cpu", dtype="float32")
    with pytest.raises(InputError, match="the index was built with the embedder in this folder"):
        train(tmp_path / "i", out, overwrite=True)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"device": "cuda:7"}, ModelError, "'cuda:7' is not on this machine"),
        ({"device": "gpu"}, ModelError, "unknown device 'gpu'"),
        ({"dtype": "float16"}, ModelError, "unknown dtype 'float16' for training"),
        ({"embedder": "nowhere"}, ModelError, "nowhere: no such folder.*name it with --embedder"),
        ({"resume": True}, InputError, "no training to go on with"),
    ],
)
def test_bad_input_is_told_before_anything_is_written(
    options: dict[str, Any], kind: type[RagqaError], message: str, tiny_index: Path, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message):
        train(tiny_index, tmp_path / "x", **options)
    assert entries(tmp_path) == set()


def test_a_missing_index_and_another_encoder_are_told(tiny_index: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(IndexNotFoundError, match="no such index; build it"):
        train(tmp_path / "no", tmp_path / "x")
    with pytest.raises(IndexMismatchError, match=r"was built with the embedder .*; name the right one with --embedder"):
        train(tiny_index, tmp_path / "x", embedder=str(trained))
    assert entries(tmp_path) == set()


def test_too_little_disk_is_told_before_training(
    tiny_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("ragqa.training.workplace.shutil.disk_usage", lambda place: usage._replace(free=1000))
    with pytest.raises(StorageError, match=r"about \d+ MB are needed in .*, and 0 MB are free; free some"):
        train(tiny_index, tmp_path / "x")
    assert entries(tmp_path) == set()


def test_a_disk_that_fills_up_leaves_nothing_half_written(
    tiny_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ragqa.training.contrastive.seal", full)
    with pytest.raises(StorageError, match="no space left"):
        train(tiny_index, tmp_path / "x")
    assert entries(tmp_path) == set()


def test_the_command_prints_plan_and_verdict(
    tiny_index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x"
    options = "--steps 2 --batch-size 8 --validation 10 --test 10 --device cpu --kinds typo,partial".split()
    assert main(["fine-tune-retriever", str(tiny_index), "--out", str(out), *options]) == 0
    captured = capsys.readouterr()
    assert "16 pairs, 2 steps of 8, " in captured.err
    assert "trainable parameters, cpu" in captured.err
    assert "questions about unseen products that only one product fits" in captured.out
    assert (
        captured.out.splitlines()[-1]
        == f"now build an index with it: python -m ragqa.build_index CATALOGUE --embedder {out}"
    )
    assert "Writing model shards" not in captured.err
    assert (
        main(["fine-tune-retriever", str(tiny_index), "--out", str(tmp_path / "y"), "--steps", "0", "--scale", "0"])
        == 2
    )
    assert "steps must be a whole number of at least 1, not 0; scale must be above 0" in capsys.readouterr().err


def test_an_interrupt_keeps_the_checkpoint_and_says_how_to_go_on(
    tiny_index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ragqa.training import contrastive

    def interrupt(self: object, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(contrastive._Progress, "on_step_end", interrupt)
    options = "--steps 4 --evaluations 2 --batch-size 8 --validation 10 --test 10 --device cpu".split()
    assert main(["fine-tune-retriever", str(tiny_index), "--out", str(tmp_path / "x"), *options, "-q"]) == 130
    assert "interrupted; the same command with --resume goes on" in capsys.readouterr().err
    assert newest_sealed(tmp_path / ".x.training") == tmp_path / ".x.training" / "checkpoint-2"


ALONE = """
    import socket, sys
    import ragqa

    asked = []
    socket.getaddrinfo = socket.socket.connect = lambda *arguments, **named: asked.append(arguments) or 1 / 0
    settings = ragqa.RetrieverTrainingSettings(steps=6, batch_size=8, evaluations=1, validation=10, test=10)
    ragqa.fine_tune_retriever(sys.argv[1], sys.argv[2], settings=settings, device="cpu")
    print(len(asked))
"""


def test_nobody_is_asked_over_the_network_and_nothing_printed(tiny_index: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(ALONE), str(tiny_index), str(tmp_path / "x")],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600, env=environment,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("0\n", "")
