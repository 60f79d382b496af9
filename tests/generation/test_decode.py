"""Every model writes the tokens that it would have written one by one, whatever the drafts say."""

import random
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ragqa.generation.caches import can_roll_back, takes_holes
from ragqa.generation.decode import Answering, Decoder
from ragqa.generation.drafts import Drafter
from ragqa.generation.opening import ready_to_read
from ragqa.generation.prefixes import Prefixes
from ragqa.generation.verify import COLDEST, Sampling, drawn

VOCABULARY = 60
END = 0
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": END,
    "pad_token_id": END,
    "tie_word_embeddings": False,  # else each token is followed by itself
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "mistral": {"num_key_value_heads": 2, "sliding_window": None},
    "gemma": {"num_key_value_heads": 1, "head_dim": 8},
    "gpt2": GPT2,
    "gpt_neox": {},
    "phi": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": {"n_layer": 2, "n_head": 4},
    "falcon": {"new_decoder_architecture": False, "alibi": True},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256, "expansion_ratio": 2},
}


def made(kind: str, **more: Any) -> Any:
    torch.manual_seed(1)
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL | MODELS.get(kind, {}) | more))
    # Random models say the same token for ever: larger weights make them say more.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return model.eval()


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return made(request.param)


@pytest.fixture(scope="module")
def llama() -> Any:
    return made("llama")


def prompts(count: int) -> list[tuple[int, ...]]:
    random_ = random.Random(3)
    return [tuple(random_.randrange(1, VOCABULARY) for _ in range(random_.randrange(5, 30))) for _ in range(count)]


def greedy(model: Any, prompt: tuple[int, ...], most: int) -> list[int]:
    with torch.inference_mode():
        found: list[int] = model.generate(
            torch.tensor([prompt]), max_new_tokens=most, do_sample=False, eos_token_id=END, pad_token_id=END
        )[0, len(prompt) :].tolist()
    return found


def corrupted(tokens: list[int], random_: random.Random) -> list[int]:
    """A text that an answer is nearly a copy of: some tokens other, some left out, some put in."""
    found = []
    for token in tokens:
        kind = random_.random()
        found += [] if kind < 0.1 else [random_.randrange(1, VOCABULARY)] if kind < 0.2 else [token]
    return found


def written(decoder: Decoder, asked: list[Answering], **how: Any) -> list[list[int]]:
    for _ in decoder.write(asked, **how):
        pass
    return [one.tokens for one in asked]


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("count", [1, 5])
def test_answers_are_those_of_greedy_decoding_whatever_is_drafted(model: Any, count: int, apart: bool) -> None:
    random_, most = random.Random(7), 24
    asked = prompts(5)
    wanted = [greedy(model, prompt, most) for prompt in asked]
    assert max(len(set(one)) for one in wanted) > 4, "the answers should be of several tokens"
    asked, wanted = asked[:count], wanted[:count]
    ready_to_read(model)
    decoder = Decoder(model, [END], Prefixes(10**6))
    decoder._apart = apart  # a GPU reads prompts together
    for _ in range(2):  # the second time with what is known of the prompts
        drafters = [Drafter([corrupted(one, random_), [1, 2, 3]], 0.02) for one in wanted]
        answers = [Answering(p, most, d) for p, d in zip(asked, drafters, strict=True)]
        assert written(decoder, answers) == wanted
        if count == 1 or decoder._holes:
            assert sum(one.kept for one in answers) > 0


def test_a_right_draft_costs_one_pass_and_its_end_is_read_with_it(llama: Any) -> None:
    prompt = prompts(1)[0]
    tokens = greedy(llama, prompt, 20)
    asked = Answering(prompt, 20, Drafter([tokens], 0.001))
    assert written(Decoder(llama, [END]), [asked]) == [tokens]
    assert (asked.passes, asked.kept) == (1, 19)  # the last one is the pass's own


def test_without_a_draft_each_token_is_a_pass(llama: Any) -> None:
    asked = Answering(prompts(1)[0], 12)
    assert len(written(Decoder(llama, [END]), [asked])[0]) == asked.passes == 12


