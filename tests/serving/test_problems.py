import pytest

from ragqa.errors import InputError, MilvusError, RagqaError, ServerError, TimeLimitError
from ragqa.serving.problems import problem_of


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InputError("a setting is wrong"), 422, "invalid-request"),
        (TimeLimitError("after 2 s of /secret"), 504, "timeout"),
        (MilvusError("at /secret"), 502, "search-unreachable"),
        (ServerError("at /secret"), 502, "generator-unreachable"),
        (RagqaError("at /secret"), 500, "internal-error"),
    ],
)
def test_each_error_has_its_status_and_only_those_of_the_client_their_words(
    error: RagqaError, status: int, code: str
) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.code) == (status, code)
    assert (str(error) == problem.detail) == (status == 422)
    assert "secret" not in problem.detail
