from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ragqa.evaluation import corpus, metrics, scores

ALL = [
    *(metrics.ExactMatch, metrics.TokenPrecision, metrics.TokenRecall, metrics.TokenF1, metrics.Rouge1),
    *(metrics.Rouge2, metrics.RougeL, metrics.Grounded, metrics.RightProduct, metrics.Bleu, metrics.ChrF),
]
Pairs = list[tuple[str | None, str | None]]


def test_each_metric_is_the_mean_of_the_scores_by_question(pairs: Pairs) -> None:
    answers, references = map(list, zip(*pairs, strict=True))
    overlap, rouge = scores.token_overlap(answers, references), scores.rouge(answers, references)
    expected = {
        "exact_match": scores.exact_match(answers, references).mean(),
        **dict(zip(("precision", "recall", "f1"), overlap.mean(axis=0), strict=True)),
        **dict(zip(("rouge1", "rouge2", "rougeL"), rouge.mean(axis=0), strict=True)),
        "grounded": scores.grounded(answers, references).mean(),
        "right_product": scores.right_product(answers, references).mean(),
        **{
            m: float(corpus.corpus_score(m, corpus.statistics(m, answers, references).sum(axis=0)))
            for m in ("bleu", "chrf")
        },
    }
    found: dict[str, float] = {}
    for metric in ALL:
        found |= metric().compute(predictions=answers, references=references)
    assert found == pytest.approx(expected)
    assert list(found) == list(expected)
    assert 0 < found["exact_match"] < found["f1"] < 1


@pytest.mark.parametrize("metric", ALL)
def test_none_may_come_first_and_nothing_at_all_scores_zero(metric: type[metrics.TextMetric]) -> None:
    text = "um texto bem longo"
    assert metric().compute(predictions=[None, text], references=[text, None]) == {metric.measure: 0.0}
    assert metric().compute(predictions=[None], references=[None]) == {metric.measure: 0.0}
    assert metric().compute(predictions=[], references=[]) == {metric.measure: 0.0}
    best = metric().compute(predictions=[text, text], references=[text, text])
    assert best == pytest.approx({metric.measure: 100 if metric.measure in ("bleu", "chrf") else 1})
    assert metric.measure in ("right_product",) or "(" in metric().citation


def test_answers_may_be_added_one_by_one_and_the_metric_used_again() -> None:
    metric = metrics.ExactMatch()
    metric.add(prediction=None, reference="a lamp")
    metric.add_batch(predictions=["lamp", "bed"], references=["a lamp", "sofa"])
    assert metric.compute() == {"exact_match": pytest.approx(1 / 3)}
    assert metric.compute(predictions=["bed"], references=["bed"]) == {"exact_match": 1.0}


def test_a_number_is_no_text_and_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="expected format"):
        metrics.TokenF1().compute(predictions=[3], references=["x"])
    with pytest.raises(ValueError, match="Mismatch"):
        metrics.TokenF1().compute(predictions=["x", "y"], references=["x"])


def test_nothing_is_written_to_any_cache(tmp_path: Path) -> None:
    program = (
        "from ragqa.evaluation.metrics import ExactMatch\n"
        "assert ExactMatch(experiment_id='x').compute(predictions=['a b'], references=['b']) == {'exact_match': 1.0}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": ":".join(sys.path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not [
        path for path in tmp_path.rglob("*") if path.suffix in (".arrow", ".lock") or "exact_match" in str(path)
    ]
