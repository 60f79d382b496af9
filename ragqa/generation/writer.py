"""What was found -> prompts -> what is written, as settings and adapter want it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ragqa.errors import ModelError
from ragqa.generation.adapter import Adapter
from ragqa.generation.choice import MOST, Choice, eligible
from ragqa.generation.generator import Generator
from ragqa.generation.limits import check_time
from ragqa.generation.prompt import Prompt, PromptBuilder, Shown, cut_at_tokens
from ragqa.generation.sources import Writing, Written, copied
from ragqa.generation.verify import COLDEST, Sampling
from ragqa.records import Later, Retrieval
from ragqa.settings import AnswerSettings

# Tokens that a prompt needs at least.
_LEAST_PROMPT: Final = 64
# Tokens of a batch, answers included. Keys and values of SmolLM2-135M take 23 kB a token in 16 bits, 1.5 GB of so many.
_MOST_TOKENS: Final = 65_536


class Writer:
    """Asks a generator as its adapter was trained.

    Args:
        trained: how the adapter wants to be asked; None for none, and for one of another program.
        foreign: there is an adapter of another program.
    """

    def __init__(self, trained: Adapter | None, foreign: bool = False) -> None:
        self._trained, self._foreign = trained, foreign

    @property
    def judges(self) -> bool:
        """Whether the adapter was trained to tell which candidate is right, and that none is."""
        return self._trained is not None and self._trained.mode == "retrieval"

    @property
    def choice(self) -> Choice | None:
        """How the adapter's word is joined with the retriever's."""
        return self._trained.choice if self._trained and self.judges else None

    def is_free(self, use: AnswerSettings) -> bool:
        """Whether the generator writes the text; otherwise it chooses its source at most."""
        if use.decoding == "auto":
            return self._plain or self._foreign
        return use.decoding == "free" or (self._plain and use.decoding != "copy")

    def asks(self, found: Retrieval, use: AnswerSettings) -> bool:
        """Whether the generator reads a prompt for this answer; not to copy, or to choose the one exact title."""
        if use.decoding == "copy" or self.is_free(use) or use.probabilities:
            return use.decoding != "copy"
        shown = found.candidates[: use.context_products]
        return not (shown and shown[0].exact and len(eligible(shown)) == 1)

    def write(
        self,
        generator: Callable[[], Generator],
        found: Sequence[Retrieval],
        use: AnswerSettings,
        until: float | None = None,
    ) -> list[tuple[Prompt, Written]]:
        """Prompts and answers, in order; computed in batches of like length.

        Args:
            generator: loads it; not called where nothing needs it.
            found: for each question.
            use: how it is answered.
            until: when the time is over, by `time.monotonic`; None for never.

        Raises:
            TimeLimitError: it was over before there was anything of one of them.
        """
        if not found:
            return []
        if use.decoding == "copy":
            return [copied(r, min(use.context_products, MOST), self.choice) for r in found]
        model = generator()
        asked = [i for i, r in enumerate(found) if self.asks(r, use)]
        read = self._read(model, [found[i] for i in asked], use, until) if asked else []
        answers = dict(zip(asked, read, strict=True))
        return [answers[i] if i in answers else self._settled(model, r, use) for i, r in enumerate(found)]

    def _settled(self, generator: Generator, found: Retrieval, use: AnswerSettings) -> tuple[Prompt, Written]:
        """The description of the one exact title. No model reads a prompt for it, so none is made unless it is looked at."""
        shown = found.candidates[: self._most_shown(generator, use)]
        later = Later(lambda: self.prompts(generator, [found], use)[0].text)
        prompt = Prompt("", (), tuple(Shown(c, c.product.description) for c in shown), later)
        return prompt, Written(cut_at_tokens(generator.tokenizer, shown[0].product.description, use.max_new_tokens), 0)

    def _read(
        self, model: Generator, found: Sequence[Retrieval], use: AnswerSettings, until: float | None
    ) -> list[tuple[Prompt, Written]]:
        """See `write`; the generator reads a prompt for each."""
        prompts = self.prompts(model, found, use)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids))
        answers: dict[int, Written] = {}
        for rows in _batches(order, [len(prompt.ids) + use.max_new_tokens for prompt in prompts], use.batch_size):
            few, asked = [prompts[i] for i in rows], [found[i] for i in rows]
            check_time(until)
            if self.is_free(use):
                written = model.free(few, _writing(use, until), asked)
            else:
                written = model.extractive(few, use.max_new_tokens, asked, use.probabilities, until)
            answers |= zip(rows, written, strict=True)
        return [(prompt, answers[i]) for i, prompt in enumerate(prompts)]

    def stream(
        self, generator: Generator, found: Retrieval, use: AnswerSettings, least: float, until: float | None = None
    ) -> Iterator[str | tuple[Prompt, Written]]:
        """The text of one free answer in pieces, then what `write` gives; no text where its source is less sure than `least`."""
        prompt = self.prompts(generator, [found], use)[0]
        for piece in generator.stream(prompt, _writing(use, until), found, least):
            yield (prompt, piece) if isinstance(piece, Written) else piece

    @property
    def _plain(self) -> bool:
        return self._trained is not None and self._trained.mode == "plain"

    def prompts(self, generator: Generator, found: Sequence[Retrieval], use: AnswerSettings) -> list[Prompt]:
        """What the generator is given for each question, with as many candidates as it was trained with at most."""
        builder, shown = self._builder(generator, use), self._most_shown(generator, use)
        return [builder.build(r.question, r.candidates[:shown]) for r in found]

    def _most_shown(self, generator: Generator, use: AnswerSettings) -> int:
        """How many candidates a prompt has at most."""
        if self._plain:
            return 0
        return min(use.context_products, MOST) if generator.choice else use.context_products

    def _builder(self, generator: Generator, use: AnswerSettings) -> PromptBuilder:
        limit = use.context_tokens
        if generator.max_positions is not None:
            # An adapter's number, its bracket and the end stand beside the text.
            beside = 4 if generator.choice else 0
            limit = min(limit, generator.max_positions - use.max_new_tokens - beside)
        if limit < _LEAST_PROMPT:
            raise ModelError(
                f"the generator reads {generator.max_positions} tokens, which leaves {limit} for the prompt besides "
                f"{use.max_new_tokens} for the answer; lower --max-new-tokens, or choose another generator"
            )
        template = self._trained.template if self._trained else None
        return PromptBuilder(generator.tokenizer, template, max_tokens=limit)


def _batches(order: Sequence[int], tokens: Sequence[int], most: int) -> Iterator[list[int]]:
    """Answers to be computed together, of ascending length: at most so many, and no more tokens than memory is meant for."""
    rows: list[int] = []
    for row in order:
        if rows and (len(rows) == most or tokens[row] * (len(rows) + 1) > _MOST_TOKENS):
            yield rows
            rows = []
        rows.append(row)
    yield rows


def _writing(use: AnswerSettings, until: float | None) -> Writing:
    sampling = Sampling(max(use.temperature, COLDEST), use.seed) if use.temperature else None
    return Writing(use.max_new_tokens, sampling, use.stop, use.drafted, until)
