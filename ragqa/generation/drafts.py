"""What an answer may go on with: the texts it may be copied from, at the place where they agree with its end.

Inference with reference (Yang et al. 2023, arXiv 2304.04487): where the last tokens of an answer stand in a source, what
follows there is likely to follow here. The longest such agreement is taken, over all sources; the answer itself is one,
for what repeats.

A token of a draft is worth reading as long as it is likelier to be used than it is dear, its price being the share of a
pass over one token that it adds to the pass; and a draft as long as it can be expected to save what reading any draft at all
adds. How likely it is depends on how long the agreement is, and on how often drafts of this kind were right in this answer so
far. That is learnt for each answer anew, so that the same question has the same drafts whatever was asked before.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# Tokens that are right before the first wrong one, at first, and drafts seen: by how many tokens agree. An agreement of
# three tokens is hardly ever by chance, one of one token is (a comma stands anywhere).
_PRIOR: Final = {"one": (1.0, 1.0), "two": (4.0, 1.0), "more": (40.0, 1.0), "resumed": (8.0, 1.0), "begun": (80.0, 1.0)}
# The beginning of an answer, where it is that of a source, tells as much as so many tokens.
_BEGINNING: Final = 2
# After a token that differs from the source, the source is looked for again so many tokens further on at most.
_RESUMED: Final = 8


@dataclass(frozen=True, slots=True)
class Draft:
    """Tokens that an answer may go on with.

    Attributes:
        tokens: the tokens, none of them yet read by the model.
        kind: how it was found: "begun", "one", "two", "more", "resumed"; "" for an empty one.
    """

    tokens: tuple[int, ...] = ()
    kind: str = ""


class Drafter:
    """Drafts of one answer.

    Args:
        sources: token ids of each text the answer may be copied from, the likeliest first, the end of the answer
            included where the text's end may be the answer's.
        price: what one token more adds to a pass of the model, in passes over a single token, in (0, 1).
        fixed: what any draft adds to it besides, however short it is.
    """

    def __init__(self, sources: Sequence[Sequence[int]], price: float, fixed: float = 0.0) -> None:
        self._tokens: list[int] = []
        self._ends: list[int] = []  # by source: where it ends
        self._places: dict[int, list[int]] = defaultdict(list)
        for source in sources:
            for token in source:
                self._add(token)
            self._ends.append(len(self._tokens))
        # What was written may be written again; it is a source that grows.
        self._ends.append(len(self._tokens))
        self._price, self._fixed = price, fixed
        self._seen = {kind: list(counts) for kind, counts in _PRIOR.items()}
        # By the place that would come next: how many tokens before it agree with the answer's end.
        self._agreeing: dict[int, int] = {}
        self._last = -1  # the place after the one that was copied last
        self._begun = False

    def append(self, tokens: Sequence[int]) -> None:
        """Go on after tokens that the answer got."""
        starts = {0, *self._ends[:-1]}  # without the answer's own end, which goes on
        for token in tokens:
            # An answer's beginning agrees with a source's.
            before = self._agreeing if self._begun else dict.fromkeys(starts, _BEGINNING)
            self._begun, self._agreeing = True, {}
            for place in self._places.get(token, ()):
                if place + 1 not in starts:  # a source's end is followed by nothing
                    self._agreeing[place + 1] = 1 + before.get(place, 0)
            if self._agreeing:
                best = self._best()
                if self._agreeing[best] > 1:
                    self._last = best
            self._add(token)
            self._ends[-1] += 1

    def learn(self, draft: Draft, right: int) -> None:
        """Take note of how many tokens of a draft were right."""
        if draft.kind:
            counts = self._seen[draft.kind]
            counts[0] += right
            counts[1] += right < len(draft.tokens)

    def propose(self, most: int) -> Draft:
        """The draft from here, of at most `most` tokens."""
        if most < 1 or not self._tokens:
            return Draft()
        if not self._begun:
            return self._from(0, "begun", most)
        if not self._agreeing:
            return Draft()
        place = self._best()
        agreeing = self._agreeing[place]
        if agreeing == 1:
            near = [p for p in self._agreeing if 0 < p - self._last <= _RESUMED] if self._last >= 0 else []
            return self._from(min(near), "resumed", most) if near else self._from(place, "one", most)
        return self._from(place, "two" if agreeing == 2 else "more", most)

    def _add(self, token: int) -> None:
        self._places[token].append(len(self._tokens))
        self._tokens.append(token)

    def _best(self) -> int:
        """The longest agreement; of equal ones the one that goes on from what was copied last, or the first."""
        return min(self._agreeing, key=lambda place: (-self._agreeing[place], place != self._last + 1, place))

    def _from(self, place: int, kind: str, most: int) -> Draft:
        right, wrong = self._seen[kind]
        # A token is used if all before it are right.
        likely = right / (right + wrong)
        longest = int(math.log(self._price) / math.log(likely))
        end = next((end for end in self._ends if place < end), place)
        tokens = self._tokens[place : min(end, place + most, place + longest)]
        used = likely * (1 - likely ** len(tokens)) / (1 - likely)
        worth = used >= self._fixed + self._price * len(tokens)
        return Draft(tuple(tokens), kind) if tokens and worth else Draft()
