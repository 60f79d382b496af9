"""OpenAI's completions protocol, as vLLM, llama.cpp's server and Ollama speak it: what is sent, and what is believed."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Generator, Mapping
from contextlib import closing
from typing import Any, Final

from ragqa.errors import ServerError
from ragqa.generation.server import Call, Connection, PassingError, RefusedError, Server
from ragqa.retrieval.text import encodable

_PATH: Final = "/completions"
# A server may take other values from a model's own configuration (vLLM), or have its own (llama.cpp: of the likeliest 40
# tokens alone). These are the local generator's: none. Servers pass over names that they do not know, and those that refuse
# them are asked without.
_PLAIN: Final = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "repeat_penalty": 1.0}
# vLLM tells texts, of which several tokens may have the same, unless it is asked for ids in their place.
_IDS: Final = {"return_tokens_as_token_ids": True}
# How many tokens' log-probabilities are asked for; fewer where a server refuses that many.
_LIKELIEST: Final = (20, 5)
_EXPECTED: Final = 'expected {"choices": [{"text": "..."}]}; is it a completions server?'


class Completions:
    """Asks one server for completions. It may be shared between threads.

    Where it was given no model's name, it is asked for the only one it has. Raises, as all its methods, ServerError: one
    line that says what the server did, and how to mend it.
    """

    def __init__(self, server: Server) -> None:
        self._connection = Connection(server)
        self._most = _LIKELIEST[0]
        self._refused: set[str] = set()
        self.url = server.url
        self.model = server.model or self._only_model()

    def call(self, until: float | None = None) -> Call:
        """A request whose time begins now, and ends then at the latest."""
        return self._connection.call(until)

    def complete(self, call: Call, body: Mapping[str, Any]) -> str:
        """The text that goes on from a prompt.

        Args:
            call: the request.
            body: the protocol's fields, without the model's name: ``prompt``, ``max_tokens`` and so on.
        """
        return str(self._completed(call, body)["text"])

    def likeliest(self, call: Call, prompt: str) -> dict[str | int, float]:
        """The log-probabilities of the likeliest next tokens, by text or id; empty where the server tells none."""
        if not self._most:
            return {}
        asked = {"prompt": prompt, "max_tokens": 1, "temperature": 0.0, "logprobs": self._most}
        return _likeliest(self._completed(call, asked | _IDS).get("logprobs"))

    def stream(self, body: Mapping[str, Any], until: float | None = None) -> Generator[str, None, None]:
        """`complete`, as the text comes; once this is closed the server hears that nobody listens any more."""
        call, given, attempt = self.call(until), False, 0
        while True:
            asked = self._asked(body) | {"stream": True}
            try:
                with closing(self._pieces(call, asked)) as pieces:
                    for piece in pieces:
                        given = True
                        yield piece
                        # Whoever takes the pieces may take their time, but is never kept waiting for longer than this.
                        call.allow(self._connection.server.timeout)
                return
            except RefusedError as error:
                self._without(call, asked, error)
            except PassingError as error:
                if given:
                    raise
                self._connection.again(call, attempt, error)
                attempt += 1

    def models(self, call: Call) -> list[str]:
        """The names of the models that the server has."""
        told = self._connection.whole(call, "/models")
        try:
            return [str(one["id"]) for one in told["data"]]
        except (TypeError, KeyError) as error:
            raise ServerError(f'{self.url}/models: answered no list of models; expected {{"data": [...]}}') from error

    def _only_model(self) -> str:
        names = self.models(self.call())
        if len(names) != 1:
            raise ServerError(f"{self.url}: has {self._listed(names)}; name one with --server-model")
        return names[0]

    def _listed(self, names: list[str]) -> str:
        return self._connection.quoted(", ".join(map(repr, names))) or "no model"

    def _completed(self, call: Call, body: Mapping[str, Any]) -> dict[str, Any]:
        while True:
            asked = self._asked(body)
            try:
                return self._choice(self._connection.whole(call, _PATH, asked))
            except RefusedError as error:
                self._without(call, asked, error)

    def _asked(self, body: Mapping[str, Any]) -> dict[str, Any]:
        whole = {"model": self.model, **_PLAIN, **body}
        if "logprobs" in whole:
            whole["logprobs"] = self._most
        left_out = self._refused if self._most else self._refused | {"logprobs"}
        return {name: value for name, value in whole.items() if name not in left_out}

    def _without(self, call: Call, asked: Mapping[str, Any], error: RefusedError) -> None:
        """From now on without what the server refuses by name; raises an error where that is nothing that can be left out."""
        names = {name for name in (*_PLAIN, *_IDS) if name in asked and name in error.said}
        if names:
            self._refused |= names
        elif "logprob" in error.said and "logprobs" in asked:
            fewer = (number for number in _LIKELIEST if number < asked["logprobs"])
            self._most = min(self._most, next(fewer, 0))
        elif error.status == 404:
            raise ServerError(f"{error}: {self._missing(call)}") from error
        else:
            raise ServerError(f"{error}: it does not take the request; does the prompt fit its model?") from error

    def _missing(self, call: Call) -> str:
        try:
            return f"it has {self._listed(self.models(call))}, not {self.model!r}; name one with --server-model"
        except ServerError:
            return "there is no such page; a server's address ends in /v1, such as http://localhost:8000/v1"

    def _choice(self, told: Any, streamed: bool = False) -> dict[str, Any]:
        """The first choice of an answer, or of a part of a streamed one, which may have none."""
        where = f"{self.url}{_PATH}"
        if not isinstance(told, dict):
            raise ServerError(f"{where}: its answer is a {type(told).__name__}; {_EXPECTED}")
        if told.get("error"):
            said = self._connection.quoted(json.dumps(told["error"]))
            raise ServerError(f"{where}: failed while it wrote ({said}); its own log says more")
        choices = told.get("choices")
        if streamed and choices == []:
            return {"text": ""}
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise ServerError(f"{where}: its answer has no choices; {_EXPECTED}")
        if not isinstance(choices[0].get("text"), str):
            raise ServerError(f"{where}: the text of its answer is none; {_EXPECTED}")
        # JSON can say lone surrogates, which nothing later can write.
        return choices[0] | {"text": encodable(choices[0]["text"])}

    def _pieces(self, call: Call, asked: Mapping[str, Any]) -> Generator[str, None, None]:
        """The pieces of one attempt, none of them empty."""
        rest, other, heard, finished = b"", b"", False, False
        with closing(self._connection.attempt(call, _PATH, asked)) as parts:
            for part in itertools.chain(parts, [b"\n"]):
                *lines, rest = (rest + part).split(b"\n")
                for line in map(bytes.strip, lines):
                    name, _, data = line.partition(b":")
                    if name != b"data":
                        other += line if name not in (b"", b"event", b"id", b"retry") else b""
                        continue
                    if data.strip() == b"[DONE]":
                        return
                    heard = True
                    choice = self._choice(self._connection.read_json(data, _PATH), streamed=True)
                    finished = finished or choice.get("finish_reason") is not None
                    if choice["text"]:
                        yield choice["text"]
        if not heard:
            # A server that does not stream answers as if it had not been asked to.
            yield from filter(None, [self._choice(self._connection.read_json(other, _PATH))["text"]])
        elif not finished:
            raise PassingError(f"{self.url}{_PATH}: the answer broke off; is the server still up?")


def _likeliest(told: Any) -> dict[str | int, float]:
    """The log-probabilities of the first token's alternatives, by text and, where they are told, ids.

    They come in the form of completions, ``{"top_logprobs": [{text: log-probability}]}`` (vLLM), or in that of chats,
    ``{"content": [{"top_logprobs": [{"token": text, "logprob": log-probability}]}]}`` (llama.cpp, which adds ids; Ollama).
    """
    found: dict[str | int, float] = {}
    try:
        if "content" in told:
            for one in told["content"][0]["top_logprobs"]:
                found |= {name: float(one["logprob"]) for name in (one["token"], one.get("id")) if name is not None}
        else:
            for text, log_prob in told["top_logprobs"][0].items():
                numbered = re.fullmatch(r"token_id:(\d+)", text)
                found[int(numbered[1]) if numbered else text] = float(log_prob)
    except (TypeError, KeyError, IndexError, AttributeError, ValueError):
        return {}
    return {name: log_prob for name, log_prob in found.items() if math.isfinite(log_prob)}
