"""The ways of answering that are compared, each a function of questions and a catalogue: its arm.

All arms are asked the same questions and given the same candidates, and every answer is forced: whether an arm would
have abstained is for its confidence to say. Arms that write are not asked questions that have no product, where
there is nothing to compare their answer with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from ragqa.answerer import Answerer
from ragqa.evaluation.scores import grounded
from ragqa.generation.adapter import TEMPLATES, Mode
from ragqa.generation.generator import Generator
from ragqa.generation.prompt import PromptBuilder, cut_at_tokens
from ragqa.generation.sources import Writing
from ragqa.records import Candidate, Product, Retrieval
from ragqa.retrieval.searcher import Products
from ragqa.training.questions import LabelledQuestion

System = Literal["none", "base", "plain", "retrieval"]
_BATCH: Final = 32
_NUMBER: Final = re.compile(r"^\d\]\s*")


@dataclass(frozen=True, slots=True)
class Asked:
    """A test question, and what every arm is given with it.

    Attributes:
        label: the question with its answer key.
        found: candidates by ragqa's retriever, more than any arm shows.
        gold: the right product with the retriever's scores; None where there is none.
        lexical: rows by BM25, best first.
    """

    label: LabelledQuestion
    found: Retrieval
    gold: Candidate | None
    lexical: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """An arm's answer.

    Attributes:
        text: "" where the arm was not asked.
        source: id of the product the text was taken from; of what an arm wrote with context, the one shown that most
            of its words come from. None where there is none.
        confidence: the arm's probability that it names the right product, None if it gives none.
    """

    text: str
    source: str | None
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What arms answer from.

    Attributes:
        products: by row.
        tokenizer: the generator's, which the budget of an answer is counted by.
        shown: candidates in a context.
        context_tokens: limit of a prompt.
        answer_tokens: limit of an answer.
        answerer: with the arm's model, None for arms without.
        known: answers given already, by question and what was shown, which arms of one model share.
    """

    products: Products
    tokenizer: Any
    shown: int
    context_tokens: int
    answer_tokens: int
    answerer: Answerer | None = None
    known: dict[Any, Given] = field(default_factory=dict)

    def text(self, product: Product) -> str:
        """A product's description, cut where an answer's budget cuts it."""
        return cut_at_tokens(self.tokenizer, product.description, self.answer_tokens)

    @property
    def model(self) -> Answerer:
        """The arm's model."""
        assert self.answerer is not None  # noqa: S101  (for the type checker)
        return self.answerer


@dataclass(frozen=True, slots=True)
class Arm:
    """A way of answering, and what readers are told of it.

    Attributes:
        context: what stands in the prompt beside the question.
        system: the model that has to be loaded; "base" is the generator as it is.
        generator: the model is really asked.
        extra: explains another arm, rather than being one that the comparison is about.
    """

    label: str
    about: str
    context: Literal["none", "retrieved", "gold"]
    system: System
    answer: Callable[[Sequence[Asked], Catalogue], list[Given]]
    generator: bool = True
    extra: bool = False


def copy_first(asked: Sequence[Asked], catalogue: Catalogue) -> list[Given]:
    """The first candidate's description."""
    return [_taken(a.found.candidates[0].product, a.found.confidence, catalogue) for a in asked]


def copy_first_bm25(asked: Sequence[Asked], catalogue: Catalogue) -> list[Given]:
    """The description of the first product by BM25, which gives no probability."""
    return [_taken(catalogue.products[a.lexical[0]], None, catalogue) for a in asked]


def write_alone(asked: Sequence[Asked], catalogue: Catalogue) -> list[Given]:
    """What the model writes, given the question alone."""
    return _written(asked, catalogue, "plain", [() for _ in asked])


def write_with_context(asked: Sequence[Asked], catalogue: Catalogue) -> list[Given]:
    """What the model writes, given the first candidates; the retriever's confidence goes with it."""
    shown = [a.found.candidates[: catalogue.shown] for a in asked]
    given = _written(asked, catalogue, "plain", shown)
    return [replace(g, confidence=a.found.confidence) for g, a in zip(given, asked, strict=True)]


def answer_numbered(asked: Sequence[Asked], catalogue: Catalogue) -> list[Given]:
    """`ragqa ask` with a retrieval adapter: the source it chooses, in that source's own words."""
    return _answered([a.found for a in asked], catalogue, "extractive")


def answer_numbered_freely(asked: Sequence[Asked], catalogue: Catalogue) -> list[Given]:
    """`ragqa ask --decoding free` with a retrieval adapter: the source it chooses, in the model's words."""
    return _of_those_with_product(asked, lambda few: _answered([a.found for a in few], catalogue, "free"))


def answer_numbered_given_gold(asked: Sequence[Asked], catalogue: Catalogue) -> list[Given]:
    """As `answer_numbered`, the right product put among those shown where the retriever missed it."""

    def with_gold(few: Sequence[Asked]) -> list[Given]:
        return _answered([_insert(a, catalogue.shown) for a in few], catalogue, "extractive")

    return _of_those_with_product(asked, with_gold)


def answer_numbered_alone(asked: Sequence[Asked], catalogue: Catalogue) -> list[Given]:
    """What a model trained with numbered candidates writes where it is shown none."""
    given = _written(asked, catalogue, "retrieval", [() for _ in asked])
    return [replace(g, text=_NUMBER.sub("", g.text)) for g in given]


def choose_without_model(asked: Sequence[Asked], catalogue: Catalogue) -> list[Given]:
    """The adapter's choice of sources without the model's word: what the retriever knew, weighed anew."""
    choice = catalogue.model.trained.choice if catalogue.model.trained else None
    assert choice is not None  # noqa: S101  (for the type checker)
    given = []
    for a in asked:
        shown = a.found.candidates[: catalogue.shown]
        best, sure = choice.pick(shown, a.found.question.subject, a.found.confidence)
        given.append(_taken(shown[best].product, a.found.confidence if sure is None else sure, catalogue))
    return given


