"""Generated text in the project's documents."""

from __future__ import annotations

import re
from pathlib import Path


def put(page: Path, name: str, text: str) -> None:
    """Put a text between the marks ``<!-- name -->`` and ``<!-- /name -->`` of a page, in the place of what is there."""
    marks = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
    page.write_text(marks.sub(lambda m: m[1] + text + m[2], page.read_text("utf-8")), "utf-8")
