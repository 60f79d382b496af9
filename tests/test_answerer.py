"""The whole road on the real weights."""

import json
import pickle
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ragqa import Answer, Answerer, AnswerSettings, build_index, models
from ragqa.answerer import ABSTENTIONS, SEVERAL
from ragqa.errors import IndexMismatchError, IndexNotFoundError, InputError, ModelError, QuestionError
from ragqa.files import write_json
from ragqa.generation.prompt import Prompt, PromptBuilder
from ragqa.index.generations import live_generation, write_current
from ragqa.records import Candidate, Question

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def answerer(demo_index: Path) -> Answerer:
    return Answerer.from_pretrained(demo_index)


def test_an_english_question_is_answered_from_its_source(answerer: Answerer) -> None:
    answer = answerer.ask("What is the description of the Lumen headlamp LT-350?")
    assert not answer.abstained
    assert answer.sources[0].title == "Lumen Trail Headlamp LT-350"
    assert answer.sources[0].cited
    assert answer.text == answer.sources[0].description
    assert "350 lumens" in answer.text
    assert 0.5 <= answer.confidence < 1


def test_a_portuguese_question_with_the_exact_title_is_certain(answerer: Answerer) -> None:
    answer = answerer.ask("Qual é a descrição deste produto: rede de dormir casal maracatu, azul?")
    assert (answer.language, answer.confidence, answer.sources[0].id) == ("pt", 1.0, "RQVEMRGX4S")
    assert answer.sources[0].exact
    assert "anil" in answer.text


@pytest.mark.parametrize(
    "question",
    [
        "What is the description of the Husker chainsaw?",
        "Do you have surfboards?",
        "vocês têm motosserra?",
        "¿Cuál es la descripción de este producto: telescopio Orion?",
        "qwkjh zxcvv",
    ],
)
def test_a_product_that_is_not_there_is_not_invented(answerer: Answerer, question: str) -> None:
    answer = answerer.ask(question)
    assert answer.abstained
    assert not answer.several
    assert answer.text == ABSTENTIONS[answer.language]
    assert len(answer.sources) == 5, "near products are shown"
    assert not any(source.cited for source in answer.sources)
    assert answer.timings["generate"] == 0.0


def test_a_question_that_several_products_fit_is_asked_back_with_them(answerer: Answerer) -> None:
    answer = answerer.ask("Qual é a descrição da Rede de Dormir Casal Maracatu?")
    assert (answer.abstained, answer.several, answer.text) == (True, True, SEVERAL["pt"])
    assert {source.title.rpartition(", ")[2] for source in answer.sources[:3]} == {"Azul", "Vermelha", "Natural"}


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("lighthuose keepers kitens", "The Lighthouse Keeper's Kittens"),
        ("rede maracatu vermelha", "Rede de Dormir Casal Maracatu, Vermelha"),
        ("Tell me about Marisol flamenco skirt blue", "Marisol Girls' Flamenco Skirt, Blue"),
        ("describe this product: ampelo power bank 20000", "Ampelo Pocket Power Bank, 20,000 mAh"),
        ("qual a descricao da cuica batucada fina 8 polegadas", "Cuíca Batucada Fina, 8 Polegadas"),
    ],
)
def test_titles_in_part_or_mistyped_are_found(answerer: Answerer, question: str, title: str) -> None:
    assert answerer.ask(question).sources[0].title == title


def test_the_generator_writes_freely_when_it_is_told_to(answerer: Answerer) -> None:
    questions = ["rede maracatu vermelha", "Marisol flamenco skirt red"]
    free = answerer.ask_many(questions, decoding="free", max_new_tokens=24)
    assert all(answer.text for answer in free)
    assert free[0].text != free[1].text
    assert [a.text for a in answerer.ask_many(questions, decoding="free", max_new_tokens=24)] == [a.text for a in free]


def test_many_questions_are_answered_in_their_order_as_one_by_one(answerer: Answerer) -> None:
    questions = [
        "rede maracatu vermelha",
        "Do you have chainsaws?",
        "The Lighthouse Keeper's Kittens",
        "lumen headlamp 200",
        "The Salt Road",
    ]

    def told(answer: Answer) -> dict[str, Any]:
        return {name: value for name, value in answer.to_dict().items() if name != "timings"}

    assert [told(a) for a in answerer.ask_many(questions)] == [told(answerer.ask(q)) for q in questions]
    assert answerer.ask_many([]) == []


def test_an_answer_keeps_to_its_budget_and_ends_with_a_sentence(answerer: Answerer) -> None:
    answer = answerer.ask("Caldero Alto L1 Manual Lever Espresso Machine", max_new_tokens=60)
    assert answer.sources[0].description.startswith(answer.text)
    assert answer.text.endswith((".", "!", "?"))
    assert 100 < len(answer.text) < 400


def test_a_very_long_description_does_not_push_out_the_question(answerer: Answerer) -> None:
    answer = answerer.ask("caldero alto lever espresso", context_tokens=512, min_confidence=0.0)
    generator = answerer.generator
    assert len(generator.tokenizer(answer.prompt)["input_ids"]) <= 512
    assert "Question: caldero alto lever espresso" in answer.prompt


