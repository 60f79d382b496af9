"""A real Chromium without a screen: for pictures of the page, and for its tests."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS: Final = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync", "disable-dev-shm-usage", "hide-scrollbars", "lang=en-US",
)  # fmt: skip


def found() -> tuple[str, str] | None:
    """The browser and its driver; None where they are not both there."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@contextmanager
def chromium(profile: Path) -> Iterator[Chrome]:
    """The browser, in English.

    Args:
        profile: an empty folder.
    """
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    places = found()
    if places is None:
        raise SystemExit(
            "no Chromium with its chromedriver here; Debian has them in the packages chromium and chromium-driver"
        )
    options = ChromeOptions()
    options.binary_location = places[0]
    for flag in (*_FLAGS, f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    page = Chrome(options=options, service=Service(executable_path=places[1]))
    try:
        yield page
    finally:
        page.quit()


def prefer(page: Chrome, *, dark: bool, still: bool = True) -> None:
    """Have its user prefer dark or light colours, and that nothing moves."""
    wanted = {"color-scheme": "dark" if dark else "light", "reduced-motion": "reduce" if still else "no-preference"}
    features = [{"name": f"prefers-{name}", "value": value} for name, value in wanted.items()]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def size(page: Chrome, width: int, height: int, scale: float = 1.0) -> None:
    """Make its screen that large, with so many pixels a point."""
    sized = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sized)


def picture(page: Chrome) -> bytes:
    """What it shows, as PNG."""
    taken: dict[str, Any] = page.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    return base64.b64decode(taken["data"])
