"""Nothing is unbounded: queue, time, rate, patience; and who leaves frees what was theirs."""

import json
import logging
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from ragqa import Answerer
from tests.serving.conftest import LT350, Gate, serving, until

KEY = "0123456789abcdef-first"


def test_a_full_queue_refuses_with_a_time_to_try_again_and_recovers(gate: Gate, titles: list[str]) -> None:
    with serving(gate.answerer, max_queue=3) as here, ThreadPoolExecutor(8) as pool:
        taken = [pool.submit(here.ask, title) for title in titles[:3]]
        until(lambda: here.metric("ragqa_queue_length") == 3)
        refused = here.ask(titles[4])
        assert (refused.status_code, refused.json()["code"]) == (503, "queue-full")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        # The same question as one in work costs nothing.
        shared = pool.submit(here.ask, titles[0])
        several = here.client.post("/v1/ask", json={"questions": titles[4:6]})
        assert several.status_code == 503
        gate.open.set()
        assert [future.result().status_code for future in (*taken, shared)] == [200] * 4
        assert here.ask(titles[4]).status_code == 200


def test_an_answer_that_does_not_come_in_time_is_given_up(gate: Gate, titles: list[str]) -> None:
    with serving(gate.answerer, timeout=0.3) as here, ThreadPoolExecutor(4) as pool:
        first = pool.submit(here.ask, titles[0])
        until(lambda: gate.batches == [1])
        waiting = pool.submit(here.ask, titles[1])
        streamed = here.client.post("/v1/ask", json={"question": titles[2], "stream": True})
        assert [(f.result().status_code, f.result().json()["code"]) for f in (first, waiting)] == [(504, "timeout")] * 2
        assert "event: error" in streamed.text
        assert '"status": 504' in streamed.text
        gate.open.set()
        until(lambda: here.metric("ragqa_queue_length") == 0)
        # What had not begun was never searched for.
        assert gate.asked == [titles[0]]


def test_a_client_that_leaves_frees_its_place(gate: Gate, titles: list[str]) -> None:
    with serving(gate.answerer) as here, ThreadPoolExecutor(4) as pool:
        first = pool.submit(here.ask, titles[0])
        until(lambda: gate.batches == [1])
        body = json.dumps({"question": titles[1]}).encode()
        streamed = json.dumps({"question": titles[2], "stream": True}).encode()
        connections = []
        for sent in (body, streamed):
            connection = socket.create_connection(here.address)
            head = (
                f"POST /v1/ask HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}\r\n"
            )
            connection.sendall(head.encode() + b"\r\n" + sent)
            connections.append(connection)
        until(lambda: here.metric("ragqa_queue_length") == 3)
        for connection in connections:
            connection.close()
        until(lambda: here.metric("ragqa_queue_length") == 1)
        gate.open.set()
        assert first.result().status_code == 200
        assert gate.asked == [titles[0]]
        assert here.metric("ragqa_dropped_total") == 2


def test_a_streaming_client_that_leaves_stops_the_generator(answerer: Answerer) -> None:
    with serving(answerer) as here:
        settings = {"decoding": "free", "max_new_tokens": 512, "temperature": 2.0, "min_confidence": 0}
        asked = {"question": "lumen LT-350", "stream": True, "settings": settings}
        with here.client.stream("POST", "/v1/ask", json=asked) as response:
            assert next(response.iter_lines()) == "event: piece"
        until(lambda: here.metric("ragqa_queue_length") == 0)
        assert here.metric("ragqa_dropped_total") == 1
        assert here.metric("ragqa_answers_total") == 0


