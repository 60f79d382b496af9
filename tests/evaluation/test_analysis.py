from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ragqa.errors import InputError
from ragqa.evaluation.analysis import analyse
from ragqa.evaluation.scores import MEASURES, exact_match

MakeRaw = Callable[..., dict[str, Any]]
ARMS = {"copy": 0.5, "plain": 0.1, "retrieval_context": 0.8, "choice_without_model": 0.6}


def only(rows: list[dict[str, Any]], **wanted: object) -> dict[str, Any]:
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    assert len(found) == 1, (wanted, len(found))
    return found[0]


@pytest.fixture(scope="module")
def raw(make_raw: MakeRaw) -> dict[str, Any]:
    return make_raw(ARMS)


@pytest.fixture(scope="module")
def analysis(raw: dict[str, Any]) -> dict[str, Any]:
    return analyse(raw, resamples=300)


def test_it_is_a_pure_function_to_plain_json(raw: dict[str, Any], analysis: dict[str, Any]) -> None:
    before = copy.deepcopy(raw)
    again = analyse(raw, resamples=300)
    assert raw == before
    assert json.dumps(again, allow_nan=False) == json.dumps(analysis, allow_nan=False)
    assert json.dumps(analyse(raw, resamples=300, seed=1)) != json.dumps(analysis)
    names = ["metrics", "cells", "pairs", "corpus", "retrieval", "abstention", "cost", "curve", "seeds", "ceiling"]
    assert list(analysis) == names


def test_cells_are_means_over_the_questions_of_a_group(raw: dict[str, Any], analysis: dict[str, Any]) -> None:
    asked = [(i, q) for i, q in enumerate(raw["questions"]) if q["product_id"] and q["set"] == "seen"]
    groups = {
        "all": lambda q: True,
        "kind:partial": lambda q: q["kind"] == "partial",
        "one_product": lambda q: not q["ambiguous"],
        "several": lambda q: q["ambiguous"],
        "rank:1": lambda q: q["rank"] == 0,
        "rank:2-3": lambda q: q["rank"] == 1,
        "rank:4-10": lambda q: q["rank"] == 4,
        "rank:none": lambda q: q["rank"] is None,
    }
    for group, belongs in groups.items():
        here = [(i, q) for i, q in asked if belongs(q)]
        answers = [raw["arms"]["copy"]["runs"][0]["answers"][i] for i, _ in here]
        cell = only(analysis["cells"], arm="copy", set="seen", group=group, metric="exact_match")
        assert cell["n"] == len(here)
        assert cell["products"] == len({q["product_id"] for _, q in here})
        texts = [answer["text"] for answer in answers]
        assert cell["mean"] == pytest.approx(exact_match(texts, [q["reference"] for _, q in here]).mean())
        assert cell["low"] <= cell["mean"] <= cell["high"]
    assert len(analysis["cells"]) == len(ARMS) * 2 * 10 * len(MEASURES)


def test_pairs_are_compared_on_the_same_questions(analysis: dict[str, Any]) -> None:
    central = [p for p in analysis["pairs"] if p["arm"] == "retrieval_context" and p["group"] == "all"]
    assert {p["against"] for p in central} == {"copy", "plain", "choice_without_model"}
    assert {p["against"] for p in analysis["pairs"] if p["group"] != "all"} == {"copy"}
    for pair in analysis["pairs"]:
        where = {key: pair[key] for key in ("set", "group", "metric")}
        first, second = (only(analysis["cells"], arm=pair[key], **where) for key in ("arm", "against"))
        assert pair["difference"] == pytest.approx(first["mean"] - second["mean"])
        assert pair["low"] <= pair["difference"] <= pair["high"]
        assert 0 < pair["p"] <= pair["p_holm"] <= 1
        if pair["metric"] == "exact_match":
            assert pair["won"] - pair["lost"] == round(pair["difference"] * pair["n"])
    plain = only(analysis["pairs"], arm="plain", against="copy", set="seen", group="all", metric="exact_match")
    assert plain["high"] < 0
    assert plain["effect"] < 0
    # Holm runs over the pairs of one set and measure on all questions: three with the baseline, two others.
    family = [p for p in analysis["pairs"] if (p["set"], p["metric"], p["group"]) == ("seen", "f1", "all")]
    assert len(family) == 5
    least = min(family, key=lambda p: p["p"])
    assert least["p_holm"] == pytest.approx(min(1, 5 * least["p"]))
    kinds = [p for p in analysis["pairs"] if (p["set"], p["metric"]) == ("seen", "f1") and "kind:" in p["group"]]
    assert len(kinds) == 9
    least = min(kinds, key=lambda p: p["p"])
    assert least["p_holm"] == pytest.approx(min(1, 9 * least["p"]))


