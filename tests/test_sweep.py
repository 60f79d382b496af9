"""The sweep changes one thing at a time, and its report counts as it says."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import sweep
from benchmarks.sweep_report import interval, intervals, judge, table


def question(about: str, log_probs: list[float], right: list[int], label: int) -> dict[str, Any]:
    candidates = [[0.5, 0.5, 0.5, 0.5, float(not place)] for place in range(len(log_probs) - 1)]
    known = [candidates, [1.0, 0.0], log_probs]
    return {"kind": "partial", "ambiguous": False, "about": about, "known": known, "right": right, "label": label}


def a_run(name: str, asked: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "changes": sweep.RUNS[name],
        "recipe": {"examples": 100, **sweep.BASELINE},
        "plan": {"steps": 19},
        "loss": [0.6, 0.3],
        "weighted_loss": [1.0, 0.5],
        "seconds": {"train": 10.0},
        "peak_mb": 1234,
        "threads": 1,
        "machine": {"commit": "abc", "date": "2026-01-01", "machine": "a machine"},
        "asked": asked,
    }


SURE = [question(str(i), [-3.0, -0.1, -3.0], [1], 1) for i in range(30)]
WRONG = [question(str(i), [-3.0, -3.0, -0.1], [1], 1) for i in range(30)]


def result_of(*runs: dict[str, Any]) -> dict[str, Any]:
    return judge(runs, list(sweep.BASELINE), list(sweep.RUNS))


def test_each_run_changes_what_it_says() -> None:
    baseline = sweep.recipe_of("baseline", 100).to_dict()
    for name, changes in sweep.RUNS.items():
        recipe = sweep.recipe_of(name, 100).to_dict()
        changed = {field for field in recipe if recipe[field] != baseline[field]}
        # LoRA's scale alpha / rank stays as it is.
        assert changed - {"alpha"} == set(changes) - {"alpha"}
        assert recipe["alpha"] == 2 * recipe["rank"]
        assert recipe["seed"] == baseline["seed"]


def test_the_mean_and_its_interval() -> None:
    assert interval([1.0] * 20, range(20)) == (1.0, 1.0, 1.0)
    mean, low, high = interval([0.0, 1.0] * 50, range(100))
    assert mean == 0.5
    # The normal approximation's: 0.5 -+ 1.96 * 0.5 / 10.
    assert low == pytest.approx(0.402, abs=0.011)
    assert high == pytest.approx(0.598, abs=0.011)
    # Two questions about one product that succeed and fail together are no more evidence than one.
    together = interval([0.0, 0.0, 1.0, 1.0] * 25, [i // 2 for i in range(100)])
    assert together[1] == pytest.approx(0.36, abs=0.03)


def test_a_run_is_compared_question_by_question() -> None:
    result = result_of(a_run("baseline", SURE), a_run("rank 4", [*WRONG[:15], *SURE[15:]]))
    run = result["runs"]["rank 4"]
    assert intervals(result, run, "alone")[0] == 0.5
    assert intervals(result, run, "alone", less=True)[0] == -0.5
    assert intervals(result, result["runs"]["baseline"], "alone", less=True) == (0.0, 0.0, 0.0)


def test_the_model_alone_and_joined_with_the_retriever() -> None:
    result = result_of(a_run("baseline", SURE), a_run("rank 4", WRONG), a_run("training_seed 1", SURE))
    assert result["runs"]["baseline"]["alone"] == [True] * 30
    assert result["runs"]["rank 4"]["alone"] == [False] * 30
    # Fitted on questions where the model is always wrong, the logit learns to take the first candidate.
    assert result["runs"]["rank 4"]["joint"] == [True] * 30
    assert len(result["no model"]["log_loss"]) == 30


def test_runs_are_shown_by_what_they_change_and_those_that_lack_are_named() -> None:
    result = result_of(a_run("rank 4", SURE), a_run("baseline", SURE), a_run("products 5", SURE))
    assert list(result["runs"]) == ["baseline", "products 5", "rank 4"]
    text = table(json.loads(json.dumps(result)))
    assert "| products 5 | 19 | 0.300 | 1.000 [1.000, 1.000] | +0.000 [+0.000, +0.000] |" in text
    assert text.count("not comparable") == 1
    assert "Not run, for want of time: training_seed 1, learning_rate 3e-4" in text


def test_runs_that_were_asked_other_questions_are_refused() -> None:
    with pytest.raises(SystemExit, match="not asked the same questions"):
        result_of(a_run("baseline", SURE), a_run("rank 4", SURE[:29]))


def test_a_kept_run_of_another_recipe_does_not_count(tmp_path: Path) -> None:
    file = tmp_path / "sweep.jsonl"
    kept = [{"name": name, "recipe": sweep.recipe_of(name, 100).to_dict()} for name in ("baseline", "rank 4")]
    file.write_text("".join(json.dumps(run) + "\n" for run in kept))
    assert list(sweep.kept_runs(file, 100)) == ["baseline", "rank 4"]
    assert sweep.kept_runs(file, 200) == {}
    assert sweep.kept_runs(tmp_path / "none", 100) == {}
