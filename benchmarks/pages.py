"""Generated text in the project's documents."""

from __future__ import annotations

import re
from pathlib import Path


def put(page: Path, name: str, text: str) -> None:
    """Put a text between the marks ``<!-- name -->`` and ``<!-- /name -->`` of a page, in the place of what is there."""
    marks = re.compile(rf"(<!-- {name} -->\n).*?\n?(<!-- /{name} -->)", re.DOTALL)
    found, count = marks.subn(lambda m: f"{m[1]}{text}\n{m[2]}", page.read_text("utf-8"))
    if not count:
        raise ValueError(f"{page}: no marks for {name}")
    page.write_text(found, "utf-8")
