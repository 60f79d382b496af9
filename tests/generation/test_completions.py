"""Against a connection that answers what a test says."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from ragqa.errors import ServerError
from ragqa.generation.completions import Completions
from ragqa.generation.server import Call, RefusedError, Server

URL = "http://127.0.0.1:9/v1"


def completions() -> Completions:
    return Completions(Server(URL, "tiny", retries=0))


def test_a_server_that_refuses_log_probabilities_is_not_asked_for_them_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def whole(call: Call, path: str, body: Mapping[str, Any]) -> Any:
        asked.append(body.get("logprobs"))
        if "logprobs" in body:
            raise RefusedError("answered 400", 400, "logprobs are not to be had")
        return {"choices": [{"text": "x"}]}

    silent = completions()
    monkeypatch.setattr(silent._connection, "whole", whole)
    assert [silent.likeliest(silent.call(), "prompt") for _ in range(3)] == [{}, {}, {}]
    assert asked == [20, 5, None]


@pytest.mark.parametrize(
    ("ends", "broken"),
    [('"finish_reason": "stop"', False), ('"finish_reason": null', True), ('"index": 0', True)],
)
def test_a_streamed_answer_is_whole_where_it_gives_a_reason_for_its_end(
    ends: str, broken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attempt(call: Call, path: str, body: Mapping[str, Any]) -> Iterator[bytes]:
        try:
            yield b'data: {"choices": [{"text": "Alpha"}]}\n\ndata: {"choices": [{"text": " is", '
            yield f"{ends}}}]}}\n\n".encode()
        finally:
            left.append(path)

    told, left, pieces = completions(), list[str](), list[str]()
    monkeypatch.setattr(told._connection, "attempt", attempt)
    if broken:
        with pytest.raises(ServerError, match=f"^{URL}/completions: the answer broke off; is the server still up"):
            pieces.extend(told.stream({"prompt": "p"}))
    else:
        assert list(told.stream({"prompt": "p"})) == ["Alpha", " is"]
    assert left == ["/completions"]
