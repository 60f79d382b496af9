"""The page before the real service: the demonstration index and the real models."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from benchmarks.browser import prefer, size
from ragqa import Answerer
from ragqa.comparison.side_by_side import side_by_side
from ragqa.serving.compare import Comparison
from tests.serving.conftest import Serving, serving
from tests.serving.page.chromium import all_of, ask, one, settled, texts, until
from tests.serving.page.looks import faint, nameless, too_wide

pytestmark = pytest.mark.weights
LOOSE = "the lumen headlamp LT-350"


@pytest.fixture(scope="module")
def shop(answerer: Answerer, tiny_model: Path) -> Iterator[Serving]:
    """The service; the comparison's base model is a random one, which is quick."""
    comparison = Comparison(lambda a: side_by_side(a, generator=str(tiny_model), device="cpu", dtype="float32"))
    comparison.open(answerer)
    with serving(answerer, comparison=comparison) as here:
        yield here


@pytest.fixture
def page(browser: Chrome, shop: Serving) -> Iterator[Chrome]:
    size(browser, 1280, 900)
    prefer(browser, dark=False)
    browser.get(shop.url)
    browser.execute_script("localStorage.clear(); sessionStorage.clear()")
    browser.get(shop.url)
    browser.get_log("browser")
    yield browser
    assert browser.get_log("browser") == []


def test_the_generator_chooses_a_source_and_the_page_shows_what_was_copied(page: Chrome, answerer: Answerer) -> None:
    ask(page, LOOSE)
    told = answerer.ask(LOOSE)
    cited = next(source for source in told.sources if source.cited)
    number = told.sources.index(cited) + 1
    assert texts(page, "#text .copied") == [f"{told.text}{number}"]
    assert texts(page, "#cards .title") == [source.title for source in told.sources]
    assert "the answer's source" in texts(page, f".card:nth-child({number}) .why li")
    assert len(all_of(page, ".card .why li")) >= 3 * len(told.sources)  # score, words, similarity
    stages = [line.split()[0] for line in texts(page, ".stages li")]
    assert set(stages) <= {"wait", "search", "load", "write"}
    assert {"search", "write"} <= set(stages)
    assert one(page, "#about").text == "demo · 320 products"
    all_of(page, "#text .copied")[0].click()
    assert texts(page, ".card.selected .title") == [cited.title]
    assert texts(page, "mark.active") == [told.text]
    assert faint(page)[1] == []
    assert nameless(page) == []


def test_an_exact_title_is_told_as_the_reason(page: Chrome) -> None:
    ask(page, "What is the description of Lumen Trail Headlamp LT-350?")
    assert texts(page, ".card:first-child .why li")[:3] == ["the answer's source", "exact title", "score 1.00"]
    assert texts(page, "#facts dd")[:2] == ["100%", "100%"]


def test_what_is_not_there_is_said_with_near_products_to_choose(page: Chrome) -> None:
    ask(page, "What is the description of the Husker chainsaw?")
    assert one(page, "#verdict").text == "Not in this catalogue"
    assert one(page, "#sources-heading").text == "Near products"
    assert all_of(page, "#text .copied") == []
    title = one(page, ".card .title").text
    one(page, ".card .choose").send_keys(Keys.ENTER)
    settled(page)
    assert one(page, "#question").get_attribute("value") == title
    assert one(page, ".card:first-child .why .exact").text == "exact title"
    assert not one(page, "#verdict").is_displayed()


def test_several_that_fit_are_offered_also_on_a_phone(page: Chrome) -> None:
    size(page, 360, 740)
    ask(page, "Lumen Trail Headlamp")
    assert one(page, "#verdict").text == "Several products fit"
    assert sorted(texts(page, ".card .title")) == [f"Lumen Trail Headlamp LT-{kind}" for kind in (200, 350, 600)]
    assert too_wide(page) <= 0
    last = all_of(page, ".card .choose")[-1]
    chosen = all_of(page, ".card .title")[-1].text
    last.click()
    settled(page)
    assert texts(page, ".card.cited .title") == [chosen]
    assert one(page, "#send").size["height"] >= 44


def test_a_portuguese_question_is_answered_in_portuguese(page: Chrome) -> None:
    one(page, "button[value=pt]").click()
    ask(page, "Qual é a descrição deste produto: motosserra elétrica?")
    assert one(page, "#verdict").text == "Não está neste catálogo"
    assert one(page, "#text").text.strip() == "Este catálogo não parece ter esse produto."
    assert one(page, "#text").get_attribute("lang") == "pt"


def test_an_address_with_a_question_shows_its_answer(page: Chrome, shop: Serving) -> None:
    page.get(f"{shop.url}/?q=Marisol+Girls%27+Flamenco+Skirt%2C+Red")
    until(page, lambda p: all_of(p, "#facts dd"))
    assert texts(page, ".card.cited .title") == ["Marisol Girls' Flamenco Skirt, Red"]


def test_the_second_tab_compares_and_says_what_is_missing(page: Chrome, shop: Serving) -> None:
    page.get(f"{shop.url}/?q=What+is+the+description+of+Lumen+Trail+Headlamp+LT-350%3F&view=compare")
    until(page, lambda p: one(p, "#missing").is_displayed())
    assert texts(page, ".arm h2") == ["retrieve and return", "base model", "base model + retrieved"]
    assert one(page, ".arm[data-arm=copy] .from").text == "Source: Lumen Trail Headlamp LT-350"
    assert texts(page, ".arm[data-arm=copy] dd")[:3] == ["100%", "100%", "1.00, word for word"]
    assert one(page, ".arm[data-arm=base] .from").text == "names no source"
    assert "ragqa fine-tune INDEX --mode plain --out adapters/plain" in one(page, "#missing").text
    assert nameless(page) == []
    for dark in (False, True):
        prefer(page, dark=dark)
        assert faint(page)[1] == []
    size(page, 360, 740)
    assert too_wide(page) <= 0
    one(page, "button[value=pt]").click()
    assert texts(page, ".arm h2") == ["buscar e devolver", "modelo base", "modelo base + busca"]
