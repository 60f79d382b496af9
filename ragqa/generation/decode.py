"""Prompts -> answers: the two ways a generator is asked.

*Free*: greedy generation. *Extractive*: the generator reads the question and all candidates and chooses the
source; the text is that source's own. A small model that was not fine-tuned copies a retrieved description
word for word in a third of its answers and invents in the others; one that was fine-tuned still "corrects" a word
in one answer of eight. So extractive is the default wherever the model is given sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ragqa.errors import ModelError
from ragqa.generation.choice import Choice, eligible, number_tokens
from ragqa.generation.prompt import Prompt, Shown, cut_at_tokens
from ragqa.records import Retrieval

if TYPE_CHECKING:
    import torch

# How many nats of the model's preference one unit of retrieval score outweighs. Measured with the untrained
# SmolLM2-135M on partial questions, 60 about LF-Amazon and 80 about Best Buy products, the right one of three chosen:
# model alone 58 and 71 %, retrieval (cosine) alone 97 and 83 %, both at weight 20: 98 and 81 %, at 50: 98 and 84 %.
# Beyond the model alone these differ by one question or two, so 20 leaves it a say without a measured loss.
_SCORE_WEIGHT: Final = 20.0


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer's text, and which of the shown candidates it was taken from, if it is known.

    Attributes:
        confidence: the probability that the chosen source is the right one, where an adapter's choice was
            calibrated; None leaves the retriever's.
    """

    text: str
    chosen: int | None
    confidence: float | None = None