def test_an_arm_that_names_no_source_has_no_grounding(make_raw: MakeRaw) -> None:
    raw = make_raw({"copy": 0.5, "base": 0.5})
    for answer in raw["arms"]["base"]["runs"][0]["answers"]:
        answer |= {"source": None, "confidence": None}
    for answer in raw["arms"]["copy"]["runs"][0]["answers"]:
        answer["source"] = "unknown" if answer["source"] == "p0" else answer["source"]
    found = analyse(raw, resamples=50)
    for metric in ("grounded", "right_product"):
        cell = only(found["cells"], arm="base", set="seen", group="all", metric=metric)
        assert (cell["n"], cell["products"], cell["mean"], cell["low"], cell["high"]) == (0, 0, None, None, None)
    assert {row["arm"] for row in found["abstention"]} == {"copy"}
    # The text of an unknown source is in no question: such answers count once it is given.
    known = only(found["cells"], arm="copy", set="seen", group="all", metric="grounded")
    assert (known["mean"], known["n"] < 20) == (1, True)
    every = analyse(raw | {"sources": {"unknown": "no such words"}}, resamples=50)
    cell = only(every["cells"], arm="copy", set="seen", group="all", metric="grounded")
    assert cell["n"] == 20
    assert cell["mean"] == pytest.approx(known["n"] / 20)
    right = only(every["cells"], arm="copy", set="seen", group="all", metric="right_product")
    assert right["mean"] == pytest.approx(cell["mean"])


def test_missing_answers_score_zero_and_missing_lists_are_refused(make_raw: MakeRaw) -> None:
    raw = make_raw({"copy": 1.0, "base": 1.0})
    for answer in raw["arms"]["base"]["runs"][0]["answers"]:
        answer |= {"text": None, "source": "p0"}
    found = analyse(raw, resamples=50)
    for metric in MEASURES[:-1]:
        assert only(found["cells"], arm="base", set="seen", group="all", metric=metric.name)["high"] == 0
    assert only(found["corpus"], arm="base", set="seen", metric="bleu")["mean"] == 0
    assert only(found["corpus"], arm="copy", set="seen", metric="chrf")["low"] == 100
    del raw["arms"]["base"]["runs"][0]["answers"][-1]
    with pytest.raises(InputError, match="arm 'base', run 0: 47 answers to 48 questions"):
        analyse(raw, resamples=50)


def test_several_seeds_are_averaged_and_their_spread_told(make_raw: MakeRaw) -> None:
    raw = make_raw({"retrieval_context": 0.7}, runs=3)
    found = analyse(raw, resamples=100)
    cell = only(found["cells"], arm="retrieval_context", set="seen", group="all", metric="exact_match")
    spread = only(found["seeds"], arm="retrieval_context", set="seen", metric="exact_match")
    values = []
    for run in raw["arms"]["retrieval_context"]["runs"]:
        single = raw | {"arms": {"one": {"training": "none", "runs": [run]}}}
        values.append(only(analyse(single, 2)["cells"], set="seen", group="all", metric="exact_match")["mean"])
    assert len(set(values)) > 1
    assert (cell["mean"], spread["mean"]) == pytest.approx((np.mean(values), np.mean(values)))
    assert spread["deviation"] == pytest.approx(np.std(values, ddof=1))
    assert (spread["seeds"], spread["lowest"], spread["highest"]) == (3, min(values), max(values))
    assert only(found["cost"])["peak_mb"] == 102


