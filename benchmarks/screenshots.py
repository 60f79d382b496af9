"""The pictures of the page in the README, taken anew: python -m benchmarks.screenshots.

A server over the demonstration index answers a real browser (Chromium with its driver, and selenium, which the tests
need as well). In a phone's picture dark colours are preferred.
"""

from __future__ import annotations

import argparse
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from benchmarks.browser import chromium, picture, prefer, size
from benchmarks.road import ROOT

QUESTION: Final = "What is the description of the Lumen headlamp LT-350?"
# File -> question, width, height, pixels a point, dark.
PICTURES: Final[dict[str, tuple[str, int, int, int, bool]]] = {
    "page.png": (QUESTION, 1200, 820, 1, False),
    "page-phone.png": ("lighthuose keepers kitens", 390, 844, 2, True),
}


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screenshots", description=__doc__)
    parser.add_argument("--index", default="indexes/demo", help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder (default: docs)")
    chosen = parser.parse_args()
    with serving(chosen.index) as url, tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as page:
        for name, (question, width, height, scale, dark) in PICTURES.items():
            size(page, width, height, scale)
            prefer(page, dark=dark)
            for _ in range(2):  # the first time models are loaded, and the picture would show that
                look(page, f"{url}?{urlencode({'q': question})}")
            taken = picture(page)
            (chosen.out / name).write_bytes(taken)
            print(f"{chosen.out / name}: {len(taken) / 1000:.0f} kB")


@contextmanager
def serving(index: str) -> Iterator[str]:
    """A server over an index; gives its address."""
    from ragqa import Answerer
    from ragqa.serving.app import create_app
    from ragqa.serving.server import Server, open_socket
    from ragqa.serving.service import Service

    service = Service(lambda: Answerer.from_pretrained(index))
    listening: socket.socket
    with open_socket("127.0.0.1", 0) as listening:
        server = Server(create_app(service), service)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while service.state == "loading":
                time.sleep(0.05)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


def look(page: Any, address: str) -> None:
    """Open the page, and wait for the answer."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    page.get(address)
    for selector in ("#facts dd", ".card .why li:nth-child(3)"):
        WebDriverWait(page, 120).until(lambda p, selector=selector: p.find_elements(By.CSS_SELECTOR, selector))


if __name__ == "__main__":
    main()
