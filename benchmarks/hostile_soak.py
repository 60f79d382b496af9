"""Thousands of questions, good and bad, to one answerer: what each ends in, and how the memory goes."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ragqa.answerer import Answerer
from ragqa.errors import RagqaError
from ragqa.records import Answer
from ragqa.retrieval.noise import mistyped, partial_title, with_clues

# Flat: the largest after warming up is above what it was then by no more than this share.
GROWTH: Final = 0.05
_WARM: Final = 0.2
_SAMPLES: Final = 100
# Of a hundred questions so many of each kind.
MIX: Final = {
    "title, copied": 20, "title in part, copied": 18, "mistyped title, copied": 10, "with words of the text, extractive": 7,
    "written freely": 1, "streamed and left": 1, "in another language": 10, "no such product": 9, "empty": 4, "huge": 4,
    "as long as accepted": 4, "control characters": 5, "no text at all": 3, "settings that cannot be": 4,
}  # fmt: skip
_FRAMES: Final = (
    "What is the description of {}?", "Qual é a descrição deste produto: {}?", "¿Cuál es la descripción de {}?", "{}",
    "Do you have {}, please?", "Fale mais sobre {}", "Busco {}",
)  # fmt: skip
_OTHERS: Final = (
    "{} の説明は何ですか",
    "ما هو وصف {}؟",
    "Что такое {}?",
    "{} 的描述是什么",
    "Was ist {}?",
    "Τι είναι το {};",
    "{} क्या है?",
)
_BAD_SETTINGS: Final[tuple[dict[str, Any], ...]] = (
    {"top_k": 0}, {"top_k": 10**9}, {"decoding": "x"}, {"max_seconds": -1}, {"temprature": 1}, {"stop": "x"}, {"batch_size": None},
)  # fmt: skip
_FREE: Final[dict[str, Any]] = {"decoding": "free", "max_new_tokens": 16, "min_confidence": 0.0}


def soaked(answerer: Answerer, count: int, seconds: float, seed: int = 0) -> dict[str, Any]:
    """Ask so many questions, and more until the time is over.

    Returns:
        How many there were and what they ended in, resident memory in MB after warming up, at the end and at most, the
        largest growth after warming up as a share, and ``failures``.
    """
    random_ = random.Random(f"soak {seed}")  # noqa: S311  (not for secrets)
    plan = [kind for kind, times in MIX.items() for _ in range(times)]
    ended: Counter[str] = Counter()
    failures: list[str] = []
    memory: list[float] = []
    started, number, every = time.monotonic(), 0, max(count // _SAMPLES, 1)
    while number < count or time.monotonic() - started < seconds:
        if number % len(plan) == 0:
            random_.shuffle(plan)
        kind = plan[number % len(plan)]
        try:
            ended[_asked(answerer, kind, random_)] += 1
        except RagqaError as error:
            ended["refused"] += 1
            if "\n" in str(error):
                failures.append(f"question {number} ({kind}): an error of several lines")
        except Exception as error:  # noqa: BLE001  (that is what is looked for)
            failures.append(f"question {number} ({kind}): {type(error).__name__}: {str(error)[:120]}")
        number += 1
        if number % every == 0:
            memory.append(resident())
    warm = int(len(memory) * _WARM)
    growth = max(memory[warm:]) / memory[warm] - 1
    if growth > GROWTH:
        failures.append(
            f"memory grew by {growth:.1%} after warming up, from {memory[warm]:.0f} to {max(memory):.0f} MB"
        )
    return {
        "questions": number, "ended": dict(sorted(ended.items())), "warm_mb": round(memory[warm]), "end_mb": round(memory[-1]),
        "most_mb": round(max(memory[warm:])), "growth": round(growth, 4), "memory_mb": [round(one) for one in memory],
        "failures": failures[:20],
    }  # fmt: skip


def resident() -> float:
    """Resident memory of this process, in MB."""
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError("this system does not tell the memory of a process")


def _asked(answerer: Answerer, kind: str, random_: random.Random) -> str:
    """Ask one question; returns what came of it."""
    product = answerer.index.store[random_.randrange(len(answerer.index))]
    title, frame = product.title, random_.choice(_FRAMES)
    asks: dict[str, Callable[[], Any]] = {
        "title, copied": lambda: answerer.ask(frame.format(title), decoding="copy"),
        "title in part, copied": lambda: answerer.ask(
            frame.format(partial_title(title, random_, 0.6)), decoding="copy"
        ),
        "mistyped title, copied": lambda: answerer.ask(frame.format(mistyped(title, random_, 0.1)), decoding="copy"),
        "with words of the text, extractive": lambda: answerer.ask(
            with_clues(title, product.description, random_) or title, decoding="extractive"
        ),
        "written freely": lambda: answerer.ask(title, **_FREE),
        "streamed and left": lambda: _streamed(answerer, title),
        "in another language": lambda: answerer.ask(random_.choice(_OTHERS).format(title), decoding="copy"),
        "no such product": lambda: answerer.ask(frame.format(_word(random_) + " " + _word(random_)), decoding="copy"),
        "empty": lambda: answerer.ask(random_.choice(("", " ", "\n\t", "\u2003"))),
        "huge": lambda: answerer.ask(title * (4001 // len(title) + 1)),
        "as long as accepted": lambda: answerer.ask(_long(random_), decoding="copy"),
        "control characters": lambda: answerer.ask(_controls(title, random_), decoding="copy"),
        "no text at all": lambda: answerer.ask(random_.choice((None, 7, b"x", ["a"], {}))),  # type: ignore[arg-type]
        "settings that cannot be": lambda: answerer.ask(title, **random_.choice(_BAD_SETTINGS)),
    }
    answer = asks[kind]()
    if not isinstance(answer, Answer):
        return "left"
    if not answer.text and not answer.sources:
        raise AssertionError("an answer without text and sources")
    return "abstained" if answer.abstained else "answered"


def _streamed(answerer: Answerer, title: str) -> None:
    with answerer.stream(title, **_FREE) as pieces:
        next(iter(pieces), None)


def _word(random_: random.Random) -> str:
    return "".join(random_.choices("abcdefghijklmnopqrstuvwxyzáéçñöß", k=random_.randrange(3, 12)))


def _long(random_: random.Random) -> str:
    if random_.random() < 0.5:  # one word
        return "".join(random_.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=3999))
    return " ".join(_word(random_) for _ in range(600))[:3999]


def _controls(title: str, random_: random.Random) -> str:
    odd = "\x00\x07\x1b\x7f\x85\xad\u200b\u202e\u2028\ufeff\ud800\udfff\U000e0041\u0301"
    return "".join(letter + random_.choice(odd) * random_.randrange(3) for letter in title)
