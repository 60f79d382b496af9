"""Questions over HTTP get the answers that they get in Python."""

import copy
import json
import re
import shlex
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

from ragqa import Answerer
from ragqa.serving.answers import answered
from tests.conftest import ROOT
from tests.serving.conftest import LT350, Gate, Serving, serving, until

PARTIAL = "What is the description of the Lumen headlamp LT-350?"


def without_times(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "timings"}


def events(response: httpx2.Response) -> list[tuple[str, Any]]:
    found = []
    for block in response.text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines.get("event", ""), json.loads(lines["data"])))
    return found


def test_one_question_is_answered_as_in_python(served: Serving, answerer: Answerer) -> None:
    response = served.ask(PARTIAL)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    expected = json.loads(json.dumps(answered(answerer.ask(PARTIAL))))
    assert without_times(response.json()) == without_times(expected)
    assert set(response.json()["timings"]) == {"queue", "retrieve", "generate", "total"}


def test_settings_and_the_prompt_are_had_on_request(served: Serving, answerer: Answerer) -> None:
    told = served.ask(PARTIAL, prompt=True, settings={"top_k": 2, "min_confidence": 0.1}).json()
    assert len(told["sources"]) == 2
    assert told["prompt"] == answerer.ask(PARTIAL, top_k=2, min_confidence=0.1).prompt
    assert served.ask(LT350, settings={"min_confidence": 1.0}).json()["abstained"] is False
    assert served.ask(PARTIAL, settings={"min_confidence": 1.0}).json()["abstained"] is True


def test_several_questions_are_answered_in_their_order(served: Serving) -> None:
    questions = [LT350, "Do you have surfboards?", PARTIAL]
    response = served.client.post("/v1/ask", json={"questions": questions, "settings": {"decoding": "copy"}})
    answers = response.json()["answers"]
    assert [answer["question"] for answer in answers] == questions
    assert [answer["abstained"] for answer in answers] == [False, True, False]


def test_a_streamed_answer_comes_in_pieces_and_then_whole(served: Serving, answerer: Answerer) -> None:
    settings = {"decoding": "free", "max_new_tokens": 24}
    with served.client.stream("POST", "/v1/ask", json={"question": PARTIAL, "stream": True, "settings": settings}) as r:
        assert r.headers["content-type"].startswith("text/event-stream")
        r.read()
    *pieces, (last, whole) = events(r)
    assert last == "answer"
    assert {name for name, _ in pieces} == {"piece"}
    assert len(pieces) > 1
    assert "".join(piece["text"] for _, piece in pieces) == whole["text"]
    assert whole["text"] == answerer.ask(PARTIAL, **settings).text


def test_what_needs_no_generator_is_one_piece(served: Serving) -> None:
    response = served.client.post("/v1/ask", json={"question": LT350, "stream": True})
    (name, piece), (last, whole) = events(response)
    assert (name, last, piece["text"]) == ("piece", "answer", whole["text"])


def test_what_was_found_comes_with_the_answer_where_that_is_wanted(served: Serving) -> None:
    search = served.client.post("/v1/search", json={"question": PARTIAL, "top_k": 3}).json()
    settings = {"top_k": 3, "decoding": "copy"}
    streamed = events(served.ask(PARTIAL, stream=True, candidates=True, settings=settings))
    assert [name for name, _ in streamed] == ["found", "piece", "answer"]
    assert streamed[0][1] == search
    assert "candidates" not in streamed[2][1]
    asked = {"questions": [PARTIAL, LT350], "candidates": True, "settings": settings}
    first, other = served.client.post("/v1/ask", json=asked).json()["answers"]
    assert first["candidates"] == search["candidates"]
    assert other["candidates"][0]["exact"]
    assert len(other["candidates"]) == 3


def test_one_question_of_the_page_is_one_of_the_rate(answerer: Answerer) -> None:
    with serving(answerer, rate=1.0, burst=1) as here:
        asked = here.ask(LT350, stream=True, candidates=True)
        assert [name for name, _ in events(asked)] == ["found", "piece", "answer"]
        assert here.ask(LT350).status_code == 429


def test_a_precision_that_cannot_be_had_is_told_with_the_best_there_is(answerer: Answerer) -> None:
    own = copy.copy(answerer)
    own.index = replace(answerer.index, confidence=replace(answerer.index.confidence, curve=((0.5, 0.4, 0.9),)))
    with serving(own) as here:
        asked = here.ask(LT350, settings={"precision": 0.95})
        assert asked.status_code == 422
        assert "no threshold gives a precision of 0.95 on this catalogue; the best is 0.900" in asked.json()["detail"]
        # In a stream, which has begun, it is an event.
        streamed = here.ask(LT350, stream=True, settings={"precision": 0.95})
        ((name, problem),) = events(streamed)
        assert (streamed.status_code, name, problem["status"]) == (200, "error", 422)
        assert problem["detail"] == asked.json()["detail"]


def test_a_search_says_why_its_candidates_match(served: Serving, answerer: Answerer) -> None:
    found = served.client.post("/v1/search", json={"question": "lumen LT-350", "top_k": 2}).json()
    (expected,) = answerer.retrieve(["lumen LT-350"], top_k=2)
    assert found["confidence"] == round(expected.confidence, 4)
    assert [candidate["id"] for candidate in found["candidates"]] == [c.product.id for c in expected.candidates[:2]]
    first, one = found["candidates"][0], expected.candidates[0]
    assert (first["score"], first["cosine"]) == (round(one.score, 4), round(one.cosine, 4))
    assert (first["overlap"], first["coverage"], first["exact"]) == (
        round(one.overlap, 4),
        round(one.coverage, 4),
        False,
    )


