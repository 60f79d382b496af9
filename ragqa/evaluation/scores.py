"""How good answers are, question by question: each measure a plain function of texts to scores in [0, 1].

A missing or empty text, on either side, scores zero: nobody is rewarded for saying nothing.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Texts = Sequence[str | None]
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measure:
    """What is measured.

    Attributes:
        name: in files.
        label: in tables and figures.
        cite: where it was defined.
        about: one sentence.
    """

    name: str
    label: str
    cite: str
    about: str


_SQUAD: Final = (
    "Rajpurkar, Zhang, Lopyrev, Liang (2016). SQuAD: 100,000+ Questions for Machine Comprehension of Text. EMNLP."
)
_ROUGE: Final = "Lin (2004). ROUGE: A Package for Automatic Evaluation of Summaries. Text Summarization Branches Out."
_GRUSKY: Final = (
    "Grusky, Naaman, Artzi (2018). Newsroom: A Dataset of 1.3 Million Summaries with Diverse Extractive Strategies. "
    "NAACL. There a fragment may be one token; here it has at least three."
)
RUN: Final = 3  # tokens; runs of one or two are shared by chance between any two descriptions

MEASURES: Final = (
    Measure(
        "exact_match", "exact match", _SQUAD, "The answer is the description, but for case, punctuation, articles."
    ),
    Measure("precision", "precision", _SQUAD, "Share of the answer's tokens that the description has."),
    Measure("recall", "recall", _SQUAD, "Share of the description's tokens that the answer has."),
    Measure("f1", "F1", _SQUAD, "Harmonic mean of token precision and recall."),
    Measure("rouge1", "ROUGE-1", _ROUGE, "F1 of words."),
    Measure("rouge2", "ROUGE-2", _ROUGE, "F1 of pairs of words in succession."),
    Measure("rougeL", "ROUGE-L", _ROUGE, "F1 of the longest common subsequence of words."),
    Measure(
        "grounded", "grounded", _GRUSKY, f"Share of the answer's words in runs of {RUN} or more that its source has."
    ),
    Measure("right_product", "right product", "", "The source is the product asked for."),
)

_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)
_ARTICLES: Final = re.compile(r"\b(a|an|the)\b")
_WORD: Final = re.compile(r"[^\W_]+")


def squad_tokens(text: str | None) -> list[str]:
    """Tokens after SQuAD's normalisation: lower case, no ASCII punctuation, no English articles, split at white space."""
    return _ARTICLES.sub(" ", (text or "").lower().translate(_PUNCTUATION)).split()


def words(text: str | None) -> list[str]:
    """Runs of letters and digits of any script, in lower case.

    For ASCII text they are those of rouge-score's own tokenizer, which takes "é" for a blank.
    """
    return _WORD.findall(unicodedata.normalize("NFC", text or "").lower())


def exact_match(predictions: Texts, references: Texts) -> Array:
    """1 where the normalised texts are equal and not empty, else 0 (Rajpurkar et al. 2016); (n,)."""
    pairs = zip(map(squad_tokens, predictions), map(squad_tokens, references), strict=True)
    return np.array([float(bool(answer) and answer == right) for answer, right in pairs])


def token_overlap(predictions: Texts, references: Texts) -> Array:
    """Precision, recall and F1 of the normalised tokens, counted with repetition (Rajpurkar et al. 2016); (n, 3)."""
    pairs = zip(map(squad_tokens, predictions), map(squad_tokens, references), strict=True)
    return np.array([_agreement(Counter(answer), Counter(right)) for answer, right in pairs]).reshape(-1, 3)


def rouge(predictions: Texts, references: Texts) -> Array:
    """ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004), the F1 of each, without stemming; (n, 3).

    The first two come from rouge-score. Its ROUGE-L fills a table of all pairs of words in Python, 15 ms for a long
    description; the same number is had from `common_subsequence` in a fiftieth of the time.
    """
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.scoring import fmeasure

    scorer = RougeScorer(["rouge1", "rouge2"], use_stemmer=False, tokenizer=_Words())
    rows = []
    for prediction, reference in zip(predictions, references, strict=True):
        found: dict[str, Any] = scorer.score(reference or "", prediction or "")
        answer, right = words(prediction), words(reference)
        common = common_subsequence(answer, right)
        longest = fmeasure(common / max(len(answer), 1), common / max(len(right), 1))
        rows.append((found["rouge1"].fmeasure, found["rouge2"].fmeasure, longest))
    return np.array(rows, float).reshape(-1, 3)


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the table at a time in the bits of one number.

    Hyyrö (2004), Bit-parallel LCS-length computation revisited, AWOCA: a zero bit is where the row rises by one.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(first)) - 1
    row = every
    for word in second:
        matching = row & places.get(word, 0)
        row = (row + matching | row - matching) & every
    return len(first) - row.bit_count()


def grounded(predictions: Texts, sources: Texts) -> Array:
    """Share of the answer's words that lie in a run of at least `RUN` words which the source has as well; (n,).

    Coverage by extractive fragments (Grusky et al. 2018) with a least length: a bag of words would find half of any
    invented sentence in any description. An answer of fewer words must stand in the source whole. How often a run is
    used does not matter: a repeated sentence of the source is still the source's.

    Args:
        predictions: the answers.
        sources: the text that each answer says it comes from.
    """
    return np.array([_covered(words(p), words(s)) for p, s in zip(predictions, sources, strict=True)])


def right_product(sources: Texts, product_ids: Texts) -> Array:
    """1 where the source named is the product asked for, else 0, also where there is none; (n,)."""
    return np.array([float(s is not None and s == p) for s, p in zip(sources, product_ids, strict=True)])


class _Words:
    """`words` as rouge-score wants it."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def _agreement(answer: Counter[str], right: Counter[str]) -> tuple[float, float, float]:
    common = (answer & right).total()
    if not common:
        return 0.0, 0.0, 0.0
    precision, recall = common / answer.total(), common / right.total()
    return precision, recall, 2 * precision * recall / (precision + recall)


def _covered(answer: list[str], source: list[str]) -> float:
    if not answer:
        return 0.0
    size = min(RUN, len(answer))
    runs = {tuple(source[i : i + size]) for i in range(len(source) - size + 1)}
    covered = set[int]()
    for i in range(len(answer) - size + 1):
        if tuple(answer[i : i + size]) in runs:
            covered.update(range(i, i + size))
    return len(covered) / len(answer)
