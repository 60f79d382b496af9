"""Prompts -> answers: the two ways a generator is asked.

*Free*: the generator writes, drafts of the shown candidates being read many tokens a pass. *Extractive*: the generator
reads the question and all candidates and chooses the source; the text is that source's own. A small model that was not
fine-tuned copies a retrieved description word for word in a third of its answers and invents in the others; one that was
fine-tuned still "corrects" a word in one answer of eight. So extractive is the default wherever the model is given sources.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from ragqa.errors import ModelError
from ragqa.generation import sources
from ragqa.generation.caches import can_roll_back
from ragqa.generation.choice import Choice, number_tokens
from ragqa.generation.decode import Answering, Decoder
from ragqa.generation.drafts import Drafter
from ragqa.generation.limits import check_time, is_over
from ragqa.generation.pieces import Pieces
from ragqa.generation.prefixes import Prefixes
from ragqa.generation.prompt import Prompt, cut_at_tokens
from ragqa.generation.sources import Writing, Written
from ragqa.models.llama import LlamaReader
from ragqa.records import Retrieval

if TYPE_CHECKING:
    import torch

# Bytes of what was read of prompts that are kept for those that begin alike.
_PREFIXES: Final = 128 * 2**20


class Generator:
    """A language model, decoder-only or encoder-decoder, asked with prompts.

    Args:
        model: the model, on its device.
        tokenizer: its tokenizer, padding on the left.
        choice: how the source is chosen from the number an adapter's answer begins with, which takes what was `found`
            with each prompt; None for models that were not trained so.
    """

    def __init__(self, model: Any, tokenizer: Any, choice: Choice | None = None) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.choice = choice
        self.encodes = bool(model.config.is_encoder_decoder)
        self.numbers = number_tokens(tokenizer) if choice else ()
        ends = model.config.ends if isinstance(model, LlamaReader) else model.generation_config.eos_token_id
        ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        self._ends = sorted({*ends, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])})
        if not isinstance(model, LlamaReader):
            self._write_plainly(model)
        self.decoder = None if self.encodes else Decoder(model, self._ends, Prefixes(_PREFIXES))

    @property
    def max_positions(self) -> int | None:
        """How many tokens the model can read, None if it does not say."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def free(self, prompts: Sequence[Prompt], writing: Writing, found: Sequence[Retrieval] = ()) -> list[Written]:
        """Written answers for a batch of prompts; an adapter's source is chosen first, as in `extractive`.

        Raises:
            TimeLimitError: the time was over before there was anything of one of them.
        """
        check_time(writing.until)
        decoder = self._drafting(prompts, writing)
        if decoder is None:
            return self._plainly(prompts, writing, found)
        answers = [
            _Answer(self, decoder, prompt, writing, found[row] if found else None) for row, prompt in enumerate(prompts)
        ]
        by_answering = {id(answer.answering): answer for answer in answers}
        for answering in decoder.write([answer.answering for answer in answers], writing.sampling):
            by_answering[id(answering)].grown()
            if is_over(writing.until):
                break
        for answer in answers:
            if not answer.answering.tokens:
                check_time(writing.until)
            answer.pieces.close()
        return [answer.written() for answer in answers]

    def stream(
        self, prompt: Prompt, writing: Writing, found: Retrieval | None = None, least: float = 0.0
    ) -> Iterator[str | Written]:
        """The text of one answer in pieces, as they are verified, and at last what `free` gives.

        A model that cannot be drafted for gives its answer in one piece.

        Args:
            prompt, writing, found: see `free`.
            least: where the choice of the source is less sure than this, no text is written.
        """
        check_time(writing.until)
        decoder = self._drafting([prompt], writing)
        if decoder is None:
            written = self._plainly([prompt], writing, [found] if found else [])[0]
            if written.confidence is None or written.confidence >= least:
                yield written.text
            yield written
            return
        answer = _Answer(self, decoder, prompt, writing, found)
        for answering in decoder.write([answer.answering], writing.sampling):
            piece, sure = answer.grown(), answer.confidence
            if sure is not None and sure < least:
                answering.done = True
            elif piece:
                yield piece
            if is_over(writing.until):
                break
        if (answer.confidence is None or answer.confidence >= least) and (piece := answer.pieces.close()):
            yield piece
        yield answer.written()

    def extractive(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int,
        found: Sequence[Retrieval] = (),
        scored: bool = False,
        until: float | None = None,  # noqa: ARG002  (one pass is not broken off)
    ) -> list[Written]:
        """For each prompt the chosen candidate's description, at most `max_new_tokens` tokens of it.

        Args:
            prompts: with candidates.
            max_new_tokens: of the text.
            found: what was found with each prompt, for an adapter's choice.
            scored: read the text, too, for its tokens' probabilities.
            until: see `Writing`.
        """
        chosen: list[tuple[int, float | None]]
        if self.choice:
            chosen = sources.choose_numbers(prompts, found, self.choice, self.tokenizer, self._first_log_probs)
        else:
            chosen = [(i, None) for i in sources.choose_first(prompts, self.tokenizer, self._first_log_probs)]
        written = []
        for prompt, (i, sure) in zip(prompts, chosen, strict=True):
            text = cut_at_tokens(self.tokenizer, prompt.shown[i].candidate.product.description, max_new_tokens)
            log_probs = self._scores(prompt, text, i) if scored else ()
            written.append(Written(text, i, sure, log_probs))
        return written

    def number_log_probs(self, prompts: Sequence[Prompt]) -> list[list[float]]:
        """See `sources.number_log_probs`."""
        return sources.number_log_probs(prompts, self.tokenizer, self._first_log_probs)

    def greedy(self, prompt: Sequence[int], max_new_tokens: int) -> tuple[list[int], torch.Tensor]:
        """The tokens of the greedy answer to one prompt, and the first one's log-probabilities, (vocabulary,)."""
        import torch

        first = self._first_logits([prompt])[0].log_softmax(-1)
        inputs = self._batch([prompt])
        with torch.inference_mode():
            out = self.model.generate(**inputs, max_new_tokens=max_new_tokens)
        return out[0, 0 if self.encodes else len(prompt) :].tolist(), first

    def source_tokens(self, prompt: Prompt) -> list[list[int]]:
        """The tokens that an answer has which is all of a shown candidate's description, for each of them."""
        found = []
        for place, shown in enumerate(prompt.shown):
            before = "] " if self.numbers else " "
            ids = self.tokenizer(f"{before}{shown.description}", add_special_tokens=False)["input_ids"]
            end = [self.tokenizer.eos_token_id] if self.tokenizer.eos_token_id is not None else []
            found.append([*self.numbers[place + 1 : place + 2], *ids, *end])
        return found

    def _write_plainly(self, model: Any) -> None:
        """A model's own configuration may hold penalties and sampling, which are not greedy decoding and harm copying."""
        import transformers

        configuration: Any = transformers.GenerationConfig
        model.generation_config = configuration(
            do_sample=False,
            eos_token_id=self._ends or None,
            pad_token_id=self.tokenizer.pad_token_id,
            decoder_start_token_id=decoder_start(model) if self.encodes else None,
        )

    def _drafting(self, prompts: Sequence[Prompt], writing: Writing) -> Decoder | None:
        """What drafts are read with; None for a model that must write token by token."""
        most = max((len(prompt.ids) for prompt in prompts), default=0) + writing.max_new_tokens
        return self.decoder if self.decoder is not None and can_roll_back(self.model, most) else None

    def _first_log_probs(self, prompts: Sequence[Prompt], wanted: Sequence[Sequence[int]]) -> list[list[float]]:
        told = self._first_logits([prompt.ids for prompt in prompts]).log_softmax(-1)
        return [row[list(tokens)].tolist() for row, tokens in zip(told, wanted, strict=True)]

    def _first_logits(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Logits of the answer's first token, (prompts, vocabulary) in float32."""
        import torch

        if self.decoder is not None and can_roll_back(self.model, max(map(len, prompts))):
            return self.decoder.first_logits(prompts)
        inputs = self._batch(prompts)
        with torch.inference_mode():
            if self.encodes:
                begin = torch.full((len(prompts), 1), decoder_start(self.model), device=self.model.device)
                out = self.model(**inputs, decoder_input_ids=begin, use_cache=False)
            else:
                out = self.model(**inputs, logits_to_keep=1, use_cache=False)
        logits: torch.Tensor = out.logits[:, -1].float()
        return logits

    def _scores(self, prompt: Prompt, text: str, chosen: int) -> tuple[tuple[int, int, float], ...]:
        """The log-probabilities of a text's tokens, as the answer to a prompt."""
        if self.decoder is None or not can_roll_back(self.model, len(prompt.ids) + len(text)):
            return ()
        before = "] " if self.numbers else " "
        ids = self.tokenizer(f"{before}{text}", add_special_tokens=False)["input_ids"]
        number = list(self.numbers[chosen + 1 : chosen + 2])
        pieces = Pieces(self.tokenizer, before.strip())
        pieces.add(ids, self.decoder.log_probs([*prompt.ids, *number], ids))
        return pieces.log_probs if pieces.text == text.strip() else ()

    def _plainly(self, prompts: Sequence[Prompt], writing: Writing, found: Sequence[Retrieval]) -> list[Written]:
        """The answers of models that are not drafted for, by the library's own way of writing."""
        import torch

        chosen: list[tuple[int | None, float | None]] = [(None, None)] * len(prompts)
        if self.choice:
            chosen = [*sources.choose_numbers(prompts, found, self.choice, self.tokenizer, self._first_log_probs)]
        starts = [() if i is None else (self.numbers[i + 1],) for i, _ in chosen]
        # A decoder-only model goes on after prompt and start; an encoder-decoder is given the start to decode from.
        inputs = self._batch([(*p.ids, *(() if self.encodes else s)) for p, s in zip(prompts, starts, strict=True)])
        begun = inputs["input_ids"].shape[1]
        inputs.pop(
            "position_ids", None
        )  # which the library counts by the mask: transformers 5.0 goes on from them wrongly
        if self.encodes:
            begin = decoder_start(self.model)
            inputs["decoder_input_ids"] = torch.tensor([[begin, *s] for s in starts], device=self.model.device)
            begun = inputs["decoder_input_ids"].shape[1]
        drawn: dict[str, Any] = {}
        if writing.sampling is not None:
            drawn = {"do_sample": True, "temperature": writing.sampling.temperature, "top_k": 0}
        with torch.inference_mode(), torch.random.fork_rng(enabled=writing.sampling is not None):
            if writing.sampling is not None:
                torch.manual_seed(writing.sampling.seed)
            most = writing.max_new_tokens + (_BESIDE if any(starts) else 0)
            if writing.until is not None:
                drawn["max_time"] = max(writing.until - time.monotonic(), 0.0)
            out = self.model.generate(**inputs, max_new_tokens=most, **drawn)[:, begun:]
        late = is_over(writing.until) and out.shape[1] < most
        written = []
        for row, (start, (i, sure)) in enumerate(zip(starts, chosen, strict=True)):
            tokens = out[row].tolist()
            pieces = Pieces(self.tokenizer, "]" if start else "", writing.stop)
            pieces.add(tokens, [0.0] * len(tokens))
            pieces.close()
            cut = late and not set(tokens) & {*self._ends}
            written.append(Written(pieces.text, i, sure, tokens=(*start, *tokens), passes=len(tokens), shortened=cut))
        return written

    def _batch(self, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Prompts padded on the left: input_ids, attention_mask and (decoder-only) position_ids, (prompts, longest)."""
        import torch

        width = max(len(prompt) for prompt in prompts)
        ids = torch.full((len(prompts), width), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        batch = {"input_ids": ids, "attention_mask": mask}
        if not self.encodes:
            batch["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
        return {name: tensor.to(self.model.device) for name, tensor in batch.items()}


# The bracket that closes a number is no part of the answer, nor is the end.
_BESIDE: Final = 2


class _Answer:
    """One answer that is written: its tokens, its text, and what was chosen for it."""

    def __init__(
        self, generator: Generator, decoder: Decoder, prompt: Prompt, writing: Writing, found: Retrieval | None
    ) -> None:
        self._generator, self._prompt, self._found = generator, prompt, found
        choice = generator.choice
        self._chosen: tuple[int | None, float | None] = (None, None)
        self._taken = 0
        drafts = generator.source_tokens(prompt) if writing.drafted else []
        if choice and found is not None:
            # The source that is chosen without the model is the likeliest to be chosen with it.
            shown = [s.candidate for s in prompt.shown]
            self._chosen = choice.pick(shown, found.question.subject, found.confidence)
            likely = self._chosen[0] or 0
            if drafts:
                drafts.insert(0, drafts.pop(likely))
        self.pieces = Pieces(generator.tokenizer, "]" if choice else "", writing.stop)
        self.answering = Answering(
            prompt.ids,
            writing.max_new_tokens + (1 + _BESIDE if choice else 0),
            Drafter([*drafts, prompt.ids], decoder.price, decoder.fixed) if writing.drafted else None,
            self._first if choice and found is not None else None,
        )

    @property
    def confidence(self) -> float | None:
        """That the chosen source is the right one, where a choice was calibrated."""
        return self._chosen[1]

    def grown(self) -> str:
        """Take the new tokens; gives the text that is certain now and was not before."""
        tokens, start = self.answering.tokens, max(self._taken, int(self.answering.first is not None))
        self._taken = len(tokens)
        piece = self.pieces.add(tokens[start:], self.answering.log_probs[start:])
        if self.pieces.stopped:
            self.answering.done = True
        return piece

    def written(self) -> Written:
        answering = self.answering
        return Written(
            self.pieces.text,
            *self._chosen,
            log_probs=self.pieces.log_probs,
            tokens=tuple(answering.tokens),
            passes=answering.passes,
            drafted=answering.drafted,
            kept=answering.kept,
            shortened=not answering.done,
        )

    def _first(self, logits: torch.Tensor) -> int:
        """The number of the source, chosen by the model's word and what the retriever knew."""
        generator, prompt, found = self._generator, self._prompt, self._found
        numbers = generator.numbers
        if not sources.is_settled(prompt):
            shown = [s.candidate for s in prompt.shown]
            told = logits[list(numbers[: 1 + len(shown)])].log_softmax(-1).tolist()
            assert generator.choice and found  # noqa: S101, PT018  (for the type checker)
            self._chosen = generator.choice.pick(shown, found.question.subject, found.confidence, told)
        return numbers[(self._chosen[0] or 0) + 1]


def decoder_start(model: Any) -> int:
    """The token with which an encoder-decoder's decoder begins.

    Raises:
        ModelError: its configuration names none.
    """
    kept = (model.generation_config, model.config)
    start = next((s for c in kept if (s := getattr(c, "decoder_start_token_id", None)) is not None), None)
    if start is None:
        raise ModelError("the generator's configuration names no decoder_start_token_id; choose another generator")
    return int(start)
