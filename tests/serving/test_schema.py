"""The OpenAPI document says what the service does: Schemathesis asks by it, and checks each response against it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ragqa import Answerer
from tests.serving.conftest import Serving, serving


@pytest.fixture(scope="module")
def document(served: Serving) -> dict[str, Any]:
    found: dict[str, Any] = served.client.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, one) for path, methods in document["paths"].items() for method, one in methods.items()]


def test_the_document_has_these_routes(document: dict[str, Any]) -> None:
    assert {(method, path) for path, method, _ in operations(document)} == {
        ("post", "/v1/ask"),
        ("post", "/v1/search"),
        ("get", "/v1/products/{id}"),
        ("get", "/v1/about"),
        ("post", "/v1/chat/completions"),
        ("get", "/v1/models"),
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("get", "/metrics"),
    }


def test_every_route_has_examples(document: dict[str, Any]) -> None:
    for path, method, one in operations(document):
        content = one["responses"]["200"]["content"]
        assert all("example" in kind for kind in content.values()), path
        if method == "post":
            name = one["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            assert document["components"]["schemas"][name]["examples"], path


def test_requests_made_from_the_document_are_answered_as_it_says(answerer: Answerer, tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).parent / "schemathesis"), "run", "--phases", "examples,fuzzing,coverage",
        "--max-examples", "12", "--seed", "1", "--workers", "1", "--no-color",
    ]  # fmt: skip
    answerer = answerer.on(answerer.index)
    answerer.settings = type(answerer.settings)(decoding="copy")
    with serving(answerer) as here:
        done = subprocess.run(
            [*command, f"{here.url}/openapi.json"], cwd=tmp_path, capture_output=True, text=True, check=False,
            timeout=300, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
