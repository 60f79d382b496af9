"""The versions a result was made with."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
from collections.abc import Sequence

import ragqa


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python, ragqa and those of the packages that are installed."""
    found = {"python": platform.python_version(), "ragqa": ragqa.__version__}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
