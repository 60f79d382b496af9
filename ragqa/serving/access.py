"""Who may ask, and how often."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import os
import time
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ragqa.errors import InputError

KEYS: Final = "RAGQA_API_KEYS"
_LEAST: Final = 16  # characters of a key
_MOST_BUCKETS: Final = 10_000


def read_keys(file: str | None) -> tuple[str, ...]:
    """The keys of a file, one a line, and those of the environment, between commas; empty where there are none.

    Raises:
        InputError: the file cannot be read or has no keys, or a key is too short.
    """
    keys = [key.strip() for key in os.environ.get(KEYS, "").split(",")]
    if file is not None:
        try:
            lines = [line.strip() for line in Path(file).read_text("utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: the file of API keys cannot be read") from error
        named = [line for line in lines if line and not line.startswith("#")]
        if not named:
            raise InputError(f"{file}: no API key in this file; write one a line")
        keys += named
    keys = [key for key in keys if key]
    if any(len(key) < _LEAST for key in keys):
        raise InputError(f"an API key is shorter than {_LEAST} characters; make one with: openssl rand -hex 32")
    return tuple(dict.fromkeys(keys))


class Keys:
    """Keys by their hashes; a comparison takes the same time whatever is given."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._hashes = [hashlib.sha256(key.encode()).digest() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def who(self, authorization: bytes) -> str | None:
        """A short name for the bearer of an ``Authorization`` header; None if it holds no key of these."""
        scheme, _, key = authorization.partition(b" ")
        given, name = hashlib.sha256(key.strip()).digest(), None
        for number, known in enumerate(self._hashes):
            if hmac.compare_digest(given, known):
                name = f"key {number + 1}"
        return name if scheme.lower() == b"bearer" else None


def network(address: str) -> str:
    """What an address is counted as: IPv6 hands whole networks of 64 bits to one client."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address


class RateLimit:
    """Token buckets: so many questions a minute, so many of them at once.

    Args:
        rate: questions a minute; 0 is without limit.
        burst: how many are saved up at most.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._each, self._burst = rate / 60, float(burst)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str, count: int = 1, now: float | None = None) -> int:
        """Take `count` questions; 0 if they may be asked, otherwise whole seconds after which they may.

        What could never be had at once is let through as soon as the bucket is full.
        """
        if not self._each:
            return 0
        now = time.monotonic() if now is None else now
        left, at = self._buckets.pop(who, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._each)
        missing = min(count, self._burst) - left
        if missing <= 1e-9:
            left -= count
        self._buckets[who] = (left, now)
        if len(self._buckets) > _MOST_BUCKETS:
            self._buckets.popitem(last=False)
        return 0 if missing <= 1e-9 else max(1, math.ceil(missing / self._each))
