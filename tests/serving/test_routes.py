from types import SimpleNamespace
from typing import Any

import pytest

from ragqa.serving.problems import Problem
from ragqa.serving.routes import note


def test_each_further_question_is_charged_where_there_is_a_rate_and_none_of_blanks_is_taken() -> None:
    charged: list[int] = []
    request: Any = SimpleNamespace(scope={})
    note(request, ["a", "b"])
    assert request.scope == {"ragqa.questions": ["a", "b"]}
    request.scope["ragqa.charge"] = charged.append
    note(request, ["a", "b", "c"])
    assert charged == [2]
    with pytest.raises(Problem, match=r"^a question is empty; ask, for example: ") as caught:
        note(request, ["a", " \n"])
    assert (caught.value.status, charged) == (422, [2])
