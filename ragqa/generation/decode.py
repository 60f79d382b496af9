"""Prompts -> tokens, many of them a pass: what a draft says is read by the model at once, and kept as far as it agrees.

Greedy, an answer has the tokens that it would have one by one. With a temperature each has the distribution that it
would have: a draft's token is kept with the model's own probability of it, and replaced by one of the others otherwise
(speculative sampling, Leviathan et al. 2023, arXiv 2211.17192, with a draft that is certain of itself).

Answers are written together, each with a draft of its own length. What a pass read beyond the tokens that were kept
stays in the cache of keys and values where another answer needs its place, and is masked; positions are counted
without it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ragqa.generation.caches import joined, new_cache, takes_holes
from ragqa.generation.drafts import Draft, Drafter
from ragqa.generation.prefixes import Prefixes
from ragqa.generation.verify import Sampling, agreed, drawn

if TYPE_CHECKING:
    import torch

# What a token more adds to a pass over one, in such passes. SmolLM2-135M after 900 tokens on 2 cores: 0.06 in float32,
# 0.07 in bfloat16 (passes over 1 and 130 tokens). A GPU is hardly busy with one token.
PRICES: Final = {"cpu": 0.06, "cuda": 0.002}
# What any draft adds besides. Two tokens are multiplied by another routine than one: on a processor without AVX-512, in float32,
# a pass then takes 0.7 passes more. A whole one is asked for, by which text that repeats nothing gains in either case and
# copied text loses nothing.
FIXED: Final = {"cpu": 1.0, "cuda": 0.0}
# Logits of one pass at most, in numbers; drafts are as short as that makes them, but not shorter than the least.
_LOGITS: Final = 64_000_000
_LEAST_DRAFT: Final = 8

_T = TypeVar("_T")


@dataclass(slots=True)
class Answering:
    """An answer that is being written.

    Attributes:
        prompt: token ids.
        most: how many tokens it gets at most, its end included.
        drafter: proposes how it goes on; None writes token by token.
        first: decides on the first token, from its logits (vocabulary,); None leaves it to the model.
        tokens: what it has so far, its end included.
        log_probs: what the model gave each of them, in nats, by the unchanged logits.
        done: no more are written; may be set from outside.
        passes: of the model, for this answer.
        drafted: tokens of drafts that were read.
        kept: of them the ones that were right.
    """

    prompt: tuple[int, ...]
    most: int
    drafter: Drafter | None = None
    first: Callable[[torch.Tensor], int] | None = None
    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    done: bool = False
    passes: int = 0
    drafted: int = 0
    kept: int = 0

    def draft(self, most: int) -> Draft:
        """What it may go on with, of at most `most` tokens; the model itself adds one."""
        if self.drafter is None:
            return Draft()
        return self.drafter.propose(min(most, self.most - len(self.tokens) - 1))

    def add(
        self, draft: Draft, right: int, tokens: Sequence[int], log_probs: Sequence[float], ends: AbstractSet[int]
    ) -> None:
        """Take tokens that a pass gave, up to the end of the answer."""
        self.passes, self.drafted, self.kept = self.passes + 1, self.drafted + len(draft.tokens), self.kept + right
        end = next((place for place, token in enumerate(tokens, 1) if token in ends), len(tokens))
        self.tokens += tokens[:end]
        self.log_probs += log_probs[:end]
        self.done = self.done or len(self.tokens) >= self.most or self.tokens[-1] in ends
        if self.drafter is not None:
            self.drafter.learn(draft, right)
            self.drafter.append(tokens[:end])


@dataclass(slots=True)
class _Read:
    """Answers with what the model has read of them.

    Attributes:
        cache: keys and values.
        pending: of each answer the tokens that are to be read next.
        prompts: those that are being read, until they are.
        counts: which of the cache's places are an answer's, (answers, places); None where all are.
    """

    answers: list[Answering]
    cache: Any
    pending: list[list[int]]
    prompts: Sequence[Sequence[int]] = ()
    counts: torch.Tensor | None = None


class Decoder:
    """Writes answers with a decoder-only model whose cache of keys and values can be rolled back, see `can_roll_back`.

    Args:
        model: on its device.
        ends: tokens that end an answer.
        prefixes: keeps what was read of prompts, for those that begin alike; None keeps nothing.
    """

    def __init__(self, model: Any, ends: Sequence[int], prefixes: Prefixes | None = None) -> None:
        self._model, self._ends, self.prefixes = model, frozenset(ends), prefixes
        self._vocabulary = int(model.config.get_text_config().vocab_size)
        # A CPU is busy with one prompt, and reads it faster without the mask that prompts of unlike length need.
        self._apart = model.device.type == "cpu"
        device = model.device.type
        self.price, self.fixed = PRICES.get(device, PRICES["cuda"]), FIXED.get(device, FIXED["cuda"])

    def write(self, answers: Sequence[Answering], sampling: Sampling | None = None) -> Iterator[Answering]:
        """Write answers together; each is given back whenever it has got tokens, with all that it has.

        Whoever stops asking for more leaves nothing behind: the cache goes with the iterator.
        """
        import torch

        draws = None if sampling is None else torch.Generator(self._model.device).manual_seed(sampling.seed)
        going: list[_Read] = []
        for group in self._groups(answers):
            read = self._begin([answer.prompt for answer in group], group)
            yield from self._passed(read, sampling, draws)
            if self._goes_on(read):
                going.append(read)
        together = [self._joined(going)] if len(going) > 1 and self._holes else going
        del going
        while together:
            yield from self._passed(together[0], sampling, draws)
            if not self._goes_on(together[0]):
                del together[0]

    def first_logits(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Logits of the token after each prompt, (prompts, vocabulary) in float32."""
        import torch

        found = []
        for group in self._groups(prompts):
            read = self._begin(group)
            found.append(self._forward(read, [()] * len(group))[:, 0].float())
        return torch.cat(found)

    def log_probs(self, prompt: Sequence[int], tokens: Sequence[int]) -> list[float]:
        """Log-probabilities of given tokens after a prompt, by one pass."""
        import torch

        if not tokens:
            return []
        logits = self._forward(self._begin([prompt]), [tuple(tokens[:-1])])[0].float()
        given = torch.tensor(tokens, device=logits.device)[:, None]
        found: list[float] = logits.log_softmax(-1).gather(1, given)[:, 0].tolist()
        return found

    def _groups(self, items: Sequence[_T]) -> list[list[_T]]:
        if self._apart or len(items) < 2 or not self._holes:
            return [[item] for item in items]
        return [list(items)] if items else []

    def _begin(self, prompts: Sequence[Sequence[int]], answers: Sequence[Answering] = ()) -> _Read:
        """What is known of prompts before they are read: at least a token of each is left to read."""
        same, known = (0, None) if self.prefixes is None else self.prefixes.longest(prompts)
        cache = new_cache(self._model, () if known is None else known.beginning(same, len(prompts)))
        return _Read(list(answers), cache, [list(prompt[same:]) for prompt in prompts], prompts)

    def _passed(self, read: _Read, sampling: Sampling | None, draws: torch.Generator | None) -> list[Answering]:
        """The answers of a pass, with their new tokens."""
        import torch

        most = max(_LEAST_DRAFT, _LOGITS // (self._vocabulary * len(read.answers)))
        drafts = [answer.draft(most) for answer in read.answers]
        logits = self._forward(read, [draft.tokens for draft in drafts])
        right = []
        picks = logits.argmax(-1).tolist() if sampling is None else []
        with torch.inference_mode():
            for row, (answer, draft) in enumerate(zip(read.answers, drafts, strict=True)):
                mine = logits[row, : len(draft.tokens) + 1]
                decided = answer.first(mine[0].float()) if answer.first and not answer.tokens else None
                if sampling is None:
                    found = agreed(picks[row], draft.tokens, decided)
                else:
                    found = drawn((mine.float() / sampling.temperature).softmax(-1), draft.tokens, decided, draws)
                right.append(len(found) - 1)
                kept = mine[: len(found)].float()
                given = kept.gather(1, torch.tensor(found, device=kept.device)[:, None])[:, 0]
                answer.add(draft, right[-1], found, (given - kept.logsumexp(-1)).tolist(), self._ends)
        self._roll_back(read, [len(draft.tokens) for draft in drafts], right)
        return read.answers

    def _forward(self, read: _Read, drafts: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """Logits after the last pending token and after each of the draft's, (answers, 1 + longest draft, vocabulary).

        Pending tokens end together, drafts begin together; what fills up counts for nothing.
        """
        import torch

        longest, width = max(map(len, read.pending)), max(map(len, drafts))
        before = read.cache.get_seq_length()
        rows, places = [], []
        known = [before] * len(drafts) if read.counts is None else read.counts.sum(1).tolist()
        for pending, draft, start in zip(read.pending, drafts, known, strict=True):
            left, after = longest - len(pending), width - len(draft)
            rows.append([0] * left + pending + [*draft] + [0] * after)
            places.append([0] * left + list(range(start, start + len(pending) + len(draft))) + [0] * after)
        device = self._model.device
        ids = torch.tensor(rows, device=device)
        inputs: dict[str, Any] = {"input_ids": ids, "past_key_values": read.cache, "use_cache": True}
        if len(drafts) > 1 or read.counts is not None:
            new = torch.tensor(
                [
                    [
                        column >= longest - len(pending) and column < longest + len(draft)
                        for column in range(longest + width)
                    ]
                    for pending, draft in zip(read.pending, drafts, strict=True)
                ],
                device=device,
            )
            old = read.counts
            if old is None:
                old = torch.ones(len(drafts), before, dtype=torch.bool, device=device)
            read.counts = torch.cat([old, new], 1)
            inputs |= {"attention_mask": read.counts.long(), "position_ids": torch.tensor(places, device=device)}
        with torch.inference_mode():
            logits: torch.Tensor = self._model(**inputs, logits_to_keep=width + 1).logits
        if self.prefixes is not None and read.prompts:
            # The longest has nothing that fills up before it.
            row = max(range(len(read.prompts)), key=lambda row: len(read.prompts[row]))
            self.prefixes.keep(read.prompts[row], read.cache, row)
        read.prompts = ()
        return logits

    def _roll_back(self, read: _Read, drafted: Sequence[int], right: Sequence[int]) -> None:
        """Take what was wrong out of the cache; the last token of each answer is pending."""
        width, most = max(drafted), max(right)
        if width > most:
            read.cache.crop(most - width)
        if read.counts is not None:
            start = read.counts.shape[1] - width
            read.counts = read.counts[:, : start + most].clone()
            for row, here in enumerate(right):
                read.counts[row, start + here :] = False
        read.pending = [[answer.tokens[-1]] for answer in read.answers]

    def _goes_on(self, read: _Read) -> bool:
        """Take out answers that are done; returns whether there are others."""
        import torch

        going = [row for row, answer in enumerate(read.answers) if not answer.done]
        if 0 < len(going) < len(read.answers):
            kept = torch.tensor(going, device=self._model.device)
            read.cache.batch_select_indices(kept)
            read.counts = None if read.counts is None else read.counts[kept]
        read.answers, read.pending = [read.answers[row] for row in going], [read.pending[row] for row in going]
        return bool(going)

    def _joined(self, reads: list[_Read]) -> _Read:
        """Answers that were read apart, in one cache: each ends at its end."""
        import torch

        lengths = torch.tensor([read.cache.get_seq_length() for read in reads for _ in read.answers])
        whole = int(lengths.max())
        return _Read(
            [answer for read in reads for answer in read.answers],
            joined([read.cache for read in reads], self._model),
            [pending for read in reads for pending in read.pending],
            counts=(torch.arange(whole) >= whole - lengths[:, None]).to(self._model.device),
        )

    @functools.cached_property
    def _holes(self) -> bool:
        return takes_holes(self._model)
