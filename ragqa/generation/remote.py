"""Prompts -> answers, by a model that a server runs: the local generator's questions, put as completions.

The prompts are the local generator's, built with the model's own tokenizer; its weights are not read here. They are sent
as raw text, control tokens and all, so the server must take it as it is. vLLM and llama.cpp's server do; Ollama puts a
model's ``TEMPLATE`` around it, which has to be ``{{ .Prompt }}``, as in the Modelfile that ``ragqa export`` writes.

A server puts the token with which texts begin before every prompt, where its tokenizer does. Where the chat template has
written it, too, the model would read it twice: there it is left out of what is sent. Whether the tokenizer does is tried
out, since many that have such a token (SmolLM2's, Qwen's) put it nowhere themselves.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from typing import Any, Final, TypeVar

from ragqa import models
from ragqa.errors import ModelError, ServerError
from ragqa.generation import sources
from ragqa.generation.choice import Choice
from ragqa.generation.completions import Completions
from ragqa.generation.limits import asking_server, is_over
from ragqa.generation.pieces import Pieces
from ragqa.generation.prompt import Prompt, cut_at_tokens
from ragqa.generation.server import Call, Server
from ragqa.generation.sources import Writing, Written
from ragqa.progress import say
from ragqa.records import Retrieval

# Requests at once. Servers read the prompts of several together; more than these wait there as well as here.
_AT_ONCE: Final = 8
# The bracket that closes a number is no part of the answer, nor is the end.
_BESIDE: Final = 2
# What a token is given that is not among the likeliest that were told: half the chance of the last of them.
_BELOW: Final = math.log(2)
# What stands for a blank in the vocabularies of tokenizers, which some servers tell as it is.
_BLANKS: Final = str.maketrans("▁Ġ", "  ")

_Asked = TypeVar("_Asked")
_Told = TypeVar("_Told")


class _UntoldError(ServerError):
    """The server gives no log-probabilities."""


class RemoteGenerator:
    """A language model that a server runs, asked as `ragqa.generation.generator.Generator` is.

    It gives the texts and the sources, but neither tokens nor their probabilities.

    Args:
        completions: the server.
        tokenizer: the model's.
        max_positions: how many tokens the model can read, None if it does not say.
        choice: see `Generator`.
    """

    def __init__(
        self, completions: Completions, tokenizer: Any, max_positions: int | None = None, choice: Choice | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.max_positions = max_positions
        self.choice = choice
        self._completions = completions
        self._tells: bool | None = None  # log-probabilities; None while that is not known
        begin = tokenizer.bos_token
        doubled = begin and tokenizer(begin)["input_ids"][:2] == [tokenizer.bos_token_id] * 2
        self._begin: str = begin if doubled else ""

    def free(self, prompts: Sequence[Prompt], writing: Writing, found: Sequence[Retrieval] = ()) -> list[Written]:
        """See `Generator.free`.

        Raises:
            ServerError: the server gave no answer to one of them. So do all methods.
        """
        chosen: list[tuple[int | None, float | None]] = [(None, None)] * len(prompts)
        if self.choice and found:
            chosen = [*self._chosen(prompts, found, writing.until)]
        bodies = [self._body(prompt, writing, i) for prompt, (i, _) in zip(prompts, chosen, strict=True)]
        written = []
        for told, (i, sure) in zip(self._each(self._completions.complete, bodies, writing.until), chosen, strict=True):
            text = self._text(writing)
            text.take(told)
            written.append(Written(text.text, i, sure))
        return written

    def stream(
        self, prompt: Prompt, writing: Writing, found: Retrieval | None = None, least: float = 0.0
    ) -> Iterator[str | Written]:
        """See `Generator.stream`; once it is closed the server writes no more."""
        chosen, sure = None, None
        if self.choice and found is not None:
            chosen, sure = self._chosen([prompt], [found], writing.until)[0]
        text, shortened = self._text(writing), False
        if sure is None or sure >= least:
            told = self._completions.stream(self._body(prompt, writing, chosen), writing.until)
            with closing(told), asking_server(writing.until):
                try:
                    for part in told:
                        if piece := text.take(part):
                            yield piece
                        if text.stopped:
                            break
                except ServerError:
                    shortened = bool(text.text) and is_over(writing.until)
                    if not shortened:
                        raise
            if piece := text.close():
                yield piece
        yield Written(text.text, chosen, sure, shortened=shortened)

    def extractive(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int,
        found: Sequence[Retrieval] = (),
        scored: bool = False,  # noqa: ARG002  (as the local generator's)
        until: float | None = None,
    ) -> list[Written]:
        """See `Generator.extractive`. No text is scored: servers tell the probabilities of what they write themselves."""
        written = []
        for prompt, (i, sure) in zip(prompts, self._chosen(prompts, found, until), strict=True):
            text = prompt.shown[i].candidate.product.description
            written.append(Written(cut_at_tokens(self.tokenizer, text, max_new_tokens), i, sure))
        return written

    def number_log_probs(self, prompts: Sequence[Prompt]) -> list[list[float]]:
        """See `sources.number_log_probs`; a number that the server does not tell of is a little less likely than all told."""
        return sources.number_log_probs(prompts, self.tokenizer, self._first_log_probs)

    def _chosen(
        self, prompts: Sequence[Prompt], found: Sequence[Retrieval], until: float | None = None
    ) -> list[tuple[int, float | None]]:
        """The source of each prompt and its probability; without the model's word where the server does not tell it."""
        first: sources.FirstLogProbs = functools.partial(self._first_log_probs, until=until)
        if self._tells is not False:
            try:
                return self._chosen_by(first, prompts, found)
            except _UntoldError as error:
                self._tells = False
                say(f"{error}; sources are chosen by what the retriever knows alone")
        if self.choice:
            told = zip(prompts, found, strict=True)
            shown = [([s.candidate for s in prompt.shown], one) for prompt, one in told]
            return [self.choice.pick(few, one.question.subject, one.confidence) for few, one in shown]
        return self._chosen_by(lambda _, wanted: [[0.0] * len(tokens) for tokens in wanted], prompts, found)

    def _chosen_by(
        self, first: sources.FirstLogProbs, prompts: Sequence[Prompt], found: Sequence[Retrieval]
    ) -> list[tuple[int, float | None]]:
        if self.choice:
            return sources.choose_numbers(prompts, found, self.choice, self.tokenizer, first)
        return [(i, None) for i in sources.choose_first(prompts, self.tokenizer, first)]

    def _first_log_probs(
        self, prompts: Sequence[Prompt], wanted: Sequence[Sequence[int]], until: float | None = None
    ) -> list[list[float]]:
        told = self._each(self._completions.likeliest, [self._sent(prompt) for prompt in prompts], until)
        if not any(told) and not self._tells:
            raise _UntoldError(f"{self._completions.url}: tells no log-probabilities of {self._completions.model}")
        self._tells = True
        return [[self._log_prob(one, token) for token in tokens] for one, tokens in zip(told, wanted, strict=True)]

    def _log_prob(self, told: Mapping[str | int, float], token: int) -> float:
        """A token's, from those of the likeliest."""
        if not told:
            return 0.0  # all are alike
        text = self.tokenizer.decode([token])
        names: list[str | int] = [token]
        if "\ufffd" not in text:  # a part of a character has no text of its own
            names += [text, self.tokenizer.convert_ids_to_tokens(token).translate(_BLANKS)]
        return next((told[name] for name in names if name in told), min(told.values()) - _BELOW)

    def _sent(self, prompt: Prompt) -> str:
        return prompt.text.removeprefix(self._begin)

    def _body(self, prompt: Prompt, writing: Writing, chosen: int | None) -> dict[str, Any]:
        sampling, numbered = writing.sampling, chosen is not None
        body: dict[str, Any] = {
            # The model itself closes the number's bracket, as it does here: the bracket may be one token with what follows.
            "prompt": self._sent(prompt) + (str(chosen + 1) if chosen is not None else ""),
            "max_tokens": writing.max_new_tokens + (_BESIDE if numbered else 0),
            "temperature": sampling.temperature if sampling else 0.0,
        }
        if sampling:
            body["seed"] = sampling.seed
        if writing.stop:
            body["stop"] = list(writing.stop)
        return body

    def _text(self, writing: Writing) -> Pieces:
        return Pieces(self.tokenizer, "]" if self.choice else "", writing.stop)

    def _each(
        self, ask: Callable[[Call, _Asked], _Told], asked: Sequence[_Asked], until: float | None = None
    ) -> list[_Told]:
        """What is answered to each, in order, several being asked at once; none goes on where one fails."""
        with asking_server(until):
            return self._each_by(ask, asked, until)

    def _each_by(
        self, ask: Callable[[Call, _Asked], _Told], asked: Sequence[_Asked], until: float | None
    ) -> list[_Told]:
        if len(asked) == 1:
            return [ask(self._completions.call(until), asked[0])]
        calls: list[Call] = []
        ended = threading.Event()

        def one(what: _Asked) -> _Told:
            calls.append(call := self._completions.call(until))
            if ended.is_set():
                call.end()
            return ask(call, what)

        with ThreadPoolExecutor(max(min(len(asked), _AT_ONCE), 1)) as pool:
            futures = [pool.submit(one, what) for what in asked]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
                failed = [future for future in futures if future.done() and future.exception()]
                return [future.result() for future in failed or futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                ended.set()
                for call in [*calls]:
                    call.end()
                raise


def connect(
    server: Server, name: str = models.DEFAULT_GENERATOR, choice: Choice | None = None
) -> tuple[RemoteGenerator, models.ModelSource]:
    """A generator that asks a server, and where its tokenizer was taken from.

    Args:
        server: which one.
        name: the model that it runs, as a Hub id or a folder; of it the tokenizer is read, and the weights are not needed.
        choice: see `Generator`.

    Raises:
        ModelError: there is no such tokenizer, or it is one that no such server has.
        ServerError: the server does not say which models it has; it is asked where it was named none.
    """
    source = models.find_model(name, weights=False)
    tokenizer, configuration = models.load_tokenizer(source), models.load_configuration(source)
    if configuration.is_encoder_decoder:
        raise ModelError(f"{name}: is an encoder-decoder, which has no completions; choose another with --generator")
    completions = Completions(server)
    positions = getattr(configuration.get_text_config(), "max_position_embeddings", None)
    say(f"generator {completions.model} at {server.url}, with the tokenizer of {name}")
    return RemoteGenerator(completions, tokenizer, positions, choice), source
