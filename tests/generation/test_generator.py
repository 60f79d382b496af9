from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ragqa import models
from ragqa.errors import ModelError, TimeLimitError
from ragqa.generation import limits
from ragqa.generation.choice import Choice
from ragqa.generation.decode import Decoder
from ragqa.generation.generator import Generator, decoder_start
from ragqa.generation.opening import ready_to_read
from ragqa.generation.prompt import Prompt, PromptBuilder, PromptTemplate
from ragqa.generation.sources import Writing, Written
from ragqa.generation.verify import Sampling
from ragqa.records import Candidate, Product
from ragqa.retrieval.question import parse_question
from tests.generation.conftest import asked_by
from tests.generation.test_decode import made


@pytest.fixture(scope="module")
def generator(tiny_model: Path) -> Generator:
    model, tokenizer, _ = models.load_generator(str(tiny_model), device="cpu", dtype="float32")
    return Generator(model, tokenizer)


def prompts(
    generator: Generator, *questions: str, scores: tuple[float, ...] = (0.5, 0.5), exact: int = -1
) -> list[Prompt]:
    builder = PromptBuilder(generator.tokenizer, PromptTemplate(system="S"))
    texts = ["Alpha is first. It is long.", "Beta is second."]
    shown = [
        Candidate(Product(str(i), f"T{i}", text), i, score, score, score, i == exact)
        for i, (text, score) in enumerate(zip(texts, scores, strict=True))
    ]
    return [builder.build(parse_question(q), shown) for q in questions]


def test_a_batch_of_prompts_of_unlike_length_generates_as_one_by_one(generator: Generator) -> None:
    batch = prompts(generator, "short", "a question that is a good deal longer than the other one", "mid length one")
    together = generator.free(batch, Writing(12))
    apart = [generator.free([prompt], Writing(12))[0] for prompt in batch]
    assert [(one.text, one.tokens) for one in together] == [(one.text, one.tokens) for one in apart]
    assert len({draft.text for draft in together}) > 1, "the answers should depend on the prompts"


def test_free_answers_keep_to_their_budget(generator: Generator) -> None:
    long, short = (generator.free(prompts(generator, "q"), Writing(budget))[0].text for budget in (40, 5))
    assert len(short) <= 5 < len(long)  # a token of this tokenizer is a byte


def test_an_extractive_answer_is_the_description_of_the_chosen_source(generator: Generator) -> None:
    draft = generator.extractive(prompts(generator, "q"), 100)[0]
    assert draft.chosen in (0, 1)
    assert draft.text == ["Alpha is first. It is long.", "Beta is second."][draft.chosen]


def test_a_clear_retrieval_score_outweighs_the_model(generator: Generator) -> None:
    assert generator.extractive(prompts(generator, "q", scores=(0.9, 0.1)), 100)[0].chosen == 0
    assert generator.extractive(prompts(generator, "q", scores=(0.1, 0.9)), 100)[0].chosen == 1


def test_between_equal_scores_the_models_first_token_decides(served_model: Path) -> None:
    import torch

    model, tokenizer, _ = models.load_generator(str(served_model), device="cpu", dtype="float32")
    generator, chosen = Generator(model, tokenizer), set()
    whole = prompts(generator, "which one")[0]
    for shown in (whole.shown, whole.shown[::-1]):
        prompt = replace(whole, shown=shown)
        with torch.inference_mode():
            logits = model(torch.tensor([prompt.ids])).logits[0, -1]
        first = [tokenizer(f" {s.description}", add_special_tokens=False)["input_ids"][0] for s in prompt.shown]
        assert first[0] != first[1]
        expected = 0 if logits[first[0]] >= logits[first[1]] else 1
        assert generator.extractive([prompt], 100)[0].chosen == expected
        chosen.add(expected)
    assert chosen == {0, 1}


def test_an_exact_title_is_chosen_whatever_the_model_prefers(generator: Generator) -> None:
    assert generator.extractive(prompts(generator, "q", scores=(0.99, 0.1), exact=1), 100)[0].chosen == 1


