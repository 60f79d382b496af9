from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ragqa import Answerer, AnswerSettings
from ragqa.answerer import ABSTENTIONS
from ragqa.errors import InputError, ModelError
from ragqa.generation.adapter import TEMPLATES, Adapter, Mode
from ragqa.generation.choice import Choice
from ragqa.generation.prompt import NUMBERED, PromptBuilder, cut_at_sentence
from ragqa.generation.writer import Writer
from ragqa.index.storage import ProductIndex, open_index
from ragqa.records import Product
from ragqa.retrieval.retriever import Retriever
from ragqa.training.contexts import Context, ContextSettings, ask_more, make_contexts
from ragqa.training.questions import LabelledQuestion, QuestionMaker
from ragqa.training.splits import Split, SplitSettings, make_split
from ragqa.training.tokens import IGNORED, Encoder, encode
from tests.conftest import TrigramEmbedder


@pytest.fixture(scope="module")
def index(demo_index: Path) -> ProductIndex:
    return open_index(demo_index)


@pytest.fixture(scope="module")
def retriever(index: ProductIndex) -> Retriever:
    from ragqa import models
    from ragqa.retrieval.embed import SentenceEmbedder

    return index.retriever(SentenceEmbedder(models.load_embedder()[0]))


@pytest.fixture(scope="module")
def products(index: ProductIndex) -> dict[str, tuple[int, Product]]:
    return {product.id: (row, product) for row, product in enumerate(index.store)}


@pytest.fixture(scope="module")
def split(index: ProductIndex) -> Split:
    return make_split(list(index.store), SplitSettings(train=120, validation=20, test=40))


def contexts(split: Split, products: Any, retriever: Retriever, **settings: Any) -> list[Context]:
    absent = frozenset(split.rows["absent"])
    return list(make_contexts(split.questions["train"], products, retriever, absent, ContextSettings(**settings)))


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def test_the_right_product_is_among_the_candidates_as_often_as_asked_for(
    split: Split, products: Any, retriever: Retriever
) -> None:
    for fraction in (0.0, 0.5, 1.0):
        made = contexts(split, products, retriever, gold_fraction=fraction)
        asked = [c for c in made if c.asked.product_id is not None]
        held = sum(c.gold is not None for c in asked) / len(asked)
        assert held == pytest.approx(fraction, abs=0.12)
        for context in made:
            ids = [candidate.product.id for candidate in context.candidates]
            assert len(ids) == len(set(ids)) == 3
            assert (context.asked.product_id in ids) is (context.gold is not None)


def test_products_held_out_are_never_candidates(split: Split, products: Any, retriever: Retriever) -> None:
    absent = set(split.rows["absent"])
    made = contexts(split, products, retriever)
    assert any(context.asked.kind == "absent" for context in made)
    assert not any(candidate.row in absent for context in made for candidate in context.candidates)


def test_the_retrievers_order_is_kept_and_a_missed_product_takes_the_last_place(
    split: Split, products: Any, retriever: Retriever
) -> None:
    for context in contexts(split, products, retriever, gold_fraction=1.0):
        scores = [c.score for c in context.candidates]
        if context.rank is not None and context.rank < 3:
            assert scores == sorted(scores, reverse=True)
        elif context.gold is not None:
            assert context.candidates[-1].product.id == context.gold.id


def test_shuffled_contexts_hold_the_same_candidates(split: Split, products: Any, retriever: Retriever) -> None:
    kept, mixed = (contexts(split, products, retriever, order=order) for order in ("retriever", "shuffled"))
    assert [{c.row for c in a.candidates} for a in kept] == [{c.row for c in b.candidates} for b in mixed]
    assert [a.candidates for a in kept] != [b.candidates for b in mixed]
    assert mixed == contexts(split, products, retriever, order="shuffled")


def test_settings_out_of_range_are_told_all_at_once() -> None:
    with pytest.raises(InputError, match=r"products must be .*; gold_fraction must be .*; order must be"):
        ContextSettings(products=0, gold_fraction=2, order="odd")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["plain", "retrieval"])
