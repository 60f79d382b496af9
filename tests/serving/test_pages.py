import asyncio
from pathlib import Path
from typing import Any

import pytest

from ragqa.serving import pages


def test_without_its_files_the_page_says_how_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {getattr(route, "path", ""): route for route in pages.routes().routes}
    monkeypatch.setattr(pages, "PAGE", tmp_path)
    page, icon = (asyncio.run(found[path].endpoint()) for path in ("/", "/favicon.ico"))
    assert page.status_code == 200
    assert b"Ask with <code>POST /v1/ask</code>" in page.body
    assert (icon.status_code, icon.body) == (204, b"")
