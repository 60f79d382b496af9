"""What the tests of the page do in a browser."""

from collections.abc import Callable
from typing import Any

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait


def one(page: Chrome, selector: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, selector)


def all_of(page: Chrome, selector: str) -> list[WebElement]:
    return page.find_elements(By.CSS_SELECTOR, selector)


def texts(page: Chrome, selector: str) -> list[str]:
    return [element.text for element in all_of(page, selector)]


def until(page: Chrome, condition: Callable[[Chrome], Any]) -> Any:
    return WebDriverWait(page, 60, poll_frequency=0.02).until(condition)


def ask(page: Chrome, question: str) -> None:
    """Ask by the keyboard, and wait for the answer or what went wrong."""
    box = one(page, "#question")
    box.clear()
    box.send_keys(question, Keys.ENTER)
    settled(page)


def settled(page: Chrome) -> None:
    until(page, lambda p: not one(p, "#stop").is_displayed())
