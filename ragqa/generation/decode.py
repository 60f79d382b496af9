"""Prompts -> answers: the two ways a generator is asked.

*Free*: greedy generation. *Extractive*: the generator reads the question and all candidates and chooses the
source; the text is that source's own. A small model that was not fine-tuned copies a retrieved description
word for word in a third of its answers and invents in the others, so extractive is what an Answerer without
an adapter does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ragqa.generation.prompt import Prompt, cut_at_tokens

if TYPE_CHECKING:
    import torch

# How many nats of the model's preference one unit of retrieval score outweighs. Measured with the untrained
# SmolLM2-135M on partial questions, 60 about LF-Amazon and 80 about Best Buy products, the right one of three chosen:
# model alone 58 and 71 %, retrieval (cosine) alone 97 and 83 %, both at weight 20: 98 and 81 %, at 50: 98 and 84 %.
# Beyond the model alone these differ by one question or two, so 20 leaves it a say without a measured loss.
_SCORE_WEIGHT: Final = 20.0


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer's text, and which of the shown candidates it was taken from, if it is known."""

    text: str
    chosen: int | None


class Generator:
    """A causal language model, asked with prompts.

    Args:
        model: the model, on its device.
        tokenizer: its tokenizer, padding on the left.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        import transformers

        configuration: Any = transformers.GenerationConfig
        self.model = model
        self.tokenizer = tokenizer
        # A model's own configuration may hold penalties and sampling, which are not greedy decoding and harm copying.
        model.generation_config = configuration(
            do_sample=False,
            eos_token_id=model.generation_config.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )

    @property
    def max_positions(self) -> int | None:
        """How many tokens the model can read, None if it does not say."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def free(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Draft]:
        """Greedy answers for a batch of prompts."""
        import torch

        inputs = self._batch(prompts)
        with torch.inference_mode():
            out = self.model.generate(**inputs, max_new_tokens=max_new_tokens)
        new = out[:, inputs["input_ids"].shape[1] :]
        return [Draft(text.strip(), None) for text in self.tokenizer.batch_decode(new, skip_special_tokens=True)]

    def extractive(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Draft]:
        """For each prompt the chosen candidate's description, at most `max_new_tokens` tokens of it."""
        chosen = self._choose(prompts)
        return [
            Draft(cut_at_tokens(self.tokenizer, prompt.shown[i].candidate.product.description, max_new_tokens), i)
            for prompt, i in zip(prompts, chosen, strict=True)
        ]

    def _choose(self, prompts: Sequence[Prompt]) -> list[int]:
        """The best candidate of each prompt by the model's first token and the retrieval score.

        An exact title always wins; where there is one such candidate, or one in all, there is nothing to
        choose and the model is not asked.
        """
        import torch

        eligible = [_eligible(prompt) for prompt in prompts]
        open_ = [i for i, choices in enumerate(eligible) if len(choices) > 1]
        chosen = [choices[0] for choices in eligible]
        if not open_:
            return chosen
        inputs = self._batch([prompts[i] for i in open_])
        with torch.inference_mode():
            logits = self.model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1].float()
        for i, log_probs in zip(open_, logits.log_softmax(-1), strict=True):
            shown = prompts[i].shown

            def value(k: int, shown: Any = shown, log_probs: torch.Tensor = log_probs) -> tuple[float, int]:
                first = self.tokenizer(f" {shown[k].description[:40]}", add_special_tokens=False)["input_ids"][:1]
                preference = float(log_probs[first[0]]) if first else 0.0
                return preference + _SCORE_WEIGHT * shown[k].candidate.score, -k

            chosen[i] = max(eligible[i], key=value)
        return chosen

    def _batch(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        import torch

        width = max(len(prompt.ids) for prompt in prompts)
        pad = self.tokenizer.pad_token_id
        ids = torch.full((len(prompts), width), pad)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt.ids) :] = torch.tensor(prompt.ids)
            mask[row, width - len(prompt.ids) :] = 1
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        batch = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        return {name: tensor.to(self.model.device) for name, tensor in batch.items()}


def _eligible(prompt: Prompt) -> list[int]:
    exact = [i for i, shown in enumerate(prompt.shown) if shown.candidate.exact]
    return exact or list(range(len(prompt.shown)))
