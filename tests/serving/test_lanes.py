"""What is queued is done in order, what belongs together at once."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from ragqa.serving.access import Keys, RateLimit, network, read_keys
from ragqa.serving.lanes import Lane
from ragqa.serving.limits import ServiceSettings
from ragqa.serving.work import Work
from ragqa.settings import AnswerSettings
from tests.serving.conftest import until

FEW, MANY = AnswerSettings(top_k=1), AnswerSettings(top_k=9)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def work(name: str, use: AnswerSettings, loop: asyncio.AbstractEventLoop, generation: Any = None) -> Work:
    return Work("answer", name, use, generation, loop.create_future())


def test_a_batch_is_what_waits_of_one_group_and_the_others_keep_their_order(loop: asyncio.AbstractEventLoop) -> None:
    done: list[list[str]] = []
    holding, held = threading.Event(), threading.Event()

    def run(batch: Sequence[Work]) -> None:
        done.append([one.question for one in batch])
        held.set()
        assert holding.wait(60)

    lane = Lane("test", run, lambda first: 3)
    lane.start()
    lane.put([work("first", FEW, loop)])
    assert held.wait(60)
    names = [("a", FEW), ("b", MANY), ("c", FEW), ("d", MANY), ("e", FEW), ("f", FEW), ("g", MANY)]
    works = [work(name, use, loop) for name, use in names]
    lane.put(works)
    assert len(lane) == 7
    assert lane.take_out(works[2])
    assert not lane.take_out(works[2])
    holding.set()
    until(lambda: not lane)
    lane.stop(60)
    assert done == [["first"], ["a", "e", "f"], ["b", "d", "g"]]


def test_the_wait_is_told_by_what_questions_took() -> None:
    lane = Lane("test", lambda batch: None, lambda first: 1)
    assert lane.wait(5) == 0.0
    lane.measured(2.0, 4)
    assert lane.wait(3) == 1.5
    lane.measured(1.5, 1)
    assert lane.wait(1) == 1.0


def test_other_work_goes_on_while_nothing_is_queued() -> None:
    turns = []

    def turn() -> bool:
        turns.append(len(turns))
        return len(turns) < 5

    loop = asyncio.new_event_loop()
    lane = Lane("test", lambda batch: None, lambda first: 1, turn)
    lane.start()
    lane.put([work("begin", FEW, loop)])
    until(lambda: len(turns) == 5)
    lane.stop(60)
    loop.close()
    assert turns == [0, 1, 2, 3, 4]


def test_tokens_fill_the_bucket_again() -> None:
    limit = RateLimit(rate=60, burst=3)
    assert [limit.take("a", now=0.0) for _ in range(4)] == [0, 0, 0, 1]
    assert limit.take("b", now=0.0) == 0
    assert limit.take("a", 2, now=1.0) == 1
    assert limit.take("a", 2, now=2.0) == 0
    # More than the bucket holds waits for a full one, and is paid for afterwards.
    assert limit.take("a", 6, now=2.0) == 3
    assert limit.take("a", 6, now=5.0) == 0
    assert limit.take("a", now=8.0) == 1
    assert limit.take("a", now=9.0) == 0


def test_without_a_rate_nothing_is_refused() -> None:
    limit = RateLimit(0, 1)
    assert [limit.take("a", now=0.0) for _ in range(100)] == [0] * 100


def test_whoever_asked_longest_ago_is_forgotten_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragqa.serving.access._MOST_BUCKETS", 2)
    limit = RateLimit(rate=60, burst=1)
    assert [limit.take(who, now=0.0) for who in "abcbacb"] == [0, 0, 0, 1, 0, 0, 0]


def test_addresses_of_one_network_are_one_client() -> None:
    assert network("192.0.2.7") == "192.0.2.7"
    assert network("2001:db8::1") == network("2001:db8::ffff:1") == "2001:db8::/64"
    assert network("testclient") == "testclient"


def test_keys_are_read_from_file_and_environment(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\n0123456789abcdef\n\n  fedcba9876543210  \n")
    monkeypatch.setenv("RAGQA_API_KEYS", "0123456789abcdef, another-key-of-some-length")
    assert read_keys(str(file)) == ("0123456789abcdef", "another-key-of-some-length", "fedcba9876543210")
    monkeypatch.delenv("RAGQA_API_KEYS")
    assert read_keys(None) == ()
    file.write_text("short\n")
    with pytest.raises(ValueError, match="an API key is shorter than 16 characters"):
        read_keys(str(file))
    file.write_text("# none\n")
    with pytest.raises(ValueError, match="no API key in this file"):
        read_keys(str(file))
    with pytest.raises(ValueError, match="cannot be read"):
        read_keys(str(tmp_path))


def test_a_key_is_known_by_its_number() -> None:
    keys = Keys(["one", "two"])
    assert [keys.who(given) for given in (b"Bearer two", b"bearer  one ", b"Bearer three", b"two", b"", b"Basic two")] == [
        "key 2", "key 1", None, None, None, None
    ]  # fmt: skip
    assert not Keys([])


def test_limits_are_checked_all_at_once() -> None:
    with pytest.raises(ValueError, match=r"max_queue must be .* at least 1, not 0; timeout must be above 0"):
        ServiceSettings(max_queue=0, timeout=0.0)
    with pytest.raises(ValueError, match="rate must be a number of at least 0, not nan"):
        ServiceSettings(rate=float("nan"))
