import subprocess
import sys

import ragqa
from tests.conftest import ROOT


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    ).stdout.strip()


def test_the_public_names_are_these() -> None:
    assert ragqa.__all__ == [
        "Answer",
        "AnswerSettings",
        "AnswerStream",
        "Answerer",
        "CleaningReport",
        "CleaningSettings",
        "Plan",
        "PlanSettings",
        "Product",
        "RagqaError",
        "RayEngine",
        "ReadOptions",
        "Recipe",
        "RetrieverTrainingSettings",
        "Server",
        "Source",
        "Span",
        "build_index",
        "build_milvus",
        "export",
        "fine_tune",
        "fine_tune_retriever",
        "merge",
        "open_index",
        "plan",
        "prepare",
        "update_index",
    ]


def test_every_public_name_is_there_and_described() -> None:
    for name in ragqa.__all__:
        value = getattr(ragqa, name)
        assert callable(value)
        assert value.__doc__, name
    assert set(ragqa.__all__) <= set(dir(ragqa))


def test_importing_the_package_loads_no_large_library() -> None:
    heavy = (
        "{'torch', 'transformers', 'sentence_transformers', 'faiss', 'datasets', 'pyarrow', 'numpy', 'sklearn', 'ray'}"
    )
    assert run(f"import sys, ragqa; print({heavy} & set(sys.modules))") == "set()"


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert run("import ragqa; print(hasattr(ragqa, 'no_such_name'))") == "False"


def test_importing_any_module_starts_nothing(tmp_path: object) -> None:
    """No model is loaded, no file written and no command run by an import."""
    code = """
import pkgutil, sys, ragqa
for module in pkgutil.walk_packages(ragqa.__path__, "ragqa."):
    __import__(module.name)
print("done")
"""
    assert run(code) == "done"
