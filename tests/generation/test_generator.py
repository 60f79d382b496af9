from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ragqa import models
from ragqa.generation.generator import Generator
from ragqa.generation.opening import ready_to_read
from ragqa.generation.prompt import Prompt, PromptBuilder, PromptTemplate
from ragqa.generation.sources import Writing
from ragqa.records import Candidate, Product
from ragqa.retrieval.question import parse_question


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
