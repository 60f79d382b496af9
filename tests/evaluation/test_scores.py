from __future__ import annotations

import re
import string
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import precision_recall_fscore_support

from ragqa.evaluation import scores

Pairs = list[tuple[str | None, str | None]]
WORDS = st.lists(st.sampled_from(["a", "b", "the", "ção", "x1", "Lamp", "-"]), max_size=12).map(" ".join)


def normalised(text: str) -> str:
    """SQuAD's normalisation as its authors describe it, in another way than ragqa's."""
    kept = "".join(" " if c.isspace() else c for c in text.lower() if c not in string.punctuation)
    return " ".join(w for w in re.split(r"\s+", re.sub(r"(?<!\w)(?:an|a|the)(?!\w)", " ", kept)) if w)


def test_exact_match_is_squads(pairs: Pairs) -> None:
    expected = [float(normalised(a or "") == normalised(r or "") != "") for a, r in pairs]
    assert scores.exact_match(*zip(*pairs, strict=True)).tolist() == expected
    assert expected[:3] == [0, 0, 1]
    assert scores.exact_match(["The red lamp, 3 W."], ["red  LAMP 3 w"]).tolist() == [1]
    assert scores.exact_match(["o lâmpada"], ["lâmpada"]).tolist() == [0]  # only English articles


def test_precision_recall_and_f1_are_scikit_learns_on_tokens_as_labels(pairs: Pairs) -> None:
    found = scores.token_overlap(*zip(*pairs, strict=True))
    for (answer, reference), row in zip(pairs, found, strict=True):
        a, r = (Counter(normalised(text or "").split()) for text in (answer, reference))
        # Each copy of a token is an item: has the answer it, has the reference it?
        items = [(token, i) for token in a | r for i in range((a | r)[token])]
        in_answer = [i < a[token] for token, i in items]
        in_reference = [i < r[token] for token, i in items]
        expected = (0.0, 0.0, 0.0)
        if any(in_answer) and any(in_reference):
            expected = precision_recall_fscore_support(in_reference, in_answer, average="binary", zero_division=0)[:3]
        assert row == pytest.approx(expected, abs=1e-9)


def test_rouge_is_the_packages_own_for_ascii_text(pairs: Pairs) -> None:
    ascii_pairs = [(a or "", r or "") for a, r in pairs if f"{a}{r}".isascii()]
    assert len(ascii_pairs) > 8
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    expected = [[s.fmeasure for s in scorer.score(r, a).values()] for a, r in ascii_pairs]
    assert scores.rouge(*zip(*ascii_pairs, strict=True)) == pytest.approx(np.array(expected), abs=1e-9)


@given(WORDS.filter(str.isascii), WORDS.filter(str.isascii))
def test_rouge_is_the_packages_own_for_any_ascii_text(answer: str, reference: str) -> None:
    found = RougeScorer(["rouge1", "rouge2", "rougeL"]).score(reference, answer)
    assert scores.rouge([answer], [reference])[0] == pytest.approx([s.fmeasure for s in found.values()], abs=1e-9)


def test_rouge_reads_portuguese() -> None:
    # The package's own tokenizer makes "cora o" of "coração", half right for "corar o".
    assert scores.words("Coração, à_prova-d'água 2,40 m") == ["coração", "à", "prova", "d", "água", "2", "40", "m"]
    assert scores.words("cafe\u0301") == ["café"]
    assert scores.rouge(["coração azul"], ["corar o azul"])[0] == pytest.approx([0.4, 0, 0.4])
    assert scores.rouge(["rede em algodão"], ["rede de algodão"])[0] == pytest.approx([2 / 3, 0, 2 / 3])


@given(st.lists(st.sampled_from("abc"), max_size=70), st.lists(st.sampled_from("abc"), max_size=70))
def test_the_longest_common_subsequence_is_that_of_the_table(first: list[str], second: list[str]) -> None:
    row = [0] * (len(second) + 1)
    for x in first:
        above = row[:]
        for j, y in enumerate(second):
            row[j + 1] = above[j] + 1 if x == y else max(above[j + 1], row[j])
    assert scores.common_subsequence(first, second) == row[-1]


def test_grounded_is_the_share_of_words_in_runs_of_three_of_the_source() -> None:
    source = "A beam of 85 m and 40 hours on low from one cell."
    answers = [
        "a beam of 85 m",  # whole
        "of a low cell 40 beam and",  # all its words, none of its runs
        "Best ever: 40 hours on low!",  # 4 of 6
        "40 hours or hours on",  # runs of two
        "beam of 85 beam of 85",  # twice the same run
        "one cell",  # short, whole
        "one beam",
        "",
        None,
    ]
    expected = [1, 0, 4 / 6, 0, 1, 1, 0, 0, 0]
    assert scores.grounded(answers, [source] * len(answers)) == pytest.approx(expected)
    assert scores.grounded(["a b c", "a"], ["", None]).tolist() == [0, 0]


def test_the_right_product_is_the_one_asked_for() -> None:
    assert scores.right_product(["1", "2", None, None], ["1", "1", "1", None]).tolist() == [1, 0, 0, 0]


@given(st.lists(st.tuples(WORDS | st.none() | st.text(max_size=20), WORDS | st.none()), min_size=1, max_size=5))
def test_every_score_is_from_zero_to_one_and_zero_without_text(found: Pairs) -> None:
    answers, references = zip(*found, strict=True)
    table = np.column_stack(
        [
            scores.exact_match(answers, references),
            scores.token_overlap(answers, references),
            scores.rouge(answers, references),
            scores.grounded(answers, references),
        ]
    )
    assert table.shape == (len(found), 8)
    assert ((table >= 0) & (table <= 1)).all()
    for (answer, reference), row in zip(found, table, strict=True):
        if not answer or not reference:
            assert not row.any()
        same = scores.squad_tokens(answer)
        if same and answer == reference:
            assert row[:4].tolist() == [1, 1, 1, 1]


def test_measures_say_where_they_are_from() -> None:
    names = ["exact_match", "precision", "recall", "f1", "rouge1", "rouge2", "rougeL", "grounded", "right_product"]
    assert [measure.name for measure in scores.MEASURES] == names
    assert all(re.search(r"\(\d{4}\)", measure.cite) for measure in scores.MEASURES[:-1])
