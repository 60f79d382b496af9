"""Questions with the context they are trained in, in the way of RAFT (Zhang et al. 2024, arXiv 2403.10131).

The candidates are those the retriever itself gives for the question, so that training sees what answering will
see. The right product is put among them where the retriever missed it, or taken out, as `gold_fraction` says.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ragqa.records import Candidate, Product, Question, Retrieval
from ragqa.retrieval.question import parse_question
from ragqa.retrieval.retriever import Retriever
from ragqa.settings import Settings, at_least
from ragqa.training.questions import WITH_PRODUCT, LabelledQuestion, QuestionMaker

Order = Literal["retriever", "shuffled"]
_BATCH: Final = 256


@dataclass(frozen=True, slots=True)
class ContextSettings(Settings):
    """How contexts are made.

    Attributes:
        products: how many candidates stand in a context: the right one and `products - 1` distractors.
        gold_fraction: share of the questions with a product whose context holds it (RAFT's P). The others hold
            distractors alone, and the target is the abstention sentence.
        order: "retriever" keeps its order, so that rank carries information (a right product that it missed takes the
            last place); "shuffled" is seeded.
        seed: chooses which questions go without their product, and the shuffled order.
        insert: put a right product that the retriever missed among the candidates; off shows what answering sees.
    """

    products: int = 3
    gold_fraction: float = 0.9
    order: Order = "retriever"
    seed: int = 0
    insert: bool = True

    def _problems(self) -> list[str]:
        problems = at_least(self, {"products": 1})
        if not 0 <= self.gold_fraction <= 1:
            problems.append(f"gold_fraction must be from 0 to 1, not {self.gold_fraction!r}")
        if self.order not in ("retriever", "shuffled"):
            problems.append(f"order must be retriever or shuffled, not {self.order!r}")
        return problems


@dataclass(frozen=True, slots=True)
class Context:
    """A question, its candidates, and the product whose description is to be answered.

    Attributes:
        asked: the labelled question.
        question: the same, taken apart.
        candidates: as they will stand in the prompt, best first.
        gold: the right product if it stands among them, else None: the target is to abstain.
        rank: the right product's rank by the retriever, from 0; None where it was not found or there is none.
        confidence: the retriever's probability that its first candidate is right.
        answered: the answer's text is learnt; otherwise the number of its source alone.
    """

    asked: LabelledQuestion
    question: Question
    candidates: tuple[Candidate, ...]
    gold: Product | None
    rank: int | None
    confidence: float = 0.0
    answered: bool = True


def make_contexts(
    asked: Sequence[LabelledQuestion],
    products: Mapping[str, tuple[int, Product]],
    retriever: Retriever,
    without: frozenset[int],
    settings: ContextSettings | None = None,
) -> Iterator[Context]:
    """Retrieve for each question and build its context, in blocks as they are asked for.

    Args:
        asked: labelled questions.
        products: row and product by id.
        retriever: the one that will answer.
        without: rows held out of the search.
        settings: how contexts are made.
    """
    use = settings or ContextSettings()
    for start in range(0, len(asked), _BATCH):
        block = asked[start : start + _BATCH]
        found = retriever.retrieve([q.text for q in block], top_k=max(use.products + 1, 10), without=without)
        yield from (_context(q, r, products, use) for q, r in zip(block, found, strict=True))


def _context(
    asked: LabelledQuestion, found: Retrieval, products: Mapping[str, tuple[int, Product]], use: ContextSettings
) -> Context:
    random_ = random.Random(f"{use.seed}/{asked.text}")  # noqa: S311
    gold_row, gold = products[asked.product_id] if asked.product_id is not None else (-1, None)
    rank = next((i for i, c in enumerate(found.candidates) if c.row == gold_row), None)
    others = [c for c in found.candidates if c.row != gold_row]
    if not use.insert:
        chosen = list(found.candidates[: use.products])
        shown_gold = gold if rank is not None and rank < use.products else None
    elif gold is None or random_.random() >= use.gold_fraction:
        chosen, shown_gold = others[: use.products], None
    else:
        distractors = others[: use.products - 1]
        if rank is None:
            right, place = Candidate(gold, gold_row, 0.0, 0.0, 0.0, exact=False), len(distractors)
        else:
            right, place = found.candidates[rank], min(rank, len(distractors))
        chosen, shown_gold = [*distractors[:place], right, *distractors[place:]], gold
    if use.order == "shuffled":
        random_.shuffle(chosen)
    return Context(asked, found.question, tuple(chosen), shown_gold, rank, found.confidence)


def ask_more(
    contexts: Iterable[Context],
    maker: QuestionMaker,
    rows: frozenset[int],
    questions: int,
    numbers: int,
    taken: Collection[str],
    seed: int,
) -> Iterator[Context]:
    """Each context, then further questions asked of it, about its other candidates first.

    A context is most of what training reads; several questions about it, each with its own right candidate, cost
    little more than one, and show that the answer hangs on the question.

    Args:
        contexts: as `make_contexts` gives them.
        maker: makes the questions.
        rows: the products that may be asked about: those of the training part.
        questions: questions asked of one context, at most.
        numbers: questions asked beyond these, of which only the number of the source is learnt.
        taken: texts of questions that may not be asked again.
        seed: chooses candidates and kinds.
    """
    asked = set(taken)
    for context in contexts:
        yield context
        random_ = random.Random(f"{seed}/more/{context.asked.text}")  # noqa: S311
        open_ = [(place, c) for place, c in enumerate(context.candidates) if c.row in rows]
        random_.shuffle(open_)
        # The product asked about already comes last in every round.
        open_.sort(key=lambda found: found[1].product.id == context.asked.product_id)
        made = 0
        for place, candidate in open_ * (questions + numbers):
            if made == questions - 1 + numbers:
                break
            question = maker.about(candidate.row, random_.choice(WITH_PRODUCT), random_.randrange(1_000, 1_000_000))
            if question is None or question.text in asked:
                continue
            made += 1
            asked.add(question.text)
            parsed = parse_question(question.text)
            yield Context(question, parsed, context.candidates, candidate.product, place, answered=made < questions)
