"""The arms, with a random model on the demonstration catalogue."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ragqa import Answerer
from ragqa.comparison import steps
from ragqa.comparison.arms import ARMS, Asked, Catalogue
from ragqa.training.recipe import Recipe
from ragqa.training.splits import make_split

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def questions(
    demo_index: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("questions")
    inputs = {"index": str(demo_index), "device": "cpu", "recipe": recipe.to_dict(), "seen": 12, "unseen": 30}
    return folder, steps.questions(folder, inputs)


@pytest.fixture(scope="module")
def asked_of(
    demo_index: Path, adapter: Path, recipe: Recipe, questions: tuple[Path, dict[str, Any]]
) -> tuple[list[Asked], Catalogue]:
    answerer = Answerer.from_pretrained(demo_index, adapter=str(adapter), device="cpu", dtype="float32")
    lines = steps.read_questions(questions[0] / steps.QUESTIONS)
    asked = steps._asked(answerer, lines, frozenset(questions[1]["without"]))
    tokenizer = answerer.generator.tokenizer
    return asked, Catalogue(answerer.index.store, tokenizer, 3, recipe.context_tokens, recipe.max_new_tokens, answerer)


def test_the_questions_are_those_of_the_adapters_own_split(
    demo_index: Path, adapter: Path, recipe: Recipe, questions: tuple[Path, dict[str, Any]]
) -> None:
    folder, about = questions
    of_adapter = json.loads((adapter / "manifest.json").read_text())["data"]
    for name in ("test_seen.jsonl", "test_unseen.jsonl", "products_train.txt", "products_unseen.txt"):
        assert about["data"][name] == of_adapter[name]
    trained = set((adapter / "split" / "products_train.txt").read_text().split())
    lines = steps.read_questions(folder / steps.QUESTIONS)
    about_products = {
        name: {q["product_id"] for q in lines if q["set"] == name} - {None} for name in ("seen", "unseen")
    }
    assert about_products["seen"] <= trained
    assert not about_products["unseen"] & trained
    assert (sum(q["set"] == "seen" for q in lines), len(lines)) == (12, 42)
    products = list(Answerer.from_pretrained(demo_index).index.store)
    assert make_split(products, recipe.split()).rows["absent"] == tuple(about["without"])


def test_every_arm_answers_every_question_in_its_place(asked_of: tuple[list[Asked], Catalogue]) -> None:
    asked, catalogue = asked_of
    few = [*asked[:6], *[a for a in asked if a.gold is None][:3]]
    for name, arm in ARMS.items():
        given = arm.answer(few, catalogue)
        assert len(given) == len(few), name
        writes = arm.generator and name not in ("retrieval_context",)
        for one, answer in zip(few, given, strict=True):
            if writes and one.gold is None:
                assert answer.text == "", f"{name}: nothing is written where there is no product"
            if arm.context == "none":
                assert answer.source is None, name
            assert answer.confidence is None or 0 <= answer.confidence <= 1, name
            if name in ("copy", "copy_bm25", "choice_without_model", "retrieval_context"):
                described = catalogue.products[_row(catalogue, answer.source)].description
                assert answer.text == described[: len(answer.text)], f"{name}: the source's own words"
                assert answer.text


def _row(catalogue: Catalogue, id_: str | None) -> int:
    return next(i for i in range(len(catalogue.products)) if catalogue.products[i].id == id_)


def test_returning_the_first_candidate_needs_no_model(asked_of: tuple[list[Asked], Catalogue]) -> None:
    asked, catalogue = asked_of
    bare = replace(catalogue, answerer=None)
    for one, given in zip(asked, ARMS["copy"].answer(asked, bare), strict=True):
        assert given.source == one.found.candidates[0].product.id
        assert given.confidence == one.found.confidence
    for one, given in zip(asked, ARMS["copy_bm25"].answer(asked, bare), strict=True):
        assert given.source == catalogue.products[one.lexical[0]].id
        assert given.confidence is None


def test_given_gold_the_right_product_is_always_shown(asked_of: tuple[list[Asked], Catalogue]) -> None:
    asked, catalogue = asked_of
    one = next(a for a in asked if a.gold and not a.found.candidates[0].exact)
    assert one.gold is not None
    others = tuple(c for c in one.found.candidates if c.row != one.gold.row)
    missed = replace(one, found=replace(one.found, candidates=others))
    shown: list[list[str]] = []
    for name in ("retrieval_context", "retrieval_gold"):
        answer = catalogue.model.answer
        seen: list[str] = []

        def watch(found: Any, seen: list[str] = seen, answer: Any = answer, **settings: Any) -> Any:
            seen += [c.product.id for c in found[0].candidates[:3]]
            return answer(found, **settings)

        watched = type("Watched", (), {"answer": staticmethod(watch), "trained": catalogue.model.trained})()
        ARMS[name].answer([missed], replace(catalogue, answerer=watched, known={}))
        shown.append(seen)
    assert one.gold.product.id not in shown[0]
    assert shown[1] == [*shown[0][:2], one.gold.product.id]


def test_bm25_leaves_out_what_is_held_out(asked_of: tuple[list[Asked], Catalogue]) -> None:
    asked, catalogue = asked_of
    lexical = steps._lexical(catalogue.products)
    best = steps.rank_bm25(lexical, asked[0].found.question.subject, frozenset())
    without = steps.rank_bm25(lexical, asked[0].found.question.subject, frozenset(best[:1]))
    assert without[:-1] == best[1:]


@pytest.mark.parametrize("end", ["{", "\\0\\0\\0\n", '{"text": 1\n'])
def test_answers_that_are_half_written_are_given_anew(end: str, tmp_path: Path) -> None:
    row = {"text": "a", "source": None, "confidence": 1.0}
    file = tmp_path / "answers.jsonl"
    file.write_text((json.dumps(row) + "\n") * (steps._BLOCK + 3) + end)
    assert steps._kept(file) == [row] * steps._BLOCK
    assert file.read_text() == (json.dumps(row) + "\n") * steps._BLOCK
    file.write_bytes(b"\xff" * 9)
    assert steps._kept(file) == []


def test_answers_of_a_killed_process_are_kept_by_whole_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_BLOCK", 2)
    file = tmp_path / "copy.jsonl"
    file.write_text('{"text": "a"}\n{"text": "b"}\n{"text": "c"}\n{"te')
    assert [g["text"] for g in steps._kept(file)] == ["a", "b"]
    assert len(file.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("system", "arms"), [("none", ["copy", "copy_bm25"]), ("retrieval", ["retrieval", "choice_without_model"])]
)
def test_a_systems_stage_gives_texts_times_and_references(
    system: str, arms: list[str], demo_index: Path, adapter: Path, recipe: Recipe, questions: tuple[Path, dict[str, Any]],
    tmp_path: Path,
) -> None:  # fmt: skip
    inputs = {
        "system": system, "adapter": str(adapter) if system == "retrieval" else None, "index": str(demo_index),
        "recipe": recipe.to_dict(), "asked": str(questions[0] / steps.QUESTIONS), "without": questions[1]["without"],
        "questions": list(range(10, 20)), "arms": arms, "timed": 3, "device": "cpu", "dtype": "float32",
    }  # fmt: skip
    found = steps.answers(tmp_path, inputs)
    assert set(found["answers"]) == set(found["seconds"]) == set(arms)
    lines = steps.read_questions(questions[0] / steps.QUESTIONS)[10:20]
    assert [bool(r) for r in found["references"]] == [q["product_id"] is not None for q in lines]
    for name in arms:
        assert len(found["answers"][name]) == 10
        timed = [s for s in found["seconds"][name] if s is not None]
        assert len(timed) == 3
        assert min(timed) > 0
    again = steps.answers(tmp_path, inputs)
    assert again["answers"] == found["answers"]
