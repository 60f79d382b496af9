"""A server of OpenAI's completions protocol: `python tests/completions_server.py FOLDER PORT` prints the port it has.

The model "tiny" is the one in the folder, and answers greedily, as vLLM does: at most 20 log-probabilities, by text. Other
names answer as `Handler` says. ``GET /asked`` tells what was asked, ``GET /state`` what was done.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from transformers import AutoModelForCausalLM, AutoTokenizer

STANDARD = {"model", "prompt", "max_tokens", "temperature", "seed", "stop", "stream", "top_p"}
NONSENSE = {
    "text": "Hello!",
    "html": "<html><body>\x1b[31mIt works</body></html>",
    "list": "[1, 2]",
    "null": "null",
    "no-choices": '{"id": "x"}',
    "empty-choices": '{"choices": []}',
    "odd-choices": '{"choices": [7]}',
    "odd-text": '{"choices": [{"text": 7}]}',
    "deep": "[" * 100_000,
}


class Model:
    """The folder's language model."""

    def __init__(self, folder: str) -> None:
        torch.set_num_threads(1)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)

    def tokens(self, prompt: str, most: int, endless: bool) -> Iterator[tuple[int, torch.Tensor]]:
        """The greedy tokens, each with all log-probabilities, (vocabulary,)."""
        ids, cache = torch.tensor([self.tokenizer(prompt)["input_ids"]]), None
        for _ in range(most):
            with torch.inference_mode():
                out = self.model(ids, past_key_values=cache, use_cache=True)
            cache, log_probs = out.past_key_values, out.logits[0, -1].log_softmax(-1)
            if endless:
                log_probs[self.tokenizer.eos_token_id] = -99.0
            token = int(log_probs.argmax())
            yield token, log_probs
            if token == self.tokenizer.eos_token_id:
                return
            ids = torch.tensor([[token]])

    def pieces(self, told: Iterator[tuple[int, torch.Tensor]], stop: list[str]) -> Iterator[str]:
        """The text, up to a stop string."""
        stream, text, given = DecodeStream(skip_special_tokens=True), "", 0
        longest = max(map(len, stop), default=1)
        for token, _ in told:
            text += stream.step(self.tokenizer.backend_tokenizer, token) or ""
            places = [at for one in stop if (at := text.find(one)) >= 0]
            if places:
                yield text[given : min(places)]
                return
            certain = max(len(text) - longest + 1, given)
            yield text[given:certain]
            given = certain
        yield text[given:]