_TRAINED: Final = "retrieval-conditioned fine-tuned"
ARMS: Final[Mapping[str, Arm]] = {
    "copy": Arm(
        "retrieve and return", "the first candidate's description; no generator", "retrieved", "none",
        copy_first, generator=False,
    ),
    "copy_bm25": Arm(
        "retrieve and return, BM25", "the description of the first product by BM25 over titles; no generator", "retrieved",
        "none", copy_first_bm25, generator=False,
    ),
    "base": Arm("base model", "the generator as it is, given the question alone", "none", "base", write_alone),
    "base_context": Arm(
        "base model + retrieved", "the generator as it is, given the first candidates; it writes freely", "retrieved",
        "base", write_with_context,
    ),
    "plain": Arm(
        "plain fine-tuned", "fine-tuned on question -> description, given the question alone: the original study's way",
        "none", "plain", write_alone,
    ),
    "plain_context": Arm(
        "plain fine-tuned + retrieved", "the same model, given the first candidates, which it was not trained with",
        "retrieved", "plain", write_with_context,
    ),
    "retrieval_context": Arm(
        f"{_TRAINED} + retrieved", "fine-tuned with retrieved candidates; it chooses the source, whose own words are the "
        "answer", "retrieved", "retrieval", answer_numbered,
    ),
    "retrieval_gold": Arm(
        f"{_TRAINED} + right product", "the same, the right product put among those shown where the retriever missed it: "
        "a ceiling", "gold", "retrieval", answer_numbered_given_gold,
    ),
    "retrieval": Arm(
        f"{_TRAINED}, no context", "the same model, given the question alone, which it was not trained with", "none",
        "retrieval", answer_numbered_alone,
    ),
    "retrieval_written": Arm(
        f"{_TRAINED} + retrieved, in its own words", "it chooses the source, then writes freely", "retrieved",
        "retrieval", answer_numbered_freely, extra=True,
    ),
    "choice_without_model": Arm(
        "the same choice without the model", "the source chosen by what the retriever knew, weighed on the same validation "
        "questions; no generator", "retrieved", "retrieval", choose_without_model, generator=False, extra=True,
    ),
}  # fmt: skip


def _taken(product: Product, confidence: float | None, catalogue: Catalogue) -> Given:
    return Given(catalogue.text(product), product.id, confidence)


def _answered(found: Sequence[Retrieval], catalogue: Catalogue, decoding: str) -> list[Given]:
    keys = [(r.question.text, decoding, *(c.row for c in r.candidates[: catalogue.shown])) for r in found]
    new = {key: r for key, r in zip(keys, found, strict=True) if key not in catalogue.known}
    catalogue.known.update(zip(new, _asked(list(new.values()), catalogue, decoding), strict=True))
    return [catalogue.known[key] for key in keys]


def _asked(found: Sequence[Retrieval], catalogue: Catalogue, decoding: str) -> list[Given]:
    answers = catalogue.model.answer(
        found,
        min_confidence=0.0,
        decoding=decoding,
        context_products=catalogue.shown,
        max_new_tokens=catalogue.answer_tokens,
        batch_size=_BATCH if decoding == "free" else 1,  # prompts of one length need no mask, which is slow on a CPU
    )
    cited = [next((s.id for s in answer.sources if s.cited), None) for answer in answers]
    return [Given(answer.text, source, answer.confidence) for answer, source in zip(answers, cited, strict=True)]


def _written(
    asked: Sequence[Asked], catalogue: Catalogue, mode: Mode, shown: Sequence[Sequence[Candidate]]
) -> list[Given]:
    def write(few: Sequence[Asked]) -> list[Given]:
        context = dict(zip(map(id, asked), shown, strict=True))
        loaded = catalogue.model.generator
        generator = Generator(loaded.model, loaded.tokenizer)
        builder = PromptBuilder(loaded.tokenizer, TEMPLATES[mode], catalogue.context_tokens)
        prompts = [builder.build(a.found.question, context[id(a)]) for a in few]
        texts = [""] * len(few)
        order = sorted(range(len(few)), key=lambda i: len(prompts[i].ids))
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            written = generator.free([prompts[i] for i in rows], Writing(catalogue.answer_tokens))
            for i, one in zip(rows, written, strict=True):
                texts[i] = one.text
        return [Given(text, _source(text, context[id(a)]), None) for text, a in zip(texts, few, strict=True)]

    return _of_those_with_product(asked, write)


def _of_those_with_product(asked: Sequence[Asked], answer: Callable[[Sequence[Asked]], list[Given]]) -> list[Given]:
    given = iter(answer([a for a in asked if a.gold is not None]))
    return [next(given) if a.gold is not None else Given("", None, None) for a in asked]


def _source(text: str, shown: Sequence[Candidate]) -> str | None:
    if not shown:
        return None
    shares = grounded([text] * len(shown), [c.product.description for c in shown])
    best = max(range(len(shown)), key=lambda i: (shares[i], -i))
    return shown[best].product.id if shares[best] > 0 else None


def _insert(asked: Asked, shown: int) -> Retrieval:
    """The retrieval with the right product among the first `shown`, in the last place if it was further down."""
    candidates = asked.found.candidates
    assert asked.gold is not None  # noqa: S101  (for the type checker)
    if all(c.row != asked.gold.row for c in candidates[:shown]):
        candidates = (*candidates[: shown - 1], asked.gold)
    return replace(asked.found, candidates=candidates[:shown])
