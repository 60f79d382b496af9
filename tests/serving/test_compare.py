"""POST /v1/compare, with a random base model beside the real index."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragqa import Answerer
from ragqa.cli import main
from ragqa.comparison.side_by_side import side_by_side
from ragqa.serving.compare import Comparison
from tests.serving.conftest import LT350, Serving, serving, until

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def comparison(answerer: Answerer, tiny_model: Path) -> Comparison:
    comparison = Comparison(lambda a: side_by_side(a, generator=str(tiny_model), device="cpu", dtype="float32"))
    comparison.open(answerer)
    return comparison


@pytest.fixture(scope="module")
def compared(answerer: Answerer, comparison: Comparison) -> Iterator[Serving]:
    with serving(answerer, comparison=comparison) as here:
        yield here


def test_every_arm_answers_and_those_that_are_missing_are_told(compared: Serving) -> None:
    told = compared.client.post("/v1/compare", json={"question": LT350})
    assert told.status_code == 200, told.text
    body = told.json()
    assert set(body) == {"question", "arms", "missing"}
    assert [arm["name"] for arm in body["arms"]] == ["copy", "base", "base_context"]
    copy = body["arms"][0]
    assert copy["source"] == {"id": "RQ5QHDUNTN", "title": "Lumen Trail Headlamp LT-350"}
    assert (copy["f1"], copy["exact_match"], copy["grounded"]) == (1.0, True, 1.0)
    assert [arm["name"] for arm in body["missing"]] == ["plain", "retrieval_context"]
    assert body["missing"][0]["how"] == [
        "ragqa fine-tune INDEX --mode plain --out adapters/plain",
        "ragqa serve INDEX --compare-plain adapters/plain",
    ]


def test_streamed_each_arm_is_an_event_and_all_of_them_the_last(compared: Serving) -> None:
    told = compared.client.post("/v1/compare", json={"question": LT350, "stream": True})
    assert told.headers["content-type"].startswith("text/event-stream")
    events = [block.split("\n") for block in told.text.split("\n\n") if block.startswith("event")]
    assert [lines[0] for lines in events] == ["event: arm"] * 3 + ["event: compared"]
    arms = [json.loads(lines[1].removeprefix("data: ")) for lines in events]
    assert arms[-1]["arms"] == arms[:-1]


def test_the_document_has_the_route_with_examples(compared: Serving) -> None:
    document = compared.client.get("/openapi.json").json()
    content = document["paths"]["/v1/compare"]["post"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/event-stream"}
    assert all("example" in kind for kind in content.values())
    assert document["components"]["schemas"]["Compare"]["examples"] == [{"question": "headlamp for the trail"}]


def test_mistakes_are_problem_documents(compared: Serving, served: Serving) -> None:
    for body, status in (({"question": " "}, 422), ({"question": "q", "arms": []}, 422), ({}, 422)):
        told = compared.client.post("/v1/compare", json=body)
        assert (told.status_code, told.json()["status"]) == (status, status)
        assert told.headers["content-type"] == "application/problem+json"
    assert served.client.post("/v1/compare", json={"question": LT350}).status_code == 404  # it was not asked for


def test_one_question_is_compared_at_a_time_and_the_next_when_it_was_left(
    answerer: Answerer, comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms, go_on, asked = comparison.begin(), threading.Event(), threading.Event()
    comparison.end()
    usual = arms.ask

    def waiting(question: str, searched: Answerer | None = None) -> Iterator[object]:
        for answer in usual(question, searched):
            asked.set()
            assert go_on.wait(60)
            yield answer

    with serving(answerer, comparison=comparison) as here:
        monkeypatch.setattr(arms, "ask", waiting)
        with here.client.stream("POST", "/v1/compare", json={"question": LT350, "stream": True}):
            assert asked.wait(60)
            refused = here.client.post("/v1/compare", json={"question": LT350})
            assert (refused.status_code, refused.json()["code"]) == (503, "comparing")
            assert refused.headers["retry-after"] == "10"
        # The client has left; the arm that is at work is waited for.
        assert here.client.post("/v1/compare", json={"question": LT350}).status_code == 503
        go_on.set()
        monkeypatch.setattr(arms, "ask", usual)
        until(lambda: here.client.post("/v1/compare", json={"question": LT350}).status_code == 200)


def test_what_takes_too_long_is_told_in_time_and_keeps_its_place_until_it_is_done(
    answerer: Answerer, comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms, go_on = comparison.begin(), threading.Event()
    comparison.end()

    def waiting(question: str, searched: Answerer | None = None) -> Iterator[object]:
        assert go_on.wait(60)
        yield from ()

    monkeypatch.setattr(arms, "ask", waiting)
    with serving(answerer, comparison=comparison, timeout=0.5, max_queue=1) as here:
        late = here.client.post("/v1/compare", json={"question": LT350})
        assert (late.status_code, late.json()["code"]) == (504, "timeout")
        assert late.json()["detail"] == "there was no answer within 0.5 s"
        # Its thread cannot be stopped: it has the one place that there is.
        for path in ("/v1/compare", "/v1/ask"):
            refused = here.client.post(path, json={"question": LT350})
            assert (refused.status_code, refused.json()["code"]) == (503, "queue-full")
            assert int(refused.headers["retry-after"]) >= 1
        assert here.metric("ragqa_queue_length") == 1
        go_on.set()
        until(lambda: here.ask(LT350).status_code == 200)
        go_on.clear()
        streamed = here.client.post("/v1/compare", json={"question": LT350, "stream": True})
        (told,) = [block for block in streamed.text.split("\n\n") if block.startswith("event")]
        assert told.startswith("event: error")
        assert json.loads(told.split("data: ")[1])["status"] == 504
        go_on.set()
        until(lambda: here.metric("ragqa_queue_length") == 0)


def test_a_comparison_that_is_at_work_is_finished_before_the_service_ends(
    answerer: Answerer, comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms, go_on, asked = comparison.begin(), threading.Event(), threading.Event()
    comparison.end()

    def waiting(question: str, searched: Answerer | None = None) -> Iterator[object]:
        asked.set()
        assert go_on.wait(60)
        yield from ()

    monkeypatch.setattr(arms, "ask", waiting)
    told: list[int] = []
    with serving(answerer, comparison=comparison) as here:
        client = threading.Thread(
            target=lambda: told.append(here.client.post("/v1/compare", json={"question": LT350}).status_code)
        )
        client.start()
        assert asked.wait(60)
        assert here.service.loop is not None
        here.service.loop.call_soon_threadsafe(here.server.drain)
        until(lambda: here.service.state == "draining")
        assert here.client.post("/v1/compare", json={"question": LT350}).json()["code"] == "draining"
        go_on.set()
        client.join(60)
        here.thread.join(60)
    assert told == [200]


def test_an_adapter_that_cannot_be_compared_ends_the_command(
    demo_index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["serve", str(demo_index), "--port", "0", "-q", "--compare-plain", str(tmp_path), "--decoding", "copy"]
    assert main(arguments) == 2
    assert f"error: {tmp_path}: no adapter that ragqa trained" in capsys.readouterr().err
