"""A real Chromium without a screen, and what the tests of the page ask of it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def found() -> tuple[str, str]:
    """The browser and its driver; without them the tests are skipped, and fail in CI."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        missing = "no Chromium with its chromedriver here; Debian has them in the packages chromium and chromium-driver"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return browser, driver


@contextmanager
def chromium(profile: Path, *, languages: str = "en-US", dark: bool = False) -> Iterator[Chrome]:
    """A browser with an empty profile.

    Args:
        profile: an empty folder.
        languages: that it asks pages for.
        dark: prefers dark colours.
    """
    browser, driver = found()
    options = ChromeOptions()
    options.binary_location = browser
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
        "--window-size=1280,900", f"--user-data-dir={profile}", f"--lang={languages.split(',')[0]}",
        "--force-prefers-reduced-motion",
    ):  # fmt: skip
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"intl.accept_languages": languages})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    page = Chrome(options=options, service=Service(executable_path=driver))
    try:
        prefer(page, dark=dark)
        yield page
    finally:
        page.quit()


def prefer(page: Chrome, *, dark: bool) -> None:
    """Have the browser prefer dark or light colours."""
    value = "dark" if dark else "light"
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [
            {"name": "prefers-color-scheme", "value": value}, {"name": "prefers-reduced-motion", "value": "reduce"}
        ]},
    )  # fmt: skip


def size(page: Chrome, width: int, height: int, *, scale: float = 1.0) -> None:
    """Make the page as large as a screen of that size."""
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 500},
    )


def picture(page: Chrome) -> bytes:
    """What it shows, as PNG."""
    import base64

    taken: dict[str, Any] = page.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    return base64.b64decode(taken["data"])