def test_an_extractive_answer_is_cut_at_a_sentence_within_its_budget(generator: Generator) -> None:
    draft = generator.extractive(prompts(generator, "q", exact=0), 20)[0]
    assert draft.text == "Alpha is first."


def test_a_models_own_penalties_and_sampling_do_not_leak_into_greedy_answers(tiny_model: Path) -> None:
    from transformers import GenerationConfig

    def answers(config: GenerationConfig | None) -> list[str]:
        model, tokenizer, _ = models.load_generator(str(tiny_model), device="cpu", dtype="float32")
        if config:
            model.generation_config = config
        generator = Generator(model, tokenizer)
        return [draft.text for draft in generator.free(prompts(generator, "q", "another"), Writing(30))]

    odd = GenerationConfig(
        do_sample=True, temperature=3.0, repetition_penalty=5.0, no_repeat_ngram_size=1, eos_token_id=0
    )
    assert answers(odd) == answers(None)


def test_an_adapter_is_merged_where_a_model_is_only_asked(tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    plain, tokenizer, _ = models.load_generator(str(tiny_model), device="cpu", dtype="float32")
    torch.manual_seed(0)
    adapted = get_peft_model(plain, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(str(tmp_path))

    def loaded(dtype: str) -> Any:
        return models.load_generator(str(tiny_model), device="cpu", dtype=dtype, adapter=str(tmp_path))[0]

    ids = torch.tensor([tokenizer("A lamp of brass, 40 cm high.")["input_ids"]])
    for dtype, near in (("float32", 1e-4), ("bfloat16", 0.1)):
        with torch.inference_mode():
            before = loaded(dtype)(ids).logits.float()
            after = ready_to_read(loaded(dtype))(ids).logits.float()
        assert torch.allclose(after, before, atol=near)
        with torch.inference_mode():
            bare = models.load_generator(str(tiny_model), device="cpu", dtype=dtype)[0](ids).logits.float()
        assert not torch.allclose(after, bare, atol=near)


@pytest.fixture(scope="module")
def windowed(generator: Generator) -> Generator:
    """Of a model whose window slides, which cannot be drafted for."""
    vocabulary = len(generator.tokenizer)
    model = made("mistral", sliding_window=16, vocab_size=vocabulary, max_position_embeddings=4096)
    return Generator(model, generator.tokenizer)


def test_a_model_that_cannot_be_drafted_for_writes_each_prompt_as_the_library_does(windowed: Generator) -> None:
    import torch

    batch = prompts(windowed, "short", "a question that is a good deal longer than the other one")
    wanted = []
    for prompt in batch:
        with torch.inference_mode():
            tokens = windowed.model.generate(torch.tensor([prompt.ids]), max_new_tokens=12)[0, len(prompt.ids) :]
        wanted.append(windowed.tokenizer.decode(tokens, skip_special_tokens=True).strip())
    assert wanted[0] != wanted[1]
    assert [one.text for one in windowed.free(batch, Writing(12))] == wanted
    assert list(windowed.stream(batch[0], Writing(12)))[:-1] == wanted[:1]


def test_a_model_that_cannot_be_drafted_for_chooses_by_the_first_token_and_scores_no_text(windowed: Generator) -> None:
    import torch

    batch = prompts(windowed, "which one", "another one that is longer")
    first, padded = windowed._first_logits([batch[0].ids])[0], windowed._first_logits([one.ids for one in batch])[0]
    with torch.inference_mode():
        whole = windowed.model(torch.tensor([batch[0].ids])).logits[0, -1]
    assert torch.allclose(first, whole, atol=1e-3)
    assert torch.allclose(padded, whole, atol=1e-3)
    (written,) = windowed.extractive(prompts(windowed, "q", exact=1), 100, scored=True)
    assert (written.text, written.log_probs) == ("Beta is second.", ())


def test_an_undrafted_answer_whose_source_is_not_sure_is_not_streamed(windowed: Generator) -> None:
    chooser = Generator(windowed.model, windowed.tokenizer, Choice())
    (prompt,), (found,) = asked_by(chooser, "which one")
    *pieces, written = chooser.stream(prompt, Writing(12), found)
    assert isinstance(written, Written)
    assert written.confidence is not None
    assert pieces == [written.text]
    assert list(chooser.stream(prompt, Writing(12), found, least=written.confidence + 0.001)) == [written]


def test_an_undrafted_answer_is_drawn_by_its_seed_alone(windowed: Generator) -> None:
    import torch

    (prompt,) = prompts(windowed, "q")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (windowed.free([prompt], Writing(20, Sampling(1.0, seed)))[0].tokens for seed in (1, 1, 2))
    assert one == same != other
    assert torch.equal(torch.get_rng_state(), before)


def test_an_undrafted_answer_is_shortened_where_the_time_is_over(
    windowed: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    (prompt,) = prompts(windowed, "q")
    clock = SimpleNamespace(monotonic=iter([0.0, 1.0]).__next__)
    monkeypatch.setattr(limits, "time", clock)
    monkeypatch.setattr("ragqa.generation.generator.time", SimpleNamespace(monotonic=lambda: 1.0))
    (written,) = windowed.free([prompt], Writing(20, until=1.0))
    assert (written.shortened, written.passes) == (True, 1)
    clock.monotonic = lambda: 0.0
    monkeypatch.setattr("ragqa.generation.generator.time", clock)
    (whole,) = windowed.free([prompt], Writing(20, until=1000.0))
    assert (whole.shortened, whole.tokens[:1]) == (False, written.tokens)
    assert whole == windowed.free([prompt], Writing(20))[0]


def test_where_the_time_is_over_before_an_answer_was_begun_that_is_said(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = prompts(generator, "first", "second")
    clock = chain([0.0], repeat(1.0))
    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(Decoder, "write", lambda _, answers, sampling: iter(answers))
    with pytest.raises(TimeLimitError, match=r"no answer in the time given .*--max-seconds"):
        generator.free(batch, Writing(12, until=1.0))


def test_an_answer_whose_source_is_not_sure_is_not_streamed(generator: Generator) -> None:
    chooser = Generator(generator.model, generator.tokenizer, Choice())
    (prompt,), (found,) = asked_by(chooser, "which one")
    *pieces, sure = chooser.stream(prompt, Writing(12), found)
    assert isinstance(sure, Written)
    assert sure.confidence is not None
    assert "".join(map(str, pieces)) == sure.text != ""
    (unsure,) = chooser.stream(prompt, Writing(12), found, least=sure.confidence + 0.001)
    assert isinstance(unsure, Written)
    assert (unsure.chosen, unsure.confidence) == (sure.chosen, sure.confidence)


def test_what_might_have_become_a_stop_string_is_streamed_at_the_end(generator: Generator) -> None:
    (prompt,) = prompts(generator, "q")
    text = generator.free([prompt], Writing(12))[0].text
    *pieces, written = generator.stream(prompt, Writing(12, stop=(f"{text[-1]} and never this",)))
    assert isinstance(written, Written)
    assert written.text == "".join(map(str, pieces)) == text
    assert str(pieces[-1]).endswith(text[-1])


def test_a_numbered_answer_is_the_same_without_drafts(generator: Generator) -> None:
    chooser = Generator(generator.model, generator.tokenizer, Choice())
    batch, found = asked_by(chooser, "which one", "another")
    told = [chooser.free(batch, Writing(24, drafted=drafted), found) for drafted in (False, True)]
    assert [(one.chosen, one.tokens) for one in told[0]] == [(one.chosen, one.tokens) for one in told[1]]
    assert {one.drafted for one in told[0]} == {0}


def test_an_encoder_decoder_that_names_no_first_token_is_told() -> None:
    model = SimpleNamespace(generation_config=SimpleNamespace(decoder_start_token_id=None), config=SimpleNamespace())
    with pytest.raises(ModelError, match="names no decoder_start_token_id; choose another generator"):
        decoder_start(model)
