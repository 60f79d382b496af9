"""Errors on their way from a work on another machine: as data, so that they arrive as what they were."""

from __future__ import annotations

import platform

from ragqa import errors


def to_text(error: errors.RagqaError, home: str) -> str:
    """An error in a text, with the machine it is from if that is not `home`."""
    machine = platform.node()
    return f"{type(error).__name__}\n{error}" + ("" if machine == home else f" (on {machine})")


def from_text(text: str) -> errors.RagqaError:
    """The error again."""
    name, _, message = text.partition("\n")
    kind = getattr(errors, name, errors.ClusterError)
    error: errors.RagqaError = kind(message)
    return error
