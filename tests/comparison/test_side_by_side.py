"""One question through the arms, with a random model on the demonstration catalogue."""

import json
from pathlib import Path

import pytest

from ragqa import Answerer
from ragqa.cli import main
from ragqa.comparison.arms import ARMS
from ragqa.comparison.side_by_side import SHOWN, SideBySide, how_to_get, side_by_side
from ragqa.errors import InputError
from ragqa.generation.provenance import spans
from ragqa.seals import sealed
from tests.test_cli import fails

pytestmark = pytest.mark.weights
QUOTED = "What is the description of Lumen Trail Headlamp LT-350?"
LOOSE = "headlamp for the trail"


@pytest.fixture(scope="module")
def answerer(demo_index: Path, tiny_model: Path) -> Answerer:
    return Answerer.from_pretrained(demo_index, generator=str(tiny_model), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def arms(answerer: Answerer, plain_adapter: Path, adapter: Path) -> SideBySide:
    return side_by_side(
        answerer, plain=str(plain_adapter), retrieval=str(adapter), device="cpu", dtype="float32"
    )  # fmt: skip


def test_every_arm_answers_in_order_and_names_what_it_was_shown(arms: SideBySide, answerer: Answerer) -> None:
    assert (arms.arms, arms.missing) == (SHOWN, ())
    found = answerer.retriever.retrieve([LOOSE], 3)[0]
    answers = list(arms.ask(LOOSE))
    assert [a.name for a in answers] == list(SHOWN)
    for one in answers:
        assert (one.label, one.about) == (ARMS[one.name].label, ARMS[one.name].about)
        assert [p.id for p in one.candidates] == [c.product.id for c in found.candidates]
        assert one.spans == spans(one.answer, one.candidates, one.source.id if one.source else None)
        assert (one.f1, one.exact_match) == (None, None)  # no title is quoted
    copy, base, _, plain, retrieval = answers
    assert copy.source == found.candidates[0].product
    assert copy.grounded == 1.0
    assert copy.confidence == round(found.confidence, 4)
    assert (base.source, base.confidence) == (plain.source, plain.confidence) == (None, None)
    assert retrieval.source in retrieval.candidates
    assert retrieval.answer == retrieval.source.description[: len(retrieval.answer)]


def test_where_the_question_quotes_a_title_answers_are_measured_against_its_description(arms: SideBySide) -> None:
    answers = {a.name: a for a in arms.ask(QUOTED)}
    assert (answers["copy"].f1, answers["copy"].exact_match) == (1.0, True)
    assert answers["base"].exact_match is False
    assert answers["base"].f1 is not None
    assert answers["base"].f1 < 0.2  # a random model's
    told = answers["copy"].to_dict()
    assert told["source"] == {"id": "RQ5QHDUNTN", "title": "Lumen Trail Headlamp LT-350"}
    assert told["grounded"] == 1.0
    assert json.loads(json.dumps(told))["spans"][0]["source"] == "RQ5QHDUNTN"


def test_without_adapters_their_arms_are_missing_and_the_models_are_loaded_once(answerer: Answerer) -> None:
    arms = side_by_side(answerer)
    assert arms.arms == ("copy", "base", "base_context")
    assert arms.missing == ("plain", "retrieval")
    assert [a.name for a in arms.ask(LOOSE)] == list(arms.arms)
    assert arms._systems["base"] is answerer
    arm = how_to_get("plain", "indexes/demo", "ragqa serve indexes/demo --compare-plain")
    assert (arm.name, arm.label) == ("plain", "plain fine-tuned")
    assert arm.how == (
        "ragqa fine-tune indexes/demo --mode plain --out adapters/plain",
        "ragqa serve indexes/demo --compare-plain adapters/plain",
    )


def test_an_answerer_that_was_trained_is_an_arm_itself(demo_index: Path, adapter: Path) -> None:
    own = Answerer.from_pretrained(demo_index, adapter=str(adapter), device="cpu", dtype="float32")
    arms = side_by_side(own, device="cpu", dtype="float32")
    assert arms.missing == ("plain",)
    assert arms._systems["retrieval"] is own
    assert arms._systems["base"] is not own
    assert side_by_side(own, own=False, generator="x").missing == ("plain", "retrieval")


def test_adapters_that_cannot_be_compared_are_refused(
    answerer: Answerer, plain_adapter: Path, adapter: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="was trained with --mode plain, not retrieval"):
        side_by_side(answerer, retrieval=str(plain_adapter))
    with pytest.raises(
        InputError, match=r"no adapter that ragqa trained; python -m ragqa\.fine_tune --mode plain makes"
    ):
        side_by_side(answerer, plain=str(tmp_path))
    other = tmp_path / "other"
    other.mkdir()
    manifest = json.loads((adapter / "manifest.json").read_text())
    manifest["base"] |= {"name": "another", "weights_sha256": "0" * 64}
    (other / "manifest.json").write_text(json.dumps(sealed(manifest)))
    with pytest.raises(InputError, match="other on another: these are not the same model"):
        side_by_side(answerer, plain=str(plain_adapter), retrieval=str(other))


def test_the_command_prints_answers_a_table_and_what_is_missing(
    demo_index: Path, plain_adapter: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare", str(demo_index), QUOTED, "--plain", str(plain_adapter), "-q", "--dtype", "float32"]
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert "     [1] Lumen Trail Headlamp LT-350  (RQ5QHDUNTN)" in told.out
    assert "retrieve and return: the first candidate's description; no generator\n   [1: Our all-round" in told.out
    rows = told.out.split("\n\n")[-1].splitlines()
    assert rows[0].split() == ["source", "confidence", "copied", "F1", "exact", "match", "seconds"]
    assert rows[1].split()[:-1] == ["retrieve", "and", "return", "[1]", "1.00", "100%", "1.00", "yes"]
    assert [" ".join(row.split()[:2]) for row in rows[2:]] == ["base model", "base model", "plain fine-tuned"]
    assert "not shown, for want of an adapter: retrieval-conditioned fine-tuned + retrieved: " in told.err
    assert f"   ragqa fine-tune {demo_index} --mode retrieval --out adapters/retrieval\n" in told.err
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [arm["name"] for arm in found["arms"]] == ["copy", "base", "base_context", "plain"]
    assert found["question"] == QUOTED


def test_mistakes_of_the_command_are_one_line(demo_index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere: no adapter" in fails(["compare", str(demo_index), "q", "--plain", "nowhere"], capsys)
    assert "the question is empty" in fails(["compare", str(demo_index), " "], capsys)
    assert "unrecognized arguments: b" in fails(["compare", str(demo_index), "a", "b"], capsys)