def test_training_and_answering_build_the_same_prompt_token_by_token(
    mode: Mode, demo_index: Path, products: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answerer = Answerer.from_pretrained(demo_index, settings=AnswerSettings(min_confidence=0.0, max_new_tokens=4))
    base = {"name": "", "weights_sha256": "", "config_sha256": ""}
    answerer._writer = Writer(Adapter(Path(), mode, 3, 1024, 160, Choice(), merged=True, base=base, files={}))
    generator = answerer.generator
    builder = PromptBuilder(generator.tokenizer, TEMPLATES[mode], max_tokens=1024)
    encoder = Encoder(builder, 160, ABSTENTIONS)
    for text, id_ in (("lumen headlamp LT-350", "RQ5QHDUNTN"), ("rede maracatu azul", "RQVEMRGX4S")):
        asked = LabelledQuestion(text, "partial", id_, text)
        settings = ContextSettings(gold_fraction=1.0)
        (context,) = make_contexts([asked], products, answerer.retriever, frozenset(), settings)
        product = products[id_][1]
        trained = encoder.with_context(context) if mode == "retrieval" else encoder.plain(context.question, product)
        assert trained is not None
        answered = generator.tokenizer(answerer.ask(text).prompt, add_special_tokens=False)["input_ids"]
        assert list(trained.ids[: trained.prompt]) == answered
        number = f"{[c.product.id for c in context.candidates].index(id_) + 1}]" if mode == "retrieval" else ""
        target = generator.tokenizer.decode(trained.ids[trained.prompt :])
        assert target == f"{number} {product.description}<|im_end|>"


def test_the_loss_is_on_the_answer_and_its_end_alone(
    tokenizer: Any, split: Split, products: Any, retriever: Retriever
) -> None:
    encoder = Encoder(PromptBuilder(tokenizer, NUMBERED, max_tokens=1500), 100, ABSTENTIONS)
    for context in contexts(split, products, retriever)[:40]:
        tokens = encoder.with_context(context)
        assert tokens is not None
        learnt = [label for label in tokens.labels if label != IGNORED]
        text = tokenizer.decode(learnt)
        if context.gold is None:
            assert text == f"0] {ABSTENTIONS[context.question.language]}<|end|>"
        else:
            place = context.candidates.index(next(c for c in context.candidates if c.product.id == context.gold.id))
            assert text.startswith(f"{place + 1}] ")
            assert text.endswith("<|end|>")
            assert context.gold.description.startswith(text.removesuffix("<|end|>")[3:])
            assert len(learnt) <= 100 + 4  # the number, its bracket, the blank, and the end
        assert tokens.numbered
        assert tokens.ids[: tokens.prompt] == tuple(
            tokens.ids[i] for i, label in enumerate(tokens.labels) if label == IGNORED
        )


def test_a_long_context_never_cuts_the_answer_away(tokenizer: Any, retriever: Retriever, products: Any) -> None:
    long_id = "RQY7AH38GD"
    asked = LabelledQuestion("caldero alto lever machine", "partial", long_id, "caldero alto lever machine")
    settings = ContextSettings(gold_fraction=1.0)
    (context,) = make_contexts([asked], products, retriever, frozenset(), settings)
    for limit in (600, 900, 3000):
        tokens = Encoder(PromptBuilder(tokenizer, max_tokens=limit), 64, ABSTENTIONS).with_context(context)
        assert tokens is not None
        assert tokens.prompt <= limit
        assert len(tokens.ids) > tokens.prompt + 20


def test_an_example_that_would_train_on_nothing_is_dropped_and_counted(
    tokenizer: Any, split: Split, products: Any, retriever: Retriever
) -> None:
    made = contexts(split, products, retriever)
    empty = Encoder(PromptBuilder(tokenizer), 100, dict.fromkeys(ABSTENTIONS, " "))
    encoded = encode(made, empty)
    silent = sum(context.gold is None for context in made)
    assert encoded.dropped == {"no answer to train on": silent}
    assert len(encoded.examples) == len(made) - silent
    assert empty.plain(made[0].question, None) is None


def test_plain_examples_have_no_context(tokenizer: Any, split: Split, products: Any, retriever: Retriever) -> None:
    context = next(c for c in contexts(split, products, retriever) if c.gold is not None)
    assert context.gold is not None
    tokens = Encoder(PromptBuilder(tokenizer), 500, ABSTENTIONS).plain(context.question, context.gold)
    assert tokens is not None
    prompt = tokenizer.decode(tokens.ids[: tokens.prompt])
    assert "Product: " in prompt
    assert not any(candidate.product.description in prompt for candidate in context.candidates)
    assert tokenizer.decode(tokens.ids[tokens.prompt :]) == f" {context.gold.description}<|end|>"


def test_cutting_for_training_is_cutting_for_answering(tokenizer: Any, trigram_embedder: TrigramEmbedder) -> None:
    text = "One sentence here. Another sentence there. A third one at the end."
    encoder = Encoder(PromptBuilder(tokenizer), 45, ABSTENTIONS)
    assert encoder.shorten(text) == cut_at_sentence(text, 45) == "One sentence here. Another sentence there."


def test_more_questions_are_asked_of_the_same_context(
    index: ProductIndex, split: Split, products: Any, retriever: Retriever
) -> None:
    base = contexts(split, products, retriever)
    train = frozenset(split.rows["train"])
    maker = QuestionMaker(list(index.store))
    taken = {question.text for name in ("validation", "test_seen", "test_unseen") for question in split.questions[name]}
    made = list(ask_more(base, maker, train, 3, 2, taken, 0))
    assert [c for c in made if c in base] == base
    texts = [c.asked.text for c in made if c not in base]
    assert len(set(texts)) == len(texts)
    assert not taken & set(texts)
    more: list[Context] = []
    for context in [*made, base[0]]:
        if context in base:
            assert [c.answered for c in more] == [True, True, False, False][: len(more)]
            before, more = context, []
            continue
        more.append(context)
        assert context.candidates == before.candidates
        assert context.gold is not None
        assert context.rank is not None
        assert context.candidates[context.rank].product.id == context.gold.id == context.asked.product_id
        assert context.candidates[context.rank].row in train
        others = sum(c.row in train and c.product.id != before.asked.product_id for c in before.candidates)
        if len(more) <= others:
            assert context.gold.id != before.asked.product_id, "the other candidates come first"
    assert len(made) > 3 * len(base)
    assert made == list(ask_more(base, maker, train, 3, 2, taken, 0))


def test_of_some_questions_only_the_number_is_learnt(
    tokenizer: Any, split: Split, products: Any, retriever: Retriever
) -> None:
    context = next(c for c in contexts(split, products, retriever) if c.gold is not None)
    encoder = Encoder(PromptBuilder(tokenizer, NUMBERED, max_tokens=1500), 100, ABSTENTIONS)
    whole, number = encoder.with_context(context), encoder.with_context(replace(context, answered=False))
    assert whole is not None
    assert number is not None
    assert number.ids == whole.ids[: whole.prompt + 1]
    assert number.numbered
    assert encode([replace(context, answered=False)], encoder, {}).examples == []


def test_a_product_that_the_retriever_misses_is_put_last(
    split: Split, products: Any, retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = next(q for q in split.questions["train"] if q.product_id is not None)
    row, product = products[asked.product_id]
    retrieve = retriever.retrieve
    monkeypatch.setattr(
        retriever, "retrieve", lambda texts, top_k, without: retrieve(texts, top_k=top_k, without=without | {row})
    )
    (context,) = make_contexts([asked], products, retriever, frozenset(), ContextSettings(gold_fraction=1.0))
    assert context.rank is None
    assert context.gold == product
    assert [candidate.row == row for candidate in context.candidates] == [False, False, True]


def test_a_tokenizer_without_an_end_of_text_is_refused(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    endless: Any = AutoTokenizer.from_pretrained(tiny_model)
    endless.eos_token = None
    with pytest.raises(ModelError, match="its tokenizer has no end-of-text token, so the end of an answer cannot be"):
        Encoder(PromptBuilder(endless, NUMBERED, 1000), 10, ABSTENTIONS)