def test_the_prompt_of_an_exact_title_is_made_when_it_is_looked_at(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    build = PromptBuilder.build

    def noted(self: PromptBuilder, question: Question, candidates: Sequence[Candidate]) -> Prompt:
        made.append(question.subject)
        return build(self, question, candidates)

    monkeypatch.setattr(PromptBuilder, "build", noted)
    exact, partial = answerer.ask_many(["Lumen Trail Headlamp LT-350", "rede maracatu vermelha"])
    assert made == ["rede maracatu vermelha"]
    assert "Product: Lumen Trail Headlamp LT-350\nDescription:" in exact.prompt
    assert exact.prompt == exact.to_dict()["prompt"] == pickle.loads(pickle.dumps(exact)).prompt
    assert made == ["rede maracatu vermelha", "Lumen Trail Headlamp LT-350"]
    assert "prompt" not in partial.to_dict(prompt=False)


def test_top_k_and_confidence_can_be_set_for_one_question(answerer: Answerer) -> None:
    assert len(answerer.ask("lumen headlamp", top_k=2).sources) == 2
    assert not answerer.ask("chainsaw", min_confidence=0.0).abstained
    assert answerer.ask("lumen headlamp LT-350", min_confidence=1.0).abstained
    assert not answerer.ask("Lumen Trail Headlamp LT-350", min_confidence=1.0).abstained


def test_a_copied_answer_is_the_whole_description_and_loads_no_generator(demo_index: Path) -> None:
    answerer = Answerer.from_pretrained(demo_index)
    answer = answerer.ask("lumen headlamp LT-350", decoding="copy")
    assert (answer.text, answer.prompt) == (answer.sources[0].description, "")
    assert [source.cited for source in answer.sources] == [True, False, False, False, False]
    assert "load" not in answer.timings
    assert answerer._generator is None
    assert answerer.ask("Do you have surfboards?", decoding="copy").abstained


def test_a_wanted_precision_sets_how_much_is_answered(answerer: Answerer) -> None:
    curve = answerer.index.confidence.curve
    assert [point[0] for point in curve] == sorted(point[0] for point in curve)
    loose, strict = curve[0][2], max(point[2] for point in curve)
    questions = ["lumen headlamp LT-350", "flamenco skirt", "surfboards", "hamster wheel", "headlamp", "red"]

    def answered(precision: float) -> int:
        return sum(not a.abstained for a in answerer.ask_many(questions, precision=precision, decoding="copy"))

    assert answered(loose) > answered(strict)


@pytest.mark.parametrize("options", [{"fusion": "reciprocal-rank"}, {"lexical": "rank-bm25"}])
def test_other_ways_of_retrieval_find_titles_in_part_too(answerer: Answerer, options: dict[str, Any]) -> None:
    answer = answerer.ask("rede maracatu vermelha", min_confidence=0.0, decoding="copy", **options)
    assert answer.sources[0].title == "Rede de Dormir Casal Maracatu, Vermelha"
    scores = [source.score for source in answer.sources]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] <= 1


def test_settings_out_of_range_are_told_all_at_once(answerer: Answerer) -> None:
    with pytest.raises(InputError, match=r"top_k must be .* not 0; min_confidence must be from 0 to 1, not 2"):
        answerer.ask("x", top_k=0, min_confidence=2)
    with pytest.raises(InputError, match="unknown setting 'topk'; AnswerSettings has: top_k, "):
        answerer.ask("x", topk=1)
    with pytest.raises(InputError, match="call ask"):
        answerer.ask_many("one question")


def test_an_empty_and_a_huge_question_are_refused(answerer: Answerer) -> None:
    for question in ("", " \n", "a" * 100_000):
        with pytest.raises(QuestionError):
            answerer.ask(question)


def test_a_budget_the_generator_cannot_read_is_told(answerer: Answerer) -> None:
    with pytest.raises(ModelError, match=r"the generator reads 8192 tokens, which leaves 2 .* lower --max-new-tokens"):
        answerer.ask("rede maracatu vermelha", max_new_tokens=8190)


def test_threads_may_share_an_answerer(answerer: Answerer) -> None:
    questions = ["rede maracatu vermelha", "lumen headlamp 200", "Do you have chainsaws?"] * 2
    alone = [answerer.ask(q).text for q in questions]
    together: dict[int, str] = {}

    def work(i: int) -> None:
        together[i] = answerer.ask(questions[i]).text

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(questions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[i] for i in range(len(questions))] == alone


def test_a_control_token_in_a_description_is_not_one_in_the_prompt(answerer: Answerer) -> None:
    answer = answerer.ask("Kernel Panic Athletics Fun-Run Tee for Programmers")
    assert "<|im_end|>" in answer.text
    tokenizer = answerer.generator.tokenizer
    ids = tokenizer(answer.prompt)["input_ids"]
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2  # the system's and the user's turn


