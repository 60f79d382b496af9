"""The versions, the machine and the commit a result was made with."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import ragqa


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python, ragqa and those of the packages that are installed."""
    found = {"python": platform.python_version(), "ragqa": ragqa.__version__}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def setting() -> dict[str, str]:
    """Where and when a figure was measured: commit of the source tree ("" outside of one), date, machine, Python."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"],
        cwd=Path(ragqa.__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "commit": commit.stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {processor()}",
        "python": platform.python_version(),
    }


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor()
