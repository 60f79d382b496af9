from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF

from ragqa.evaluation import corpus

Pairs = list[tuple[str | None, str | None]]


@pytest.mark.parametrize("kept", [slice(None), slice(0, 8), slice(4, 10)])
def test_bleu_and_chrf_are_those_of_sacrebleus_command_line(pairs: Pairs, kept: slice, tmp_path: Path) -> None:
    answers, references = zip(*pairs[kept], strict=True)
    for name, texts in (("answers", answers), ("references", references)):
        (tmp_path / name).write_text("".join(f"{text or ''}\n" for text in texts), "utf-8")
    command = ["-m", "sacrebleu", "references", "-i", "answers", "-m", "bleu", "chrf", "-w", "9", "-f", "json"]
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = [entry["score"] for entry in json.loads(done.stdout)]
    found = [corpus.corpus_score(m, corpus.statistics(m, answers, references).sum(axis=0)) for m in ("bleu", "chrf")]
    assert found == pytest.approx(expected, abs=1e-6)
    assert min(expected) > 0


@given(st.lists(st.tuples(*[st.text("ab .", max_size=14)] * 2), min_size=1, max_size=4))
@settings(max_examples=60)
def test_the_formulas_are_sacrebleus(found: list[tuple[str, str]]) -> None:
    answers, references = zip(*found, strict=True)
    for metric, scorer in (("bleu", BLEU(force=True)), ("chrf", CHRF())):
        sums = corpus.statistics(metric, answers, references).sum(axis=0)
        expected = scorer.corpus_score(list(answers), [list(references)]).score
        assert float(corpus.corpus_score(metric, sums)) == pytest.approx(expected, abs=1e-6)


def test_sums_of_many_selections_are_scored_at_once(pairs: Pairs) -> None:
    answers, references = zip(*pairs, strict=True)
    counts = np.random.default_rng(0).integers(0, 3, (20, len(pairs)))
    for metric in ("bleu", "chrf"):
        sums = counts @ corpus.statistics(metric, answers, references)
        scored = corpus.corpus_score(metric, sums)
        assert scored.shape == (20,)
        assert scored == pytest.approx(np.array([float(corpus.corpus_score(metric, row)) for row in sums]))
        assert ((scored >= 0) & (scored <= 100)).all()


def test_no_answers_score_nothing() -> None:
    for metric in ("bleu", "chrf"):
        assert corpus.corpus_score(metric, corpus.statistics(metric, [], []).sum(axis=0)) == 0
        assert corpus.corpus_score(metric, corpus.statistics(metric, [None, ""], ["a b", None]).sum(axis=0)) == 0