class Server(ThreadingHTTPServer):
    """Knows what was asked and done."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, model: Model) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.model = model
        self.asked: list[dict[str, Any]] = []
        self.state: Counter[str] = Counter()
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are no news."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request, by the model's name."""

    server: Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        """/v1/models, /one/models, /asked, /state."""
        told = {
            "/v1/models": {"object": "list", "data": [{"id": "tiny"}, {"id": "tiny-all"}]},
            "/one/models": {"object": "list", "data": [{"id": "tiny"}]},
            "/odd/models": {"models": "tiny"},
            "/asked": self.server.asked,
            "/state": self.server.state,
        }.get(self.path)
        self.answer(200 if told is not None else 404, json.dumps(told))

    def do_POST(self) -> None:
        """/v1/completions."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        name = body["model"]
        with self.server.lock:
            self.server.asked.append(body | {"key": self.headers.get("authorization")})
            self.server.state[name] += 1
            count = self.server.state[name]
            self.server.state["now"] += 1
            self.server.state["at once"] = max(self.server.state["at once"], self.server.state["now"])
        try:
            self.respond(name, body, count)
        except (BrokenPipeError, ConnectionResetError):
            self.server.state["left"] += 1
        finally:
            with self.server.lock:
                self.server.state["now"] -= 1

    def respond(self, name: str, body: dict[str, Any], count: int) -> None:
        """As the model's name wants it."""
        unknown = sorted(set(body) - STANDARD)
        if self.path not in ("/v1/completions", "/one/completions"):
            self.answer(404, "<h1>Not Found</h1>")
        elif name in NONSENSE:
            self.answer(200, NONSENSE[name])
        elif name == "key":
            self.answer(401, f"Incorrect API key provided: {self.headers.get('authorization')}")
        elif name == "redirect":
            self.answer(307, "", {"location": "/v1/elsewhere"})
        elif name == "broken":
            self.answer(500, "CUDA out of memory\n  at line 7")
        elif name == "long":
            self.answer(400, "This model's maximum context length is 8 tokens")
        elif name == "busy" or (name == "tiny-twice" and count <= 2):
            self.answer(503, "Loading model")
        elif name == "tiny-once" and count == 1:
            self.answer(429, "Slow down", {"retry-after": "1"})
        elif name == "later":
            self.answer(429, "Come back tomorrow", {"retry-after": "86400"})
        elif name == "tiny-strict" and unknown:
            self.answer(400, f"Unrecognized request argument supplied: {unknown[0]}")
        elif name == "tiny-five" and body.get("logprobs", 0) > 5:
            self.answer(400, "Requested sample logprobs of 20, which is greater than max allowed: 5")
        elif name == "trap" and "trap" in body["prompt"]:
            self.answer(500, "It snapped")
        elif name in ("slow", "trap"):
            time.sleep(20)
        elif name == "drops-at-once":
            return
        elif name == "drops":
            self.answer(200, '{"choices": [', {"content-length": "1000"})
        elif name == "endless":
            self.answer(200, " ")
            while True:
                self.wfile.write(b" " * 2**16)
        elif name.startswith("bytes-"):
            self.dribble(name.removeprefix("bytes-"))
        elif not name.startswith(("tiny", "stream-")):
            self.answer(404, f"The model `{name}` does not exist.")
        elif body.get("stream") and name != "tiny-whole":
            self.stream(name, body)
        else:
            self.complete(name, body)

    def complete(self, name: str, body: dict[str, Any]) -> None:
        """The whole answer."""
        if name == "tiny-jumbled":
            time.sleep(0.1 * (self.server.state[name] % 3))
        told = list(self.tokens(name, body))
        text = "".join(self.server.model.pieces(iter(told), [] if name == "tiny-deaf" else body.get("stop", [])))
        choice = {"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}
        if "logprobs" in body and name != "tiny-silent":
            choice["logprobs"] = self.log_probs(name, body, told[0][1])
        self.answer(200, json.dumps({"object": "text_completion", "model": name, "choices": [choice]}))

    def log_probs(self, name: str, body: dict[str, Any], row: torch.Tensor) -> dict[str, Any]:
        """Of the first token's alternatives; "tiny-all", "tiny-ids" and "tiny-chat" tell them all."""
        best = row.topk(body["logprobs"] if name in ("tiny", "tiny-five") else len(row))
        pairs = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        decode = self.server.model.tokenizer.decode
        if name == "tiny-chat":
            told = [{"id": i, "token": decode([i]), "bytes": [], "logprob": value} for i, value in pairs]
            return {"content": [told[0] | {"top_logprobs": told}]}
        if name == "tiny-ids" and body.get("return_tokens_as_token_ids"):
            return {"top_logprobs": [{f"token_id:{i}": value for i, value in pairs}]}
        return {"top_logprobs": [{decode([i]): value for i, value in reversed(pairs)}]}

    def stream(self, name: str, body: dict[str, Any]) -> None:
        """The answer as server-sent events."""
        self.start(200, {"content-type": "text/event-stream"})
        self.wfile.write(b": a comment\n\n")
        stop = [] if name == "tiny-deaf" else body.get("stop", [])
        for count, piece in enumerate(self.server.model.pieces(self.tokens(name, body), stop)):
            if name == "stream-breaks" and count == 3:
                return
            if name == "stream-fails" and count == 3:
                self.event({"error": {"message": "the engine died", "code": 500}})
                return
            self.event({"choices": [{"index": 0, "text": piece, "finish_reason": None}]})
        self.event({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})
        self.event({"choices": [], "usage": {"completion_tokens": 7}})
        self.wfile.write(b"data: [DONE]\n\n")

    def tokens(self, name: str, body: dict[str, Any]) -> Iterator[tuple[int, torch.Tensor]]:
        """The model's, counted; slowly and without an end of its own for "tiny-steady"."""
        steady = name == "tiny-steady"
        for one in self.server.model.tokens(body["prompt"], body["max_tokens"], steady):
            if steady:
                time.sleep(0.01)
            self.server.state["tokens"] += 1
            yield one

    def event(self, told: dict[str, Any]) -> None:
        """One server-sent event."""
        self.wfile.write(f"data: {json.dumps(told)}\n\n".encode())

    def dribble(self, where: str) -> None:
        """A byte now and then."""
        if where == "header":
            self.wfile.write(b"HTTP/1.0 200 OK\r\n")
        else:
            self.start(200, {"content-type": "text/event-stream" if where == "stream" else "application/json"})
        while True:
            self.wfile.write(b"x" if where == "header" else b" " if where == "body" else b":\n")
            time.sleep(0.05)

    def start(self, status: int, headers: dict[str, str]) -> None:
        """Status and headers."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def answer(self, status: int, said: str, headers: dict[str, str] | None = None) -> None:
        """What was said: JSON as it is, an error's message in the protocol's form."""
        if status >= 400 and not said.startswith("<"):
            said = json.dumps({"error": {"message": said, "type": "error", "code": status}})
        self.start(status, {"content-type": "application/json"} | (headers or {}))
        self.wfile.write(said.encode())


def main() -> None:
    """Serve until killed."""
    server = Server(int(sys.argv[2]), Model(sys.argv[1]))
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