def test_retrieval_abstention_cost_curve_and_ceiling_are_reported(
    raw: dict[str, Any], analysis: dict[str, Any]
) -> None:
    asked = [q for q in raw["questions"] if q["product_id"] and q["set"] == "unseen"]
    row = only(analysis["retrieval"], retriever="ragqa", set="unseen", group="all", metric="recall@3")
    assert row["mean"] == pytest.approx(np.mean([q["rank"] in (0, 1) for q in asked]))
    ceiling = only(analysis["ceiling"], set="unseen")
    assert ceiling["shown"] == {key: row[key] for key in ("mean", "low", "high")}
    assert ceiling["unambiguous"]["mean"] == pytest.approx(np.mean([not q["ambiguous"] for q in asked]))

    knows = only(analysis["abstention"], arm="retrieval_context", set="unseen")
    questions = [(i, q) for i, q in enumerate(raw["questions"]) if q["set"] == "unseen"]
    given_up = [
        (q["product_id"] is None) for i, q in questions if raw["arms"]["retrieval_context"]["runs"][0]["answers"][i]["abstains"]
    ]  # fmt: skip
    assert (knows["n"], knows["without"], knows["threshold"]) == (24, 4, 0.5)
    assert knows["precision"]["mean"] == pytest.approx(np.mean(given_up))
    assert knows["recall"]["mean"] == pytest.approx(sum(given_up) / 4)
    assert 0.5 < knows["auroc"]["mean"] <= 1
    # Answering everything, also what has no product, is wrong as often as the answers are, and then there.
    exact = only(analysis["cells"], arm="retrieval_context", set="unseen", group="all", metric="exact_match")
    assert knows["curve"][-1] == pytest.approx([1, 1 - exact["mean"] * 20 / 24])
    assert np.mean([risk for _, risk in knows["curve"]]) == pytest.approx(knows["aurc"]["mean"])

    cost = only(analysis["cost"], arm="retrieval_context")
    assert (cost["median_ms"], cost["p95_ms"], cost["answers_per_second"]) == pytest.approx((250, 250, 4))
    assert cost["training_seconds"] == 6.5
    assert only(analysis["cost"], arm="copy")["training_seconds"] == 0
    points = [(row["examples"], row["metric"], row["n"], row["products"]) for row in analysis["curve"]]
    assert points == [(e, m, 4, 2) for e in (10, 100) for m in ("f1", "exact_match")]


def test_any_arm_set_or_kind_may_be_missing(make_raw: MakeRaw) -> None:
    whole = make_raw(ARMS)
    without = whole | {"arms": {"plain": whole["arms"]["plain"]}, "curve": [], "training": []}
    found = analyse(without, resamples=20)
    assert found["pairs"] == found["curve"] == found["seeds"] == []
    assert {row["arm"] for row in found["cells"]} == {"plain"}
    nothing = analyse(whole | {"arms": {}, "curve": []}, resamples=20)
    assert nothing["cells"] == nothing["pairs"] == nothing["corpus"] == nothing["cost"] == []
    assert nothing["retrieval"]
    no_product = [i for i, q in enumerate(whole["questions"]) if q["product_id"] is None]
    with_product = [i for i, q in enumerate(whole["questions"]) if q["product_id"] and q["kind"] == "typo"]
    for kept in (no_product, with_product, with_product[:1], []):
        part = whole | {"questions": [whole["questions"][i] for i in kept], "curve": []}
        part["arms"] = {
            name: arm | {"runs": [run | {"answers": [run["answers"][i] for i in kept]} for run in arm["runs"]]}
            for name, arm in whole["arms"].items()
        }
        found = analyse(part, resamples=20)
        json.dumps(found, allow_nan=False)
        assert bool(found["cells"]) == (kept not in (no_product, []))
        assert all(row["auroc"] is None for row in found["abstention"])


def test_a_curve_that_asked_about_no_product_has_no_points(make_raw: MakeRaw) -> None:
    raw = make_raw({"retrieval_context": 0.7})
    few, many = raw["curve"][:2], raw["curve"][2:]
    for entry in few:
        entry |= {"questions": entry["questions"][-1:], "answers": entry["answers"][-1:]}
    found = analyse(raw | {"curve": few + many}, resamples=20)["curve"]
    assert [(row["examples"], row["metric"]) for row in found] == [(100, "f1"), (100, "exact_match")]
    assert analyse(raw | {"curve": few}, resamples=20)["curve"] == []


def test_a_measure_that_one_seed_lacks_has_no_spread(make_raw: MakeRaw) -> None:
    raw = make_raw({"retrieval_context": 0.7}, runs=2)
    whole = {(row["set"], row["metric"]) for row in analyse(raw, resamples=20)["seeds"]}
    for answer in raw["arms"]["retrieval_context"]["runs"][1]["answers"]:
        answer["source"] = None
    lacking = whole - {(row["set"], row["metric"]) for row in analyse(raw, resamples=20)["seeds"]}
    assert lacking == {(name, metric) for name in ("seen", "unseen") for metric in ("grounded", "right_product")}


def test_importing_ragqa_or_the_analysis_brings_no_heavy_package() -> None:
    program = "import sys, {}; print([m for m in ('nltk', 'sacrebleu', 'ir_measures', 'evaluate', 'torch') if m in sys.modules])"
    for module in ("ragqa", "ragqa.evaluation.analysis"):
        done = subprocess.run(
            [sys.executable, "-c", program.format(module)], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "[]"
