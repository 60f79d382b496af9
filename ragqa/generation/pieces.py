"""Tokens as they come -> the answer's text as it grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream


class Pieces:
    """The text of one answer.

    White space at its ends is no part of it, nor is what it opens with. It ends before the first of the stop strings.

    Args:
        tokenizer: with a fast form.
        opening: what stands before the text, such as the bracket after a number.
        stop: strings that end it.
    """

    def __init__(self, tokenizer: Any, opening: str = "", stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._opening, self._stop = opening, [text for text in stop if text]
        self._raw = ""
        self._tokens: list[tuple[int, int, float]] = []  # by characters of what was decoded
        self._waiting: list[float] = []  # of tokens that are no whole character yet
        self._given = 0
        self.stopped = False

    def add(self, tokens: Sequence[int], log_probs: Sequence[float]) -> str:
        """Take tokens with their log-probabilities; gives the text that is certain now and was not before."""
        for token, log_prob in zip(tokens, log_probs, strict=True):
            if self.stopped:
                break
            piece = self._stream.step(self._tokenizer, token) or ""
            self._waiting.append(log_prob)
            if piece:
                start, self._raw = len(self._raw), self._raw + piece
                self._tokens += [(start, len(self._raw), one) for one in self._waiting]
                self._waiting = []
                self._look_for_stop(start)
        return self._new(self._certain())

    def take(self, text: str) -> str:
        """Take text that somebody else decoded; gives the text that is certain now and was not before."""
        if not self.stopped:
            start, self._raw = len(self._raw), self._raw + text
            self._look_for_stop(start)
        return self._new(self._certain())

    def close(self) -> str:
        """The rest of the text."""
        return self._new(len(self.text))

    @property
    def text(self) -> str:
        """The text so far."""
        return self._raw[self._begin() :].rstrip()

    @property
    def log_probs(self) -> tuple[tuple[int, int, float], ...]:
        """The log-probabilities of the text's tokens: (start, stop, natural logarithm) by its characters."""
        begin, length = self._begin(), len(self.text)
        moved = ((max(start - begin, 0), min(stop - begin, length), one) for start, stop, one in self._tokens)
        return tuple((start, stop, one) for start, stop, one in moved if start < stop)

    def _begin(self) -> int:
        here = len(self._raw) - len(self._raw.lstrip())
        if self._opening and self._raw.startswith(self._opening, here):
            here += len(self._opening)
        return len(self._raw) - len(self._raw[here:].lstrip())

    def _look_for_stop(self, start: int) -> None:
        longest = max(map(len, self._stop), default=0)
        # What the answer opens with is no part of it: a stop string is not looked for there.
        first = max(self._begin(), start - longest)
        places = [at for text in self._stop if (at := self._raw.find(text, first)) >= 0]
        if places:
            self._raw, self.stopped = self._raw[: min(places)], True

    def _certain(self) -> int:
        """How much of the text stays as it is, whatever comes."""
        if self.stopped:
            return len(self.text)
        # The beginning of a stop string may become one.
        begun = max((n for text in self._stop for n in range(1, len(text)) if self._raw.endswith(text[:n])), default=0)
        return max(len(self._raw[: len(self._raw) - begun].rstrip()) - self._begin(), self._given)

    def _new(self, certain: int) -> str:
        piece, self._given = self.text[self._given : certain], max(certain, self._given)
        return piece