def test_a_product_is_had_by_its_id(served: Serving, answerer: Answerer) -> None:
    for row in (0, len(answerer.index) - 1):
        product = answerer.index.store[row]
        assert served.client.get(f"/v1/products/{product.id}").json() == {
            "id": product.id,
            "title": product.title,
            "description": product.description,
        }
    missing = served.client.get("/v1/products/no/such%20thing")
    assert (missing.status_code, missing.json()["code"]) == (404, "unknown-product")


def test_about_tells_names_settings_and_limits_but_no_paths(served: Serving, demo_index: Path) -> None:
    about = served.client.get("/v1/about").json()
    assert about["index"] == {"name": "demo", "products": 320, "generation": "g000001"}
    assert about["generator"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert about["embedder"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert (about["adapter"], about["defaults"]["top_k"], about["limits"]["max_questions"]) == (None, 5, 64)
    assert str(demo_index.parent) not in json.dumps(about)


def test_many_clients_each_get_the_answer_to_their_own_question(served: Serving, titles: list[str]) -> None:
    def asked(number: int) -> None:
        title = titles[number % len(titles)]
        path, body = [
            ("/v1/ask", {"question": f"What is the description of {title}?"}),
            ("/v1/ask", {"question": title, "settings": {"decoding": "copy", "top_k": 1 + number % 3}}),
            ("/v1/search", {"question": title, "top_k": 1}),
        ][number % 3]
        told = served.client.post(path, json=body).json()
        assert told["question"] == body["question"]
        first = (told.get("sources") or told["candidates"])[0]
        assert (first["title"], first["exact"]) == (title, True)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(asked, range(240)))


def test_questions_that_wait_are_searched_together_and_the_same_one_once(gate: Gate, titles: list[str]) -> None:
    with serving(gate.answerer, max_batch=4) as here, ThreadPoolExecutor(12) as pool:
        first = pool.submit(here.ask, titles[0])
        until(lambda: gate.batches == [1])
        same = [pool.submit(here.ask, titles[1]) for _ in range(3)]
        others = [pool.submit(here.ask, title) for title in titles[2:7]]
        until(lambda: here.metric("ragqa_queue_length") == 7 and here.metric("ragqa_shared_total") == 2)
        gate.open.set()
        answers = [future.result() for future in (first, *same, *others)]
        assert [answer.json()["sources"][0]["title"] for answer in answers] == [
            titles[0], *[titles[1]] * 3, *titles[2:7]
        ]  # fmt: skip
        assert gate.batches == [1, 4, 2]
        assert sorted(gate.asked) == sorted(titles[:7])


def test_a_request_of_many_questions_lets_others_between(gate: Gate, titles: list[str]) -> None:
    with serving(gate.answerer, max_batch=2, max_wait=1e6) as here, ThreadPoolExecutor(4) as pool:
        here.service._pipeline.finding.seconds = 100.0  # the second question of a request has its turn 200 s later
        first = pool.submit(here.ask, titles[0])
        until(lambda: gate.batches == [1])
        many = pool.submit(here.client.post, "/v1/ask", json={"questions": titles[1:5]})
        until(lambda: here.metric("ragqa_queue_length") == 5)
        one = pool.submit(here.ask, titles[5])
        until(lambda: here.metric("ragqa_queue_length") == 6)
        gate.open.set()
        assert [done.result().status_code for done in (first, many, one)] == [200] * 3
        assert gate.asked == [titles[0], titles[1], titles[5], *titles[2:5]]


def test_a_question_that_fails_does_not_spoil_those_beside_it(
    answerer: Answerer, gate: Gate, titles: list[str]
) -> None:
    search = gate.answerer.retrieve

    def failing(questions: list[str], **settings: Any) -> Any:
        found = search(questions, **settings)
        if "bad" in questions:
            raise ZeroDivisionError("a secret")
        return found

    gate.answerer.retrieve = failing  # type: ignore[method-assign, assignment]
    with serving(gate.answerer) as here, ThreadPoolExecutor(4) as pool:
        first = pool.submit(here.ask, titles[0])
        until(lambda: gate.batches == [1])
        futures = [pool.submit(here.ask, question) for question in (titles[1], "bad", titles[2])]
        until(lambda: here.metric("ragqa_queue_length") == 4)
        gate.open.set()
        assert first.result().status_code == 200
        assert [future.result().status_code for future in futures] == [200, 500, 200]
        problem = futures[1].result()
        assert "secret" not in problem.text
        assert problem.json()["id"] == problem.headers["x-request-id"]


def test_the_request_of_the_readme_is_answered(served: Serving) -> None:
    (line,) = re.findall(r"^curl localhost:8000(.*)$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    path, _, header, _, body = shlex.split(line)
    asked = served.client.post(path, content=body, headers=dict([header.split(": ")]))
    assert (asked.status_code, asked.json()["abstained"]) == (200, True)


def test_the_event_loop_is_not_kept_waiting(gate: Gate) -> None:
    with serving(gate.answerer) as here:
        asking = threading.Thread(target=here.ask, args=(LT350,))
        asking.start()
        until(lambda: bool(gate.batches))
        assert here.client.get("/healthz").json()["status"] == "ok"
        gate.open.set()
        asking.join()