def test_log_probabilities_are_the_models(llama: Any) -> None:
    prompt = prompts(1)[0]
    tokens = greedy(llama, prompt, 10)
    asked = Answering(prompt, 10, Drafter([tokens[:4]], 0.001))
    written(Decoder(llama, [END]), [asked])
    with torch.inference_mode():
        told = llama(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    wanted = told.gather(1, torch.tensor(tokens)[:, None])[:, 0]
    assert asked.log_probs == pytest.approx(wanted.tolist(), abs=1e-4)
    assert Decoder(llama, [END]).log_probs(prompt, tokens) == pytest.approx(wanted.tolist(), abs=1e-4)


def test_the_end_ends_an_answer(llama: Any) -> None:
    prompt = prompts(1)[0]
    tokens = greedy(llama, prompt, 10)
    end = tokens[4]
    before = tokens.index(end)
    assert written(Decoder(llama, [end]), [Answering(prompt, 10, Drafter([tokens], 0.001))]) == [tokens[: before + 1]]


def test_a_first_token_may_be_decided(llama: Any) -> None:
    prompt = prompts(1)[0]
    rest = greedy(llama, (*prompt, 7), 8)
    for draft in ([], [7, *rest], [8, *rest]):
        asked = Answering(prompt, 9, Drafter([draft], 0.001), first=lambda logits: 7 if len(logits) else 0)
        assert written(Decoder(llama, [END]), [asked]) == [[7, *rest]]


def test_first_logits_are_the_models_with_and_without_what_is_known(llama: Any) -> None:
    decoder = Decoder(llama, [END], Prefixes(10**6))
    asked = [*prompts(3), (*prompts(1)[0], 5, 6)]
    with torch.inference_mode():
        wanted = torch.stack([llama(torch.tensor([prompt])).logits[0, -1] for prompt in asked])
    for apart in (True, False, True):
        decoder._apart = apart
        assert torch.allclose(decoder.first_logits(asked), wanted, atol=1e-4)


def test_sampling_without_and_with_a_draft_draws_from_the_same_distribution(llama: Any) -> None:
    """Frequencies of the first two tokens over many seeds, by a two-sample chi-squared test."""
    prompt, most, count = prompts(1)[0], 2, 400
    draft = greedy(llama, prompt, most)

    def counts(drafter: Any) -> torch.Tensor:
        seen = torch.zeros(VOCABULARY, VOCABULARY)
        decoder = Decoder(llama, [VOCABULARY + 1], Prefixes(10**6))
        for seed in range(count):
            asked = Answering(prompt, most, drafter())
            written(decoder, [asked], sampling=Sampling(2.0, seed))
            seen[asked.tokens[0], asked.tokens[1]] += 1
        return seen

    plain, drafted = counts(lambda: None), counts(lambda: Drafter([draft], 0.001))
    for one, other in ((plain.sum(1), drafted.sum(1)), (plain.sum(0), drafted.sum(0))):
        frequent = one + other >= 10
        a, b = one[frequent], other[frequent]
        chi_squared = float(((a - b) ** 2 / (a + b)).sum())
        freedom = int(frequent.sum())
        assert freedom > 2
        assert chi_squared < freedom + 4 * (2 * freedom) ** 0.5 + 4


def test_an_answer_that_is_ended_from_outside_takes_no_more_passes(llama: Any) -> None:
    asked = [Answering(prompt, 20) for prompt in prompts(3)]
    for one in Decoder(llama, [END]).write(asked):
        one.done = one.done or (one is asked[1] and len(one.tokens) == 4)
    assert (asked[1].passes, len(asked[1].tokens)) == (4, 4)
    assert [one.tokens for one in asked[::2]] == [greedy(llama, prompts(3)[row], 20) for row in (0, 2)]


def test_an_answer_that_is_given_up_leaves_nothing(llama: Any) -> None:
    import gc
    import weakref

    decoder = Decoder(llama, [END])
    caches: list[Any] = []
    begin = decoder._begin

    def watched(*given: Any) -> Any:
        read = begin(*given)
        caches.append(weakref.ref(read.cache))
        return read

    decoder._begin = watched  # type: ignore[method-assign]
    pieces = decoder.write([Answering(prompts(1)[0], 50)])
    next(iter(pieces))
    assert caches[0]() is not None
    pieces.close()  # type: ignore[attr-defined]
    gc.collect()
    assert caches[0]() is None


def test_a_window_that_slides_is_not_rolled_back_and_one_that_does_not_is() -> None:
    narrow, wide = made("mistral", sliding_window=16), made("mistral", sliding_window=200)
    assert not can_roll_back(narrow, 60)
    assert can_roll_back(wide, 60)
    asked = prompts(3)
    wanted = [greedy(wide, prompt, 20) for prompt in asked]
    assert (
        written(
            Decoder(wide, [END]), [Answering(p, 20, Drafter([w], 0.02)) for p, w in zip(asked, wanted, strict=True)]
        )
        == wanted
    )


@pytest.mark.parametrize("kind", ["mamba", "recurrent_gemma", "rwkv"])
def test_a_model_without_such_a_cache_is_told(kind: str) -> None:
    config = AutoConfig.for_model(kind, **dict.fromkeys(("hidden_size", "vocab_size"), 32), num_hidden_layers=2)
    assert not can_roll_back(AutoModelForCausalLM.from_config(config), 60)


def test_positions_by_the_place_in_the_cache_are_found_out() -> None:
    assert takes_holes(made("llama"))
    assert not takes_holes(made("mpt"))


def test_the_coldest_temperature_draws_the_likeliest_token() -> None:
    shares = (torch.tensor([[80.0, -80.0, 79.9]]) / COLDEST).softmax(-1)
    assert drawn(shares, (), None, torch.Generator().manual_seed(0)) == [0]
