"""No module imports one that comes later on the way from a catalogue to an answer."""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

# The way, first to last; a package stands for all modules in it.
WAY = [
    "errors",
    "records",
    "settings",
    "progress",
    "files",
    "json_files",
    "folders",
    "seals",
    "versions",
    "models",
    "catalogue",
    "retrieval",
    "index",
    "planning",
    "milvus",
    "generation",
    "replies",
    "saved",
    "streams",
    "answerer",
    "batch",
    "cluster",
    "training",
    "evaluation",
    "report",
    "comparison",
    "serving",
    "commands",
    "cli",
]
# Within the packages whose modules are steps themselves.
STEPS = {
    "models": ["source", "trust", "packaged", "device", "gguf", "precision", "attention", "llama", "llama_files", "load"],
    "catalogue": ["columns", "formats", "places", "read", "seen", "clean", "store", "export", "parts"],
    "retrieval": [
        "text", "question", "bert", "embed", "int8", "gpu", "dense", "rows", "titles", "terms", "postings", "spelling", "lexical", "fuse", "noise", "confidence",
        "rerank", "searcher", "retriever",
    ],
    "index": [
        "lock", "generations", "storage", "embedder", "blocks", "shards", "engine", "recipe", "tune", "quantise", "vectors", "target", "folder", "build", "changes", "update",
    ],
    "planning": ["growth", "costs", "records", "plan", "text"],
    "milvus": ["address", "connection", "layout", "vocabulary", "searcher", "load", "index", "build"],
    "generation": [
        "limits", "markers", "prompt", "choice", "adapter", "provenance", "drafts", "prefixes", "verify", "caches", "decode", "pieces", "sources", "generator", "server", "completions", "remote", "opening", "writer",
    ],
    "batch": ["questions", "answers", "run"],
    "cluster": ["session", "faults", "cleaning", "embedding", "engine", "answering"],
    "training": [
        "processes", "groups", "questions", "splits", "contexts", "recipe", "examples", "tokens", "packs", "tree_attention", "lora",
        "batches", "shares", "checkpoints", "workplace", "device", "fit", "plan", "adapt", "judge", "documents", "fine_tune", "merge",
        "gguf_vocabulary", "gguf_file", "export",
        "pairs", "recall", "embedder_card", "contrastive", "embedder",
    ],
    "evaluation": [
        "scores", "corpus", "metrics", "ranking", "significance", "abstention", "table", "cells", "analysis",
    ],
    "report": ["reading", "summary", "blocks", "tables", "plots", "answers", "page", "document"],
    "comparison": ["profile", "arms", "stages", "steps", "run", "side_by_side"],
    "serving": [
        "limits", "problems", "metrics", "access", "generations", "work", "lanes", "pipeline", "service", "requests",
        "answers", "describe", "events", "routes", "compare", "chat", "pages", "guard", "app", "server",
    ],
}  # fmt: skip
SHIMS = {
    "prepare",
    "build_index",
    "update",
    "fine_tune",
    "fine_tune_retriever",
    "benchmark",
    "merge",
    "export",
    "ask",
    "ask_many",
    "compare",
    "serve",
    "plan",
    "doctor",
    "completion",
    "__init__",
}
MODULES = sorted(p.relative_to(ROOT / "ragqa") for p in (ROOT / "ragqa").rglob("*.py"))


def imported(path: Path) -> set[tuple[str, ...]]:
    """Modules of ragqa that a file imports, also inside functions; not those for type checkers alone."""
    tree = ast.parse((ROOT / "ragqa" / path).read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ragqa":
            parts = tuple(node.module.split(".")[1:])
            for alias in node.names:
                deeper = ROOT.joinpath("ragqa", *parts, alias.name)
                names.add((*parts, alias.name) if deeper.with_suffix(".py").exists() or deeper.is_dir() else parts)
        elif isinstance(node, ast.Import):
            names |= {tuple(a.name.split(".")[1:]) for a in node.names if a.name.split(".")[0] == "ragqa"}
    return {name for name in names if name}


def test_every_module_has_its_place_on_the_way() -> None:
    places = {path.parts[0].removesuffix(".py") for path in MODULES}
    assert places == set(WAY) | SHIMS
    for package, steps in STEPS.items():
        inside = {path.stem for path in MODULES if path.parts[0] == package} - {"__init__"}
        assert inside == set(steps), package


@pytest.mark.parametrize("path", [p for p in MODULES if p.parts[0].removesuffix(".py") not in SHIMS], ids=str)
def test_imports_only_go_forward(path: Path) -> None:
    here = path.parts[0].removesuffix(".py")
    for name in imported(path):
        assert name[0] not in SHIMS, f"{path} imports {'.'.join(name)}"
        assert WAY.index(name[0]) <= WAY.index(here), f"{path} imports {'.'.join(name)}, which comes later"
        if name[0] == here and here in STEPS and path.stem != "__init__" and len(name) > 1:
            steps = STEPS[here]
            assert steps.index(name[1]) < steps.index(path.stem), f"{path} imports {name[1]}, which comes later"


def test_only_one_package_calls_from_pretrained_of_the_libraries() -> None:
    callers = {
        str(path)
        for path in MODULES
        for node in ast.walk(ast.parse((ROOT / "ragqa" / path).read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "from_pretrained"
    }
    assert callers == {
        "models/load.py",
        "models/packaged.py",
        "models/gguf.py",
        "cluster/answering.py",
        "commands/answering.py",
        "commands/compare.py",
        "training/fine_tune.py",
        "comparison/steps.py",
    }  # the last four call Answerer.from_pretrained


def test_files_can_be_held_in_the_head() -> None:
    lengths = {str(path): len((ROOT / "ragqa" / path).read_text("utf-8").splitlines()) for path in MODULES}
    assert {path: length for path, length in lengths.items() if length > 360} == {}
