"""Against a server of completions on this machine."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import T5Config

from ragqa import Answerer, models
from ragqa.cli import main
from ragqa.errors import ModelError, ServerError, TimeLimitError
from ragqa.generation.choice import Choice
from ragqa.generation.completions import Completions, _likeliest
from ragqa.generation.generator import Generator
from ragqa.generation.prompt import NUMBERED, Prompt
from ragqa.generation.remote import RemoteGenerator, connect
from ragqa.generation.server import Server
from ragqa.generation.sources import Writing, Written
from ragqa.generation.verify import Sampling
from ragqa.progress import show_progress
from tests.generation.conftest import TEXTS, asked_by, told_by

QUESTIONS = ["short", "a question that is a good deal longer than the other one", "mid length one", "Which one, então?"]
QUESTION = "What is the description of Marisol flamenco skirt in red?"


def left(server_url: str, before: int) -> int:
    """How many clients left in the middle, as soon as one more did."""
    until = time.monotonic() + 5
    while (now := told_by(server_url, "state").get("left", 0)) == before and time.monotonic() < until:
        time.sleep(0.02)
    return int(now)


def test_free_answers_are_the_local_generators_in_their_order(
    generator: Generator, remote: Callable[..., RemoteGenerator], server_url: str
) -> None:
    prompts, _ = asked_by(generator, *QUESTIONS, *(f"{letter} {letter * 9}" for letter in "kxqz"))
    local = [written.text for written in generator.free(prompts, Writing(24))]
    assert len(set(local)) > 2, "the answers should depend on the prompts"
    assert [written.text for written in remote("tiny-jumbled").free(prompts, Writing(24))] == local
    assert 1 < told_by(server_url, "state")["at once"] <= 8
    assert [remote().free([prompt], Writing(24))[0].text for prompt in prompts[:2]] == local[:2]


def test_the_prompt_is_sent_as_it_is_and_decoding_is_plain(
    remote: Callable[..., RemoteGenerator], server_url: str
) -> None:
    generator = remote("tiny")
    (prompt,), _ = asked_by(generator, "as it is")
    generator.free([prompt], Writing(5))
    greedy = told_by(server_url, "asked")[-1]
    generator.free([prompt], Writing(5, Sampling(0.7, 3), ("\n", "##")))
    drawn = told_by(server_url, "asked")[-1]
    plain = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "repeat_penalty": 1.0}
    sent = {"model": "tiny", "prompt": prompt.text, "max_tokens": 5, "key": None}
    assert greedy == {**sent, **plain, "temperature": 0.0}
    assert drawn == {**sent, **plain, "temperature": 0.7, "seed": 3, "stop": ["\n", "##"]}


def test_streamed_answers_are_the_same(generator: Generator, remote: Callable[..., RemoteGenerator]) -> None:
    prompts, _ = asked_by(generator, *QUESTIONS)
    for name in ("tiny", "tiny-whole"):
        for prompt, local in zip(prompts, generator.free(prompts, Writing(24)), strict=True):
            *pieces, written = remote(name).stream(prompt, Writing(24))
            assert written == Written(local.text, None)
            assert "".join(map(str, pieces)) == local.text


def test_no_stop_string_is_ever_produced(generator: Generator, remote: Callable[..., RemoteGenerator]) -> None:
    (prompt,), _ = asked_by(generator, "until when")
    whole = generator.free([prompt], Writing(24))[0].text
    stop = whole[len(whole) // 2 :][:2]
    local = generator.free([prompt], Writing(24, stop=("never", stop)))[0].text
    assert local == whole[: whole.index(stop)].rstrip()
    for name in ("tiny", "tiny-deaf"):
        assert remote(name).free([prompt], Writing(24, stop=("never", stop)))[0].text == local
        *pieces, written = remote(name).stream(prompt, Writing(24, stop=("never", stop)))
        assert "".join(map(str, pieces)) == local == getattr(written, "text", None)


def test_the_extractive_source_is_the_one_the_local_generator_chooses(
    generator: Generator, remote: Callable[..., RemoteGenerator]
) -> None:
    chosen = set()
    for texts in (TEXTS, TEXTS[::-1], TEXTS[1:] + TEXTS[:1]):
        prompts, found = asked_by(generator, *QUESTIONS, texts=texts)
        local = generator.extractive(prompts, 8, found)
        chosen |= {written.chosen for written in local}
        for name in ("tiny-all", "tiny-ids", "tiny-chat"):
            assert remote(name).extractive(prompts, 8, found, scored=True) == local
    assert len(chosen) > 1, "the model's word should matter"
    prompts, found = asked_by(generator, *QUESTIONS, exact=2)
    assert [written.chosen for written in remote("nobody asks").extractive(prompts, 8, found)] == [2] * 4


@pytest.mark.parametrize("name", ["tiny-all", "tiny-ids", "tiny-chat"])
def test_an_adapters_source_is_chosen_by_the_numbers_probabilities(
    name: str, chooser: Generator, remote: Callable[..., RemoteGenerator]
) -> None:
    asks = remote(name, Choice())
    prompts, found = asked_by(chooser, *QUESTIONS)
    for expected, told in zip(chooser.number_log_probs(prompts), asks.number_log_probs(prompts), strict=True):
        assert told == pytest.approx(expected, abs=1e-4)
    whole = zip(chooser.free(prompts, Writing(24), found), asks.free(prompts, Writing(24), found), strict=True)
    parts = zip(chooser.extractive(prompts, 8, found), asks.extractive(prompts, 8, found), strict=True)
    for one, same in [*whole, *parts]:
        assert (same.text, same.chosen) == (one.text, one.chosen)
        assert same.confidence == pytest.approx(one.confidence, abs=1e-4)
        assert not same.text.startswith("]")


def test_the_number_of_the_source_goes_before_what_is_written(
    chooser: Generator, remote: Callable[..., RemoteGenerator], server_url: str
) -> None:
    (prompt,), (found,) = asked_by(chooser, "which number")
    asks = remote("tiny-all", Choice())
    *pieces, written = asks.stream(prompt, Writing(24), found)
    (local,) = chooser.free([prompt], Writing(24), [found])
    assert local.chosen is not None
    assert isinstance(written, Written)
    assert (written.chosen, written.text, "".join(map(str, pieces))) == (local.chosen, local.text, local.text)
    first, then = told_by(server_url, "asked")[-2:]
    assert (first["prompt"], first["max_tokens"], first["logprobs"]) == (prompt.text, 1, 20)
    assert (then["prompt"], then["max_tokens"]) == (f"{prompt.text}{local.chosen + 1}", 26)
    assert "stream" not in first
    assert then["stream"] is True


def test_where_the_choice_is_not_sure_enough_nothing_is_written(
    chooser: Generator, remote: Callable[..., RemoteGenerator], server_url: str
) -> None:
    (prompt,), (found,) = asked_by(chooser, "not sure")
    assert [type(one) for one in remote("tiny-all", Choice()).stream(prompt, Writing(24), found, 0.999)] == [Written]
    assert told_by(server_url, "asked")[-1]["max_tokens"] == 1


def test_a_token_that_is_not_told_is_half_as_likely_as_the_last_that_is(remote: Callable[..., RemoteGenerator]) -> None:
    generator = remote()
    names = generator.tokenizer.convert_tokens_to_ids(["A", "B", "C"])
    told: dict[str | int, float] = {"A": -1.0, names[1]: -2.0, "x": -3.0}
    assert [generator._log_prob(told, token) for token in names] == [-1.0, -2.0, pytest.approx(-3.693, abs=1e-3)]


def test_fewer_log_probabilities_will_do(remote: Callable[..., RemoteGenerator], server_url: str) -> None:
    generator = remote("tiny-five", Choice())
    prompts, _ = asked_by(generator, *QUESTIONS)
    assert [len(told) for told in generator.number_log_probs(prompts)] == [4] * 4
    assert told_by(server_url, "asked")[-1]["logprobs"] == 5
    assert generator.number_log_probs(prompts[:1])
    assert [one["logprobs"] for one in told_by(server_url, "asked")[-2:]] == [5, 5]


@pytest.mark.parametrize("name", ["tiny-silent", "tiny-strict"])
def test_without_log_probabilities_the_retriever_chooses_and_it_is_said_once(
    name: str, chooser: Generator, remote: Callable[..., RemoteGenerator], capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, found = asked_by(chooser, *QUESTIONS[:2])
    expected = [
        Choice().pick([s.candidate for s in prompt.shown], one.question.subject, one.confidence)
        for prompt, one in zip(prompts, found, strict=True)
    ]
    show_progress(True)
    try:
        asks = remote(name, Choice())
        for _ in range(2):
            assert [(told.chosen, told.confidence) for told in asks.extractive(prompts, 8, found)] == expected
            assert [(told.chosen, told.confidence) for told in asks.free(prompts, Writing(5), found)] == expected
    finally:
        show_progress(False)
    assert capsys.readouterr().err.count("tells no log-probabilities") == 1
    plain = remote(name)
    prompts, found = asked_by(plain, *QUESTIONS[:2])
    assert [told.chosen for told in plain.extractive(prompts, 8, found)] == [0, 0]
    with pytest.raises(ServerError, match="tells no log-probabilities"):
        remote(name, Choice()).number_log_probs(prompts)


def test_a_server_that_refuses_names_it_does_not_know_is_asked_without_them(
    generator: Generator, remote: Callable[..., RemoteGenerator], server_url: str
) -> None:
    (prompt,), _ = asked_by(generator, "strictly")
    asks = remote("tiny-strict")
    local = generator.free([prompt], Writing(12))[0].text
    assert asks.free([prompt], Writing(12))[0].text == local
    assert asks.free([prompt], Writing(12))[0].text == local
    last = told_by(server_url, "asked")[-2:]
    assert last[0] == last[1]
    assert {"top_k", "min_p", "repetition_penalty", "repeat_penalty"}.isdisjoint(last[0])
    assert list(remote("tiny-strict").stream(prompt, Writing(12)))[-1] == Written(local, None)


def test_closing_a_stream_ends_the_servers_work(
    generator: Generator, remote: Callable[..., RemoteGenerator], server_url: str
) -> None:
    (prompt,), _ = asked_by(generator, "a long one")
    pieces = remote("tiny-steady").stream(prompt, Writing(2000))
    for _ in range(3):
        next(pieces)
    before = told_by(server_url, "state").get("left", 0)
    pieces.close()  # type: ignore[attr-defined]
    assert left(server_url, before) == before + 1
    state = told_by(server_url, "state")
    assert state["tokens"] < 1500
    time.sleep(0.1)
    assert told_by(server_url, "state")["tokens"] == state["tokens"]


def test_a_beginning_that_the_server_writes_itself_is_not_sent(served_model: Path, server_url: str) -> None:
    from tokenizers.processors import TemplateProcessing

    completions = Completions(Server(server_url, "tiny"))
    tokenizer: Any = models.load_tokenizer(models.find_model(str(served_model)))
    tokenizer.bos_token = "<|end|>"
    prompt = Prompt("<|end|>Hello", (), ())
    RemoteGenerator(completions, tokenizer).free([prompt], Writing(1))
    assert told_by(server_url, "asked")[-1]["prompt"] == "<|end|>Hello", "this tokenizer writes none itself"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", tokenizer.bos_token_id)]
    )
    RemoteGenerator(completions, tokenizer).free([prompt], Writing(1))
    assert told_by(server_url, "asked")[-1]["prompt"] == "Hello"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"top_logprobs": [{"1": -0.5, " 2": -1.0}]}, {"1": -0.5, " 2": -1.0}),
        ({"top_logprobs": [{"token_id:16": -0.5}, {"later": -1.0}]}, {16: -0.5}),
        ({"content": [{"top_logprobs": [{"id": 16, "token": "1", "logprob": -0.5}]}]}, {16: -0.5, "1": -0.5}),
        ({"content": [{"top_logprobs": [{"token": "1", "logprob": -0.5}]}]}, {"1": -0.5}),
        ({"top_logprobs": [{"1": float("nan"), "2": float("-inf"), "3": -1}]}, {"3": -1.0}),
        (None, {}), ([], {}), ("content", {}), ({}, {}), ({"content": []}, {}), ({"content": None}, {}),
        ({"content": [{"top_logprobs": [1]}]}, {}), ({"top_logprobs": None}, {}), ({"top_logprobs": [None]}, {}),
        ({"top_logprobs": [{"1": "x"}]}, {}),
    ],
)  # fmt: skip
def test_log_probabilities_are_read_in_both_forms(told: Any, expected: dict[str | int, float]) -> None:
    assert _likeliest(told) == expected


def test_only_the_tokenizer_is_needed(server_url: str, served_model: Path, tmp_path: Path) -> None:
    light = Path(shutil.copytree(served_model, tmp_path / "light"))
    (light / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no .safetensors weights"):
        models.find_model(str(light))
    asks, _ = connect(Server(server_url, "tiny"), str(light))
    assert asks.free(asked_by(asks, "light")[0], Writing(5))


def test_an_answerer_asks_a_server_as_it_asks_its_own_generator(
    demo_index: Path, server_url: str, served_model: Path
) -> None:
    own = Answerer.from_pretrained(demo_index, generator=str(served_model), device="cpu", dtype="float32")
    asks = Answerer.from_pretrained(
        demo_index,
        generator=str(served_model),
        device="cpu",
        dtype="float32",
        server=server_url,
        server_model="tiny-all",
    )
    for decoding in ("extractive", "free"):
        local, told = (one.ask(QUESTION, decoding=decoding, max_new_tokens=40) for one in (own, asks))
        assert (told.text, told.sources, told.prompt) == (local.text, local.sources, local.prompt)
        with asks.stream(QUESTION, decoding=decoding, max_new_tokens=40) as stream:
            assert "".join(stream) == local.text
    assert told_by(server_url, "asked")[-1]["prompt"] == asks.ask(QUESTION, decoding="free", max_new_tokens=2).prompt


def test_closing_an_answers_stream_ends_the_servers_work(demo_index: Path, server_url: str, served_model: Path) -> None:
    asks = Answerer.from_pretrained(
        demo_index, generator=str(served_model), server=server_url, server_model="tiny-steady"
    )
    before = told_by(server_url, "state").get("left", 0)
    with asks.stream(QUESTION, decoding="free", max_new_tokens=1000) as stream:
        next(stream)
    assert left(server_url, before) == before + 1


@pytest.mark.parametrize("named", ["generator", "adapter"])
def test_a_merged_model_is_asked_as_it_was_trained(
    named: str, demo_index: Path, server_url: str, served_model: Path, tmp_path: Path
) -> None:
    merged = Path(shutil.copytree(served_model, tmp_path / "merged"))
    (merged / "model.safetensors").unlink()  # as in an exported folder, whose weights the server has
    manifest = {
        "kind": "ragqa merged model",
        "format_version": 2,
        "mode": "retrieval",
        "context": {"products": 2, "tokens": 900, "max_new_tokens": 20},
        "choice": Choice().to_dict(),
        "base": {"name": "somewhere/else", "weights_sha256": "0" * 64, "config_sha256": "0" * 64},
        "prompt": {"fingerprint": NUMBERED.fingerprint(), "version": NUMBERED.version},
    }
    (merged / "manifest.json").write_text(json.dumps(manifest))
    given: dict[str, Any] = {named: str(merged)}
    asks = Answerer.from_pretrained(demo_index, server=server_url, server_model="tiny-chat", **given)
    answer = asks.ask(QUESTION, decoding="free", min_confidence=0.0)
    first, then = told_by(server_url, "asked")[-2:]
    assert first["prompt"] == answer.prompt
    assert answer.prompt.endswith("Answer: [")
    assert then["prompt"] in (f"{answer.prompt}1", f"{answer.prompt}2")
    assert then["max_tokens"] == 22


def test_ask_takes_a_server(
    demo_index: Path, server_url: str, served_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["ask", str(demo_index), QUESTION, "--generator", str(served_model), "--json", "-q"]
    assert main([*asked, "--server", server_url, "--server-model", "tiny-all"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["abstained"], answer["text"][:10]) == (False, answer["sources"][0]["description"][:10])
    assert main([*asked, "--server", server_url, "--server-model", "nothing", "--server-retries", "0"]) == 2
    assert capsys.readouterr().err == (
        f"error: {server_url}/completions: answered 404 (The model `nothing` does not exist.): it has 'tiny', 'tiny-all', "
        "not 'nothing'; name one with --server-model\n"
    )
    assert main([*asked, "--server-timeout", "5"]) == 2
    assert capsys.readouterr().err == "error: --server-timeout: there is no server; name one with --server\n"
    assert main([*asked, "--server", "localhost:8000"]) == 2
    assert "no server's address; give one such as http://localhost:8000/v1" in capsys.readouterr().err


def silent(served_model: Path, **does: Any) -> RemoteGenerator:
    """One whose server is never reached."""
    tokenizer = models.load_tokenizer(models.find_model(str(served_model)))
    completions: Any = SimpleNamespace(url="http://127.0.0.1:9/v1", model="tiny", **does)
    return RemoteGenerator(completions, tokenizer)


def test_what_a_server_wrote_in_time_is_given_where_it_fails_after_it(served_model: Path) -> None:
    def stream(pieces: list[str]) -> Iterator[str]:
        yield from pieces
        raise ServerError("the server broke off")

    def asks(*pieces: str) -> RemoteGenerator:
        return silent(served_model, stream=lambda body, until: stream(list(pieces)))

    prompt, over = Prompt("p", (), ()), Writing(12, stop=("is never",), until=0.0)
    assert list(asks("Alpha", " is").stream(prompt, over)) == [
        "Alpha",
        " is",
        Written("Alpha is", None, shortened=True),
    ]
    with pytest.raises(TimeLimitError, match="no answer in the time given"):
        list(asks().stream(prompt, over))
    with pytest.raises(ServerError, match="the server broke off"):
        list(asks("Alpha").stream(prompt, Writing(12)))


def test_a_part_of_a_character_is_known_by_its_number_alone(served_model: Path) -> None:
    generator = silent(served_model)
    token = generator.tokenizer.convert_tokens_to_ids("Ã")  # a byte that only begins a character
    assert generator._log_prob({"\ufffd": -1.0, "Ã": -1.5, "x": -3.0}, token) == pytest.approx(-3.693, abs=1e-3)
    assert generator._log_prob({"\ufffd": -1.0, token: -2.0}, token) == -2.0
    assert generator._log_prob({}, token) == 0.0


def test_a_request_that_begins_as_another_fails_is_ended_too(served_model: Path) -> None:
    begun, failed, ended, calls = threading.Event(), threading.Event(), list[int](), count(1)

    def call(until: float | None) -> Any:
        number = next(calls)
        if number == 2:
            begun.set()
            assert failed.wait(10)

        def end() -> None:
            ended.append(number)
            failed.set()

        return SimpleNamespace(number=number, end=end)

    def ask(call: Any, what: str) -> str:
        if call.number == 1:
            assert begun.wait(10)
            raise ServerError("It snapped")
        assert 2 in ended
        return what

    with pytest.raises(ServerError, match="It snapped"):
        silent(served_model, call=call)._each(ask, ["one", "other"])
    assert ended == [1, 2]


def test_an_encoder_decoder_has_no_completions(served_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(served_model, tmp_path / "both"))
    T5Config().save_pretrained(folder)
    with pytest.raises(ModelError, match="is an encoder-decoder, which has no completions; choose another"):
        connect(Server("http://127.0.0.1:9/v1", "tiny"), str(folder))
