"""Answers while they are written, on the real weights."""

import asyncio
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ragqa import Answerer
from ragqa.answerer import ABSTENTIONS
from ragqa.errors import InputError, QuestionError

pytestmark = pytest.mark.weights

ASKED = "What is the description of the Lumen headlamp LT-350?"
FREE: dict[str, Any] = {"decoding": "free", "max_new_tokens": 40}


@pytest.fixture(scope="module")
def answerer(demo_index: Path) -> Answerer:
    return Answerer.from_pretrained(demo_index, dtype="float32")


def test_the_pieces_are_the_answer(answerer: Answerer) -> None:
    stream = answerer.stream(ASKED, **FREE, drafted=False)
    pieces = list(stream)
    assert len(pieces) > 5
    asked = answerer.ask(ASKED, **FREE)
    assert "".join(pieces) == stream.answer.text == asked.text
    assert stream.answer.sources == asked.sources
    assert [replace(span, probability=None) for span in stream.answer.spans] == [
        replace(span, probability=None) for span in asked.spans
    ]


def test_a_right_draft_comes_in_fewer_pieces(answerer: Answerer) -> None:
    assert len(list(answerer.stream(ASKED, **FREE))) < len(list(answerer.stream(ASKED, **FREE, drafted=False)))


@pytest.mark.parametrize("settings", [{}, {"decoding": "copy"}])
def test_an_answer_that_is_not_written_is_one_piece(answerer: Answerer, settings: dict[str, Any]) -> None:
    stream = answerer.stream(ASKED, **settings)
    assert list(stream) == [stream.answer.text] == [answerer.ask(ASKED, **settings).text]


def test_that_there_is_no_answer_is_one_piece(answerer: Answerer) -> None:
    stream = answerer.stream("Do you have surfboards?", **FREE)
    assert list(stream) == [ABSTENTIONS["en"]]
    assert stream.answer.abstained


def test_the_answer_is_there_when_all_pieces_were_taken(answerer: Answerer) -> None:
    with answerer.stream(ASKED, **FREE, drafted=False) as stream:
        next(stream)
        with pytest.raises(InputError, match="when all its pieces were taken"):
            _ = stream.answer
    assert list(stream) == [], "it is closed"


def test_errors_come_with_the_first_piece(answerer: Answerer) -> None:
    stream = answerer.stream(" ")
    with pytest.raises(QuestionError):
        next(stream)


def test_a_stop_string_ends_a_stream_and_is_not_given(answerer: Answerer) -> None:
    whole = answerer.ask(ASKED, **FREE).text
    stop = whole.split()[4]
    stream = answerer.stream(ASKED, **FREE, stop=[stop])
    assert "".join(stream) == stream.answer.text == whole.partition(stop)[0].strip()
    assert answerer.ask(ASKED, **FREE, stop=["never written"]).text == whole


def test_drawn_answers_are_those_of_their_seed(answerer: Answerer) -> None:
    hot = {**FREE, "temperature": 1.5}
    texts = [answerer.ask(ASKED, **hot, seed=seed).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_the_event_loop_is_not_kept_waiting(answerer: Answerer) -> None:
    answerer.ask(ASKED, **FREE)  # loaded

    async def run() -> tuple[str, str, float, int]:
        waited, ticks, done = 0.0, 0, asyncio.Event()

        async def tick() -> None:
            nonlocal waited, ticks
            while not done.is_set():
                before = time.perf_counter()
                await asyncio.sleep(0.005)
                waited, ticks = max(waited, time.perf_counter() - before), ticks + 1

        ticking = asyncio.create_task(tick())
        text = "".join([piece async for piece in answerer.astream(ASKED, **FREE, drafted=False)])
        answer = await answerer.aask(ASKED, **FREE)
        done.set()
        await ticking
        return text, answer.text, waited, ticks

    streamed, asked, _, ticks = asyncio.run(run())
    assert streamed == asked
    assert ticks > 10, "others had their turn while answers were computed"


def test_a_cancelled_stream_ends_and_leaves_nothing_running(answerer: Answerer) -> None:
    running = threading.active_count()

    async def run() -> int:
        pieces = 0
        stream = answerer.astream(ASKED, **FREE | {"max_new_tokens": 160}, drafted=False)

        async def read() -> None:
            nonlocal pieces
            async for _ in stream:
                pieces += 1

        task = asyncio.create_task(read())
        while pieces < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert list(stream) == []
        return pieces

    assert 3 <= asyncio.run(run()) < 30
    assert threading.active_count() <= running


def test_spans_say_what_was_copied_from_where(answerer: Answerer) -> None:
    answer = answerer.ask(ASKED)
    (span,) = answer.spans
    assert (span.start, span.stop, span.source) == (0, len(answer.text), answer.sources[0].id)
    assert answer.sources[0].description[span.source_start : span.source_stop] == answer.text
    assert (answer.grounded, span.probability) == (1.0, None)


def test_the_model_may_be_asked_how_probable_a_span_is(answerer: Answerer) -> None:
    (span,) = answerer.ask(ASKED, probabilities=True).spans
    assert span.probability is not None
    assert 0.05 < span.probability <= 1
    free = answerer.ask(ASKED, **FREE).spans
    assert all(one.probability is not None and 0 < one.probability <= 1 for one in free)