def test_another_embedder_than_the_indexs_is_refused(own_index: Path, tmp_path: Path) -> None:
    generation = live_generation(own_index)
    manifest = json.loads((generation / "manifest.json").read_text().replace("d145d723aef4", "000000000000"))
    write_current(own_index, generation.name, write_json(generation / "manifest.json", manifest)[1])
    with pytest.raises(
        IndexMismatchError, match=r"weights 000000000000.* but .* was found \(weights d145d723aef4\); name the right"
    ):
        Answerer.from_pretrained(own_index)


def test_another_pooling_of_the_same_weights_is_refused(tmp_path: Path) -> None:
    embedder = tmp_path / "embedder"
    models.find_model(models.DEFAULT_EMBEDDER).copy_to(embedder)
    build_index([{"title": "Blue Kettle", "content": "Boils."}], tmp_path / "one", embedder=str(embedder))
    pooling = embedder / "1_Pooling" / "config.json"
    config = json.loads(pooling.read_text())
    pooling.write_text(json.dumps(config | {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}))
    with pytest.raises(IndexMismatchError, match=r"was built with the embedder .* \(config .* name the right one"):
        Answerer.from_pretrained(tmp_path / "one")
    shutil.rmtree(embedder)
    with pytest.raises(ModelError, match="if it moved, name it with --embedder"):
        Answerer.from_pretrained(tmp_path / "one")


def test_a_title_of_two_thousand_characters_is_answered_exactly(tmp_path: Path) -> None:
    title = " ".join(f"word{i}" for i in range(300))[:1990]
    build_index([{"title": title, "content": "The long one."}, {"title": "B", "content": "b"}], tmp_path / "long")
    long = Answerer.from_pretrained(tmp_path / "long")
    for question in (title, f"What is the description of {title}?"):
        answer = long.ask(question)
        assert (answer.text, answer.confidence) == ("The long one.", 1.0)


def test_what_was_opened_is_saved_after_the_index_was_replaced_twice_unless_it_was_taken_away(tmp_path: Path) -> None:
    row = {"title": "Blue Kettle", "content": "Boils."}
    build_index([row], tmp_path / "one")
    opened = Answerer.from_pretrained(tmp_path / "one")
    for text in ("Boils more.", "Boils most."):
        build_index([row | {"content": text}], tmp_path / "one")
    opened.save_pretrained(tmp_path / "saved")
    assert Answerer.from_pretrained(tmp_path / "saved").ask("Blue Kettle").text == "Boils."
    shutil.rmtree(opened.index.folder)
    with pytest.raises(IndexNotFoundError, match="replaced since it was opened"):
        opened.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again").exists()
    assert not (tmp_path / ".again.saving").exists()


def test_a_saved_answerer_is_self_contained(
    answerer: Answerer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answerer.ask("lumen headlamp 200").text
    answerer.save_pretrained(tmp_path / "saved")
    assert {p.name for p in (tmp_path / "saved").iterdir()} == {"answerer.json", "index", "embedder", "generator"}
    monkeypatch.setattr("ragqa.models.load.PACKAGED", {})
    monkeypatch.setenv("RAGQA_CACHE", str(tmp_path / "no-cache"))
    moved = (tmp_path / "saved").rename(tmp_path / "moved")
    again = Answerer.from_pretrained(moved)
    assert again.ask("lumen headlamp 200").text == before
    again.save_pretrained(tmp_path / "moved")  # saving over a saved one replaces it
    assert Answerer.from_pretrained(moved).ask("lumen headlamp 200").text == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_saving_over_something_else_is_refused(answerer: Answerer, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="something else than a saved Answerer"):
        answerer.save_pretrained(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_pushing_uploads_the_saved_folder(answerer: Answerer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []

    class Hub:
        def __init__(self, token: str | None = None) -> None: ...

        def create_repo(self, repo_id: str, **options: Any) -> None:
            calls.append((repo_id, options))

        def upload_folder(self, repo_id: str, folder_path: Path, **options: Any) -> Any:
            folder_path.rename(tmp_path / "uploaded")
            return type("Commit", (), {"commit_url": "address"})

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert answerer.push_to_hub("me/shop", private=True) == "address"
    assert calls == [("me/shop", {"private": True, "exist_ok": True})]
    monkeypatch.setattr("ragqa.models.fetch_folder", lambda name: tmp_path / "uploaded")
    assert Answerer.from_pretrained("me/shop").ask("lumen headlamp 200").sources[0].title.endswith("LT-200")


def test_a_small_model_of_any_family_answers(demo_index: Path, tiny_model: Path) -> None:
    settings = AnswerSettings(context_tokens=2000, decoding="free", max_new_tokens=8)
    tiny = Answerer.from_pretrained(demo_index, generator=str(tiny_model), settings=settings)
    assert not tiny.ask("lumen headlamp LT-350").abstained


def test_a_catalogue_of_one_product_answers(tmp_path: Path) -> None:
    build_index([{"title": "Blue Kettle", "content": "Boils 1.7 litres."}], tmp_path / "one")
    one = Answerer.from_pretrained(tmp_path / "one")
    assert one.ask("What is the description of Blue Kettle?").text == "Boils 1.7 litres."
    assert one.ask("blue ketle").text == "Boils 1.7 litres."
    assert one.ask("red chainsaw").abstained