class Generator:
    """A language model, decoder-only or encoder-decoder, asked with prompts.

    Args:
        model: the model, on its device.
        tokenizer: its tokenizer, padding on the left.
        choice: how the source is chosen from the number an adapter's answer begins with, which takes what was `found`
            with each prompt; None for models that were not trained so.
    """

    def __init__(self, model: Any, tokenizer: Any, choice: Choice | None = None) -> None:
        import transformers

        configuration: Any = transformers.GenerationConfig
        self.model = model
        self.tokenizer = tokenizer
        self.choice = choice
        self.encodes = bool(model.config.is_encoder_decoder)
        self._numbers = number_tokens(tokenizer) if choice else ()
        ends = model.generation_config.eos_token_id
        ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        # A model's own configuration may hold penalties and sampling, which are not greedy decoding and harm copying.
        model.generation_config = configuration(
            do_sample=False,
            eos_token_id=sorted({*ends, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])}) or None,
            pad_token_id=tokenizer.pad_token_id,
            decoder_start_token_id=decoder_start(model) if self.encodes else None,
        )

    @property
    def max_positions(self) -> int | None:
        """How many tokens the model can read, None if it does not say."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def free(self, prompts: Sequence[Prompt], max_new_tokens: int, found: Sequence[Retrieval] = ()) -> list[Draft]:
        """Greedy answers for a batch of prompts; an adapter's source is chosen first, as in `extractive`."""
        chosen = self._choose_numbers(prompts, found) if self.choice else [(None, None)] * len(prompts)
        starts = [() if i is None else (self._numbers[i + 1],) for i, _ in chosen]
        texts = self._generate(prompts, starts, max_new_tokens)
        return [Draft(text, i, sure) for text, (i, sure) in zip(texts, chosen, strict=True)]

    def extractive(
        self, prompts: Sequence[Prompt], max_new_tokens: int, found: Sequence[Retrieval] = ()
    ) -> list[Draft]:
        """For each prompt the chosen candidate's description, at most `max_new_tokens` tokens of it."""
        chosen = self._choose_numbers(prompts, found) if self.choice else [(i, None) for i in self._choose(prompts)]
        return [
            Draft(
                cut_at_tokens(self.tokenizer, prompt.shown[i or 0].candidate.product.description, max_new_tokens),
                i,
                sure,
            )
            for prompt, (i, sure) in zip(prompts, chosen, strict=True)
        ]

    def number_log_probs(self, prompts: Sequence[Prompt]) -> list[list[float]]:
        """For each prompt the log-probabilities that the answer begins with 0, 1, ... up to its candidates' count.

        They are renormalised over these numbers.
        """
        numbers = list(self._numbers or number_tokens(self.tokenizer))
        return [
            log_probs[numbers[: 1 + len(prompt.shown)]].log_softmax(-1).tolist()
            for prompt, log_probs in zip(prompts, self._first_logits([p.ids for p in prompts]), strict=True)
        ]

    def greedy(self, prompt: Sequence[int], max_new_tokens: int) -> tuple[list[int], torch.Tensor]:
        """The tokens of the greedy answer to one prompt, and the first one's log-probabilities, (vocabulary,)."""
        import torch

        first = self._first_logits([prompt])[0].log_softmax(-1)
        inputs = self._batch([prompt])
        with torch.inference_mode():
            out = self.model.generate(**inputs, max_new_tokens=max_new_tokens)
        return out[0, 0 if self.encodes else len(prompt) :].tolist(), first

    def _choose_numbers(
        self, prompts: Sequence[Prompt], found: Sequence[Retrieval]
    ) -> list[tuple[int | None, float | None]]:
        """The chosen candidate of each prompt and its probability, by `choice`; an exact title is not asked about."""
        assert self.choice  # noqa: S101  (for the type checker)
        chosen: list[tuple[int | None, float | None]] = [(_eligible(prompt)[0], None) for prompt in prompts]
        open_ = [i for i, prompt in enumerate(prompts) if not (prompt.shown[0].candidate.exact and _lone(prompt))]
        if not open_:
            return chosen
        for i, log_probs in zip(open_, self.number_log_probs([prompts[i] for i in open_]), strict=True):
            shown = [s.candidate for s in prompts[i].shown]
            chosen[i] = self.choice.pick(shown, found[i].question.subject, found[i].confidence, log_probs)
        return chosen

    def _generate(self, prompts: Sequence[Prompt], starts: Sequence[tuple[int, ...]], max_new_tokens: int) -> list[str]:
        import torch

        # A decoder-only model goes on after prompt and start; an encoder-decoder is given the start to decode from.
        inputs = self._batch([(*p.ids, *(() if self.encodes else s)) for p, s in zip(prompts, starts, strict=True)])
        begun = inputs["input_ids"].shape[1]
        if self.encodes:
            begin = decoder_start(self.model)
            inputs["decoder_input_ids"] = torch.tensor([[begin, *s] for s in starts], device=self.model.device)
            begun = inputs["decoder_input_ids"].shape[1]
        # The bracket that closes a number is no part of the answer.
        spare = 2 if any(starts) else 0
        with torch.inference_mode():
            out = self.model.generate(**inputs, max_new_tokens=max_new_tokens + spare)
        texts = self.tokenizer.batch_decode(out[:, begun:], skip_special_tokens=True)
        return [(t.strip().removeprefix("]") if s else t).strip() for t, s in zip(texts, starts, strict=True)]

    def _first_logits(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Logits of the answer's first token, (prompts, vocabulary) in float32."""
        import torch

        inputs = self._batch(prompts)
        with torch.inference_mode():
            if self.encodes:
                begin = torch.full((len(prompts), 1), decoder_start(self.model), device=self.model.device)
                out = self.model(**inputs, decoder_input_ids=begin, use_cache=False)
            else:
                out = self.model(**inputs, logits_to_keep=1, use_cache=False)
        logits: torch.Tensor = out.logits[:, -1].float()
        return logits

    def _choose(self, prompts: Sequence[Prompt]) -> list[int]:
        """The best candidate of each prompt by the model's first token and the retrieval score.

        An exact title always wins; where there is one such candidate, or one in all, there is nothing to
        choose and the model is not asked.
        """
        eligible = [_eligible(prompt) for prompt in prompts]
        open_ = [i for i, choices in enumerate(eligible) if len(choices) > 1]
        chosen = [choices[0] for choices in eligible]
        if not open_:
            return chosen
        logits = self._first_logits([prompts[i].ids for i in open_])
        for i, log_probs in zip(open_, logits.log_softmax(-1), strict=True):
            shown = prompts[i].shown

            def value(k: int, shown: Any = shown, log_probs: torch.Tensor = log_probs) -> tuple[float, int]:
                first = self.tokenizer(f" {shown[k].description[:40]}", add_special_tokens=False)["input_ids"][:1]
                preference = float(log_probs[first[0]]) if first else 0.0
                return preference + _SCORE_WEIGHT * shown[k].candidate.score, -k

            chosen[i] = max(eligible[i], key=value)
        return chosen

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


def copied(found: Retrieval, count: int, choice: Choice | None) -> tuple[Prompt, Draft]:
    """The likeliest of the first `count` candidates' description, whole, by an adapter's choice if there is one.

    No model is asked; the prompt is empty.
    """
    shown = found.candidates[:count]
    prompt = Prompt("", (), tuple(Shown(c, c.product.description) for c in shown))
    if not shown:
        return prompt, Draft("", None)
    best, sure = choice.pick(shown, found.question.subject, found.confidence) if choice else (0, None)
    return prompt, Draft(shown[best].product.description, best, sure)


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


def _eligible(prompt: Prompt) -> list[int]:
    return eligible([shown.candidate for shown in prompt.shown])


def _lone(prompt: Prompt) -> bool:
    return len(_eligible(prompt)) == 1
