"""Two replicas behind nginx, of which one ends and one is killed; docs/scale.md shows them."""

import json
import os
import shutil
from pathlib import Path

import pytest

from benchmarks import replicas
from ragqa import Answerer


def test_the_table_is_made_from_the_committed_result() -> None:
    text = replicas.table(json.loads(replicas.RESULT.read_text("utf-8")))
    assert f"<!-- replicas -->\n{text}\n<!-- /replicas -->" in replicas.PAGE.read_text("utf-8")


@pytest.mark.skipif("RAGQA_LONG" not in os.environ, reason="needs both cores; make torture runs it")
def test_no_question_is_lost_or_answered_wrongly_while_replicas_come_and_go(demo_index: Path, tmp_path: Path) -> None:
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not on this machine")
    answerer = Answerer.from_pretrained(demo_index)
    titles = list(dict.fromkeys(product.title for product in answerer.index.store))[:60]
    answers = answerer.ask_many([f"What is the description of {title}?" for title in titles], decoding="copy")
    asked = [
        {"question": one.question, "sources": [source.id for source in one.sources], "text": one.text}
        for one in answers
    ]
    (tmp_path / "questions.json").write_text(json.dumps(asked))
    found = replicas.measure(demo_index, tmp_path / "questions.json", clients=4, least=30)
    assert found["exit_of_sigterm"] == 0
    none = found["steps"].pop("none is there")
    assert none == {"status": 503, "retry_after": "1", "code": "no_replica"}
    both, ended, back, killed = found["steps"].values()
    for step in found["steps"].values():
        assert (step["wrong"], step["refused"], step["lost"]) == (0, 0, 0)
        assert step["answers"] == sum(step["by"]) >= 60
    assert min(both["by"]) > both["answers"] / 4
    assert ended["by"][1] > 30
    assert back["by"][0] > 0
    assert killed["by"][0] > 30
    assert killed["retried"] > 0