def test_without_a_key_nothing_is_answered(answerer: Answerer) -> None:
    with serving(answerer, keys=(KEY, "fedcba9876543210-second")) as here:
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": f"Basic {KEY}"},
            {"authorization": KEY},
        ):
            refused = here.client.post("/v1/ask", json={"question": LT350}, headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
            assert refused.headers["www-authenticate"] == "Bearer"
        assert here.client.get("/v1/about").status_code == 401
        assert here.client.get("/metrics").status_code == 401
        assert here.client.get("/healthz").status_code == here.client.get("/").status_code == 200
        for key in (KEY, "fedcba9876543210-second"):
            asked = here.client.post("/v1/ask", json={"question": LT350}, headers={"authorization": f"bearer {key}"})
            assert asked.status_code == 200


def test_more_than_the_rate_is_refused_each_key_by_itself(answerer: Answerer) -> None:
    with serving(answerer, keys=(KEY, "fedcba9876543210-second"), rate=1.0, burst=3) as here:
        mine, other = ({"authorization": f"Bearer {key}"} for key in (KEY, "fedcba9876543210-second"))
        asked = {"questions": [LT350, "chainsaw"], "settings": {"decoding": "copy"}}
        statuses = [here.client.post("/v1/ask", json=asked, headers=mine).status_code for _ in range(2)]
        assert statuses == [200, 429]
        refused = here.client.post("/v1/ask", json=asked, headers=mine)
        assert refused.json()["code"] == "rate-limited"
        assert 1 <= int(refused.headers["retry-after"]) <= 120
        assert here.client.post("/v1/ask", json=asked, headers=other).status_code == 200
        assert here.client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"POST /v1/ask HTTP/1.1\r\nHost: a\r\nContent-Type: appl", b""),
        (b"POST /v1/ask HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{", b" 408 "),
        (b"", b""),
    ],
)
def test_a_client_too_slow_to_ask_is_closed(answerer: Answerer, sent: bytes, answer: bytes) -> None:
    with serving(answerer, header_timeout=0.3, body_timeout=0.3) as here:
        with socket.create_connection(here.address, timeout=30) as connection:
            connection.sendall(sent)
            got = b""
            try:
                while part := connection.recv(65536):
                    got += part
            except ConnectionResetError:
                pass
            assert answer in got.partition(b"\r\n")[0]
            assert bool(got) == bool(answer)
        assert here.ask(LT350).status_code == 200


def test_a_client_too_slow_to_read_is_closed(answerer: Answerer, titles: list[str]) -> None:
    with serving(answerer, send_timeout=0.3) as here:
        body = json.dumps({"questions": titles[:64], "settings": {"decoding": "copy", "top_k": 50}}).encode()
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(here.address)
            head = (
                f"POST /v1/ask HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            )
            connection.sendall((head.encode() + b"\r\n" + body) * 4)
            until(lambda: len(here.server.server_state.connections) > 0)
            until(lambda: len(here.server.server_state.connections) == 0)
        assert here.ask(LT350).status_code == 200


def test_the_log_holds_questions_only_where_that_was_asked_for(
    answerer: Answerer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A command that another test ran has its log to itself.
    monkeypatch.setattr(logging.getLogger("ragqa.serving"), "propagate", True)
    for log_questions in (False, True):
        caplog.clear()
        with caplog.at_level(logging.DEBUG, "ragqa.serving"), serving(answerer, log_questions=log_questions) as here:
            here.ask("a very private question", settings={"decoding": "copy"})
            here.client.get("/v1/products/a-private-id")
            until(lambda: "/v1/products/{id:path} 404" in caplog.text)
        own = "\n".join(
            record.getMessage() for record in caplog.records if record.name.startswith(("ragqa", "uvicorn"))
        )
        assert "POST /v1/ask 200" in own
        assert ("a very private question" in own) == log_questions
        assert "a-private-id" not in own


def test_origins_may_be_allowed(answerer: Answerer) -> None:
    with serving(answerer, cors_origins=("https://shop.example",)) as here:
        asked = {"origin": "https://shop.example", "access-control-request-method": "POST"}
        allowed = here.client.options("/v1/ask", headers=asked)
        assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
        other = here.client.options("/v1/ask", headers=asked | {"origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers


def test_metrics_count_what_was_done(answerer: Answerer, titles: list[str]) -> None:
    with serving(answerer) as here:
        here.ask(titles[0])
        here.ask("Do you have surfboards?")
        here.ask("What is the description of the Lumen headlamp LT-350?")
        here.client.get("/v1/nothing")
        text = here.client.get("/metrics").text
    for line in (
        'ragqa_requests_total{route="/v1/ask",status="200"} 3.0',
        'ragqa_requests_total{route="other",status="404"} 1.0',
        'ragqa_answers_total{outcome="answered"} 2.0',
        'ragqa_answers_total{outcome="abstained"} 1.0',
        'ragqa_stage_seconds_count{stage="retrieve"} 3.0',
        'ragqa_stage_seconds_count{stage="generate"} 1.0',
        'ragqa_batch_size_count{stage="retrieve"} 3.0',
        "ragqa_queue_length 0.0",
        "ragqa_products 320.0",
    ):
        assert line in text.splitlines(), line
    assert "ragqa_tokens_total" in text


def test_a_kept_connection_is_used_again(answerer: Answerer) -> None:
    with serving(answerer) as here, httpx2.Client(base_url=here.url) as client:
        for _ in range(3):
            assert client.get("/healthz").status_code == 200
        assert len(here.server.server_state.connections) == 1
