from pathlib import Path
from typing import Any

import pytest

from ragqa import Answerer, AnswerSettings
from ragqa.answerer import ABSTENTIONS
from ragqa.errors import InputError
from ragqa.generation.prompt import PromptBuilder, cut_at_sentence
from ragqa.index.storage import ProductIndex, open_index
from ragqa.records import Product
from ragqa.retrieval.retriever import Retriever
from ragqa.training.contexts import Context, ContextSettings, make_contexts
from ragqa.training.questions import LabelledQuestion
from ragqa.training.splits import Split, SplitSettings, make_split
from ragqa.training.tokens import IGNORED, Encoder, Tokens, collate, encode_contexts, length_grouped
from tests.conftest import TrigramEmbedder


@pytest.fixture(scope="module")
def index(demo_index: Path) -> ProductIndex:
    return open_index(demo_index)


@pytest.fixture(scope="module")
def retriever(index: ProductIndex) -> Retriever:
    from ragqa import models
    from ragqa.retrieval.embed import SentenceEmbedder

    return Retriever(index.store, index.dense, index.titles, SentenceEmbedder(models.load_embedder()[0]))


@pytest.fixture(scope="module")
def products(index: ProductIndex) -> dict[str, tuple[int, Product]]:
    return {product.id: (row, product) for row, product in enumerate(index.store)}


@pytest.fixture(scope="module")
def split(index: ProductIndex) -> Split:
    return make_split(list(index.store), SplitSettings(train=120, validation=20, test=40))


def contexts(split: Split, products: Any, retriever: Retriever, **settings: Any) -> list[Context]:
    absent = frozenset(split.rows["absent"])
    return make_contexts(split.questions["train"], products, retriever, absent, ContextSettings(**settings))


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


def test_training_and_answering_build_the_same_prompt_token_by_token(demo_index: Path, products: Any) -> None:
    answerer = Answerer.from_pretrained(demo_index, settings=AnswerSettings(min_confidence=0.0))
    generator = answerer.generator
    builder = PromptBuilder(generator.tokenizer, max_tokens=1024)
    encoder = Encoder(builder, 160, dict(ABSTENTIONS))
    for text, id_ in (("lumen headlamp LT-350", "RQ5QHDUNTN"), ("rede maracatu azul", "RQVEMRGX4S")):
        asked = LabelledQuestion(text, "partial", id_, text)
        settings = ContextSettings(gold_fraction=1.0)
        (context,) = make_contexts([asked], products, answerer._retriever, frozenset(), settings)
        trained = encoder.with_context(context)
        assert trained is not None
        answered = generator.tokenizer(answerer.ask(text).prompt, add_special_tokens=False)["input_ids"]
        assert list(trained.ids[: trained.prompt]) == answered
        assert generator.tokenizer.decode(trained.ids[trained.prompt :]) == f" {products[id_][1].description}<|im_end|>"


def test_the_loss_is_on_the_answer_and_its_end_alone(
    tokenizer: Any, split: Split, products: Any, retriever: Retriever
) -> None:
    encoder = Encoder(PromptBuilder(tokenizer, max_tokens=1500), 100, dict(ABSTENTIONS))
    for context in contexts(split, products, retriever)[:40]:
        tokens = encoder.with_context(context)
        assert tokens is not None
        learnt = [label for label in tokens.labels if label != IGNORED]
        text = tokenizer.decode(learnt)
        if context.gold is None:
            assert text == f" {ABSTENTIONS[context.question.language]}<|end|>"
        else:
            assert text.endswith("<|end|>")
            assert context.gold.description.startswith(text.removesuffix("<|end|>")[1:])
            assert len(learnt) <= 100 + 2  # the blank before and the end after it
        assert tokens.ids[: tokens.prompt] == tuple(
            tokens.ids[i] for i, label in enumerate(tokens.labels) if label == IGNORED
        )


def test_a_long_context_never_cuts_the_answer_away(tokenizer: Any, retriever: Retriever, products: Any) -> None:
    long_id = "RQY7AH38GD"
    asked = LabelledQuestion("caldero alto lever machine", "partial", long_id, "caldero alto lever machine")
    settings = ContextSettings(gold_fraction=1.0)
    (context,) = make_contexts([asked], products, retriever, frozenset(), settings)
    for limit in (600, 900, 3000):
        tokens = Encoder(PromptBuilder(tokenizer, max_tokens=limit), 64, dict(ABSTENTIONS)).with_context(context)
        assert tokens is not None
        assert tokens.prompt <= limit
        assert len(tokens.ids) > tokens.prompt + 20


def test_an_example_that_would_train_on_nothing_is_dropped_and_counted(
    tokenizer: Any, split: Split, products: Any, retriever: Retriever
) -> None:
    made = contexts(split, products, retriever)
    empty = Encoder(PromptBuilder(tokenizer), 100, dict.fromkeys(ABSTENTIONS, " "))
    encoded = encode_contexts(made, empty)
    silent = sum(context.gold is None for context in made)
    assert encoded.dropped == {"no answer to train on": silent}
    assert len(encoded.examples) == len(made) - silent
    assert empty.plain(made[0].question, "  ") is None


def test_plain_examples_have_no_context(tokenizer: Any, split: Split, products: Any, retriever: Retriever) -> None:
    context = next(c for c in contexts(split, products, retriever) if c.gold is not None)
    assert context.gold is not None
    tokens = Encoder(PromptBuilder(tokenizer), 500, dict(ABSTENTIONS)).plain(context.question, context.gold.description)
    assert tokens is not None
    prompt = tokenizer.decode(tokens.ids[: tokens.prompt])
    assert "Product: " in prompt
    assert not any(candidate.product.description in prompt for candidate in context.candidates)
    assert tokenizer.decode(tokens.ids[tokens.prompt :]) == f" {context.gold.description}<|end|>"


def test_batches_are_of_like_length_within_their_limit_and_lose_nothing() -> None:
    examples = [Tokens(tuple(range(n)), n // 2) for n in [5, 300, 7, 90, 100, 95, 6, 301, 8, 99]]
    batches = length_grouped(examples, 300, seed=0)
    assert sorted(i for batch in batches for i in batch) == list(range(10))
    for batch in batches:
        longest = max(len(examples[i].ids) for i in batch)
        assert len(batch) == 1 or len(batch) * longest <= 300
    assert batches == length_grouped(examples, 300, seed=0)
    assert batches != length_grouped(examples, 300, seed=1)


def test_a_padded_batch_has_the_loss_of_its_examples_alone(tiny_model: Path, tokenizer: Any) -> None:
    import torch

    from ragqa import models

    model, _, _ = models.load_generator(str(tiny_model), dtype="float32", device="cpu")
    examples = [Tokens(tuple(range(5, 5 + n)), n // 3) for n in (9, 30, 17)]
    with torch.inference_mode():
        together = model(**collate(examples, tokenizer.pad_token_id)).loss
        alone = [model(**collate([example], tokenizer.pad_token_id)).loss for example in examples]
    learnt = torch.tensor([float(len(e.ids) - e.prompt) for e in examples])
    expected = (torch.stack(alone) * learnt).sum() / learnt.sum()
    torch.testing.assert_close(together, expected, atol=1e-5, rtol=1e-5)


def test_cutting_for_training_is_cutting_for_answering(tokenizer: Any, trigram_embedder: TrigramEmbedder) -> None:
    text = "One sentence here. Another sentence there. A third one at the end."
    encoder = Encoder(PromptBuilder(tokenizer), 45, dict(ABSTENTIONS))
    assert encoder.shorten(text) == cut_at_sentence(text, 45) == "One sentence here. Another sentence there."
