"""A small mutational fuzzer: a corpus, a dictionary, seeded changes, and what must come of each input.

Tens of thousands of inputs a second for cheap targets; it knows nothing of coverage. An input's number and the seed make it
again. What a target does with an input must end well or in one of the project's own errors.
"""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ragqa.errors import RagqaError

_MOST_FAILURES: Final = 20
_LONGEST: Final = 20_000
# Bytes that are seldom right where they come to stand.
_DICTIONARY: Final = (
    b"\0", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\n", b"\r", b"\r\n", b'"', b"'", b"\\", b"\\u0000", b"\\ud800", b"{", b"}",
    b"[", b"]", b"[" * 2000, b'{"a":' * 1500, b",", b";", b"\t", b":", b"null", b"true", b"NaN", b"Infinity", b"-1", b"1e999",
    b"9" * 5000, b"18446744073709551616", b"2147483648", b"-9223372036854775809", b"0.1", b"\xe2\x80\x8b", b"\xe2\x80\xae",
    b"\xf3\xa0\x81\xa1", b"\xed\xa0\x80", b"\xc2\x85", b"\xe2\x80\xa8", b"\xcc\x81" * 50, b"<|im_end|>", b"[INST]", b"</s>", b"[1]",
    b"&amp;", b"&#0;", b"&#x110000;", b"<!--", b"-->", b"<b>", b"../", b"/etc/passwd", b"%s%n", b"{title}", b"data: ", b"data: [DONE]\n",
    b"choices", b"text", b"title", b"content", b"\x1f\x8b\x08\x00", b"sep=;", b"PAR1", b"ARROW1", b"What is the description of ",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """Something that takes input from outside.

    Attributes:
        name: for the report.
        corpus: inputs that are right, or nearly.
        takes: is given an input; raises AssertionError where what came of it is wrong.
        share: of all inputs, those of this target.
    """

    name: str
    corpus: Sequence[bytes]
    takes: Callable[[bytes], Any]
    share: int


def mutated(random_: random.Random, corpus: Sequence[bytes]) -> bytes:
    """One of a corpus with a few changes."""
    data = bytearray(random_.choice(corpus))
    for _ in range(1 << random_.randrange(4)):
        at = random_.randrange(len(data) + 1)
        end = min(at + 1 + int(random_.expovariate(0.1)), len(data))
        kind = random_.randrange(9)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << random_.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = random_.randrange(256)
        elif kind == 2:
            del data[at:end]
        elif kind == 3:
            data[at:at] = data[at:end] * random_.choice((1, 2, 100))
        elif kind in (4, 5):
            data[at:at] = random_.choice(_DICTIONARY)
        elif kind == 6:
            other = random_.choice(corpus)
            start = random_.randrange(len(other) + 1)
            data[at:end] = other[start : start + 200]
        elif kind == 7:
            data[at:end] = random_.randbytes(end - at)
        else:
            del data[at:]
    return bytes(data[:_LONGEST])


def fuzzed(target: Target, count: int, seed: int) -> dict[str, Any]:
    """Give a target so many inputs.

    Returns:
        ``inputs``, how many; ``refused``, those that ended in one of the project's errors; ``slowest`` in seconds; and
        ``failures``, the first of them, each with what makes its input again.
    """
    random_ = random.Random(f"{target.name} {seed}")  # noqa: S311  (not for secrets)
    refused, slowest, failures = 0, 0.0, []
    for number in range(count):
        data = target.corpus[number] if number < len(target.corpus) else mutated(random_, target.corpus)
        started = time.perf_counter()
        try:
            target.takes(data)
        except RagqaError as error:
            refused += 1
            if "\n" in str(error):
                failures.append(f"{target.name}, input {number}: an error of several lines: {str(error)[:200]!r}")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  (a panic of Rust's is no Exception)
            where = traceback.extract_tb(error.__traceback__)[-1]
            failures.append(
                f"{target.name}, input {number}: {type(error).__name__}: {str(error)[:120]!r} in {where.name}, line "
                f"{where.lineno}: {data[:120]!r}"
            )
        slowest = max(slowest, time.perf_counter() - started)
        if len(failures) >= _MOST_FAILURES:
            count = number + 1
            break
    return {"inputs": count, "refused": refused, "slowest": round(slowest, 2), "failures": failures}
