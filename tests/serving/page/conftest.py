"""One browser for all tests of the page."""

import os
from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome

from benchmarks.browser import chromium, found


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A real Chromium; where there is none the test is skipped, but in CI it fails."""
    if found() is None:
        missing = "no Chromium with its chromedriver here; Debian has them in the packages chromium and chromium-driver"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page
