"""The page in a real browser, before a server that says what the test wants."""

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from benchmarks.browser import prefer, size
from benchmarks.screenshots import PICTURES
from tests.conftest import ROOT
from tests.serving.page.chromium import all_of, ask, one, settled, texts, until
from tests.serving.page.looks import faint, nameless, too_wide
from tests.serving.page.stand_in import PAGE, Reply, StandIn, as_events, as_json, event, problem, standing_in

ABOUT = as_json({"index": {"name": "shop", "products": 1234}})


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with standing_in() as server:
        yield server


@pytest.fixture
def page(browser: Chrome, server: StandIn) -> Iterator[Chrome]:
    """An empty page of a server that knows two products."""
    server.asked.clear()
    server.replies = {
        "/v1/about": lambda body, headers: ABOUT,
        "/v1/ask": lambda body, headers: as_events(
            ("found", FOUND), ("piece", {"text": TEXT}), ("answer", answer(body["question"]))
        ),
    }
    size(browser, 1280, 900)
    prefer(browser, dark=False)
    browser.get(server.url)
    browser.execute_script("localStorage.clear(); sessionStorage.clear()")
    browser.get(server.url)
    browser.get_log("browser")
    yield browser
    assert [line for line in browser.get_log("browser") if "Failed to load resource" not in line["message"]] == []


PEN = {"id": "a", "title": "Fountain pen", "description": "A pen 🖋 of brass with a screw cap. Refillable."}
INK = {"id": "b", "title": "Ink, blue", "description": "Ink that dries in four seconds, in a bottle of glass."}
TEXT = "A pen 🖋 of brass with a screw cap. It is loved 🧡 by all, and dries in four seconds, in a bottle of glass."
CANDIDATES = [
    PEN | {"score": 0.91, "cosine": 0.83, "overlap": 1.0, "coverage": 0.75, "exact": False},
    INK | {"score": 0.4, "cosine": 0.2, "overlap": 0.1, "coverage": 0.5, "exact": False},
]
FOUND = {"candidates": CANDIDATES}


def span(text: str, product: dict[str, Any] | None) -> dict[str, Any]:
    """A span of `TEXT`, in code points, as Python counts."""
    start = TEXT.index(text)
    there = product["description"].index(text) if product else None
    return {
        "start": start, "stop": start + len(text), "source": product and product["id"], "source_start": there,
        "source_stop": None if there is None else there + len(text), "probability": None,
    }  # fmt: skip


def answer(question: str, **changed: Any) -> dict[str, Any]:
    sources = [
        PEN | {"score": 0.91, "exact": False, "cited": True},
        INK | {"score": 0.4, "exact": False, "cited": False},
    ]
    return {
        "question": question, "text": TEXT, "sources": sources, "abstained": False, "several": False, "confidence": 0.82,
        "language": "en", "timings": {"retrieve": 0.012, "generate": 0.34, "total": 0.352}, "grounded": 0.8,
        "spans": [
            span("A pen 🖋 of brass with a screw cap.", PEN), span(" It is loved 🧡 by all, and ", None),
            span("dries in four seconds, in a bottle of glass.", INK),
        ],
    } | changed  # fmt: skip


def test_an_answer_is_shown_as_it_streams_and_then_marked_by_source(page: Chrome, server: StandIn) -> None:
    go_on = threading.Event()

    def slowly(body: dict[str, Any], headers: dict[str, str]) -> Reply:
        def parts() -> Iterator[bytes]:
            yield b": waiting\n\n"
            yield event("found", FOUND)
            yield event("piece", {"text": TEXT[:20]})
            go_on.wait(20)
            whole = event("piece", {"text": TEXT[20:]}) + event("answer", answer(body["question"]))
            middle = whole.index("🖋".encode()) + 2 if "🖋".encode() in whole else len(whole) // 2
            yield whole[:middle]  # a character in two parts
            yield whole[middle:]

        return 200, {"Content-Type": "text/event-stream"}, parts()

    server.replies["/v1/ask"] = slowly
    one(page, "#question").send_keys("pen", Keys.ENTER)
    until(page, lambda p: one(p, "#text").text == TEXT[:20].strip())
    assert one(page, "#text").get_attribute("aria-busy") == "true"
    assert one(page, "#status").text == "Writing …"
    assert texts(page, "#cards .title") == ["Fountain pen", "Ink, blue"]  # by the search, before the answer
    assert one(page, "#stop").is_displayed()
    cursor = "return getComputedStyle(document.getElementById('text'), '::after').animationName"
    assert page.execute_script(cursor) == "none"  # reduced motion is preferred here
    go_on.set()
    settled(page)
    assert one(page, "#text").get_attribute("aria-busy") == "false"
    assert texts(page, "#text .copied") == [
        "A pen 🖋 of brass with a screw cap.1", "dries in four seconds, in a bottle of glass.2"
    ]  # fmt: skip
    (without,) = all_of(page, "#text .unsourced")
    assert without.text == "It is loved 🧡 by all, and?"
    assert "dotted" in without.value_of_css_property("text-decoration")
    assert texts(page, "#facts dd") == ["82%", "80%", "352 ms"]
    assert texts(page, "#facts .stages li") == ["search 12 ms", "write 340 ms"]
    assert texts(page, ".card:first-child .why li") == [
        "the answer's source",
        "score 0.91",
        "words 75%",
        "similarity 0.83",
    ]
    assert one(page, "#about").text == "shop · 1,234 products"
    assert nameless(page) == []


def test_a_part_of_the_answer_leads_to_its_source_and_back(page: Chrome) -> None:
    ask(page, "pen")
    all_of(page, "#text .copied")[1].click()
    assert texts(page, ".card.selected .title") == ["Ink, blue"]
    assert texts(page, "mark.active") == ["dries in four seconds, in a bottle of glass."]
    # By keyboard: the number after the part.
    number = one(page, "#text .copied button")
    assert number.get_attribute("aria-label") == "from source 1, Fountain pen"
    number.send_keys(Keys.ENTER)
    assert texts(page, ".card.selected .title") == ["Fountain pen"]
    assert texts(page, "mark.active") == ["A pen 🖋 of brass with a screw cap."]
    assert number.get_attribute("aria-pressed") == "true"
    # And back, from what was copied, and from the title by keyboard.
    all_of(page, "mark")[1].click()
    assert texts(page, "#text .active") == ["dries in four seconds, in a bottle of glass.2"]
    one(page, ".card:first-child .title").send_keys(Keys.ENTER)
    assert texts(page, "#text .active") == ["A pen 🖋 of brass with a screw cap.1"]


def test_what_was_copied_from_a_product_that_is_not_listed_has_a_source_all_the_same(
    page: Chrome, server: StandIn
) -> None:
    sources = answer("")["sources"][:1]
    server.replies["/v1/ask"] = lambda body, headers: as_events(("answer", answer("pen", sources=sources)))
    ask(page, "pen")
    assert texts(page, "#text .copied") == [
        "A pen 🖋 of brass with a screw cap.1", "dries in four seconds, in a bottle of glass.+"
    ]  # fmt: skip
    assert one(page, ".elsewhere [role=img]").get_attribute("aria-label") == "from source +, b"
    assert faint(page)[1] == []


def test_keys_go_to_the_question_ask_stop_and_walk_through_the_products(page: Chrome, server: StandIn) -> None:
    closed = threading.Event()

    def endless(body: dict[str, Any], headers: dict[str, str]) -> Reply:
        def parts() -> Iterator[bytes]:
            yield event("piece", {"text": "For ever "})
            try:
                while not closed.wait(0.02):
                    yield b": waiting\n\n"
            finally:
                closed.set()

        return 200, {"Content-Type": "text/event-stream"}, parts()

    usual = server.replies["/v1/ask"]
    server.replies["/v1/ask"] = endless
    page.execute_script("document.activeElement.blur()")
    one(page, "body").send_keys("/")
    focused = page.switch_to.active_element
    assert focused.get_attribute("id") == "question"
    assert focused.get_attribute("value") == ""
    assert focused.value_of_css_property("outline-style") == "solid"
    focused.send_keys("pen/ink", Keys.ENTER)  # a slash that is written stays one
    until(page, lambda p: one(p, "#text").text.strip() == "For ever")
    focused.send_keys(Keys.ESCAPE)
    settled(page)
    assert one(page, "#status").text.startswith("Stopped. ")
    assert one(page, "#text").text.strip() == "For ever"
    assert one(page, "#text").get_attribute("aria-busy") == "false"
    assert closed.wait(10)  # the server was left
    server.replies["/v1/ask"] = usual
    ask(page, "pen")
    titles = all_of(page, "#cards .title")
    titles[0].send_keys(Keys.ARROW_DOWN)
    assert page.switch_to.active_element == titles[1]
    titles[1].send_keys(Keys.ARROW_DOWN)
    assert page.switch_to.active_element == titles[1]
    titles[1].send_keys(Keys.ARROW_LEFT)
    assert page.switch_to.active_element == titles[0]
    assert titles[0].value_of_css_property("outline-style") == "solid"


HOSTILE = (
    '<img src=x onerror="window.hit=1">', "</script><script>window.hit=1</script>", "javascript:window.hit=1",
    '"><svg onload=window.hit=1>', "{{constructor.constructor('window.hit=1')()}}", "\u202eevil\u2066\u0000\ufeff", "&lt;b&gt;",
)  # fmt: skip


def test_text_from_the_catalogue_is_never_run_and_keeps_to_its_place(page: Chrome, server: StandIn) -> None:
    sources = [
        {"id": text, "title": text, "description": f"{text} is sold", "score": 0.5, "exact": True, "cited": True}
        for text in HOSTILE
    ]
    told = "".join(HOSTILE)
    spans, at = [], 0
    for text in HOSTILE:
        spans.append(
            {
                "start": at,
                "stop": at + len(text),
                "source": text,
                "source_start": 0,
                "source_stop": len(text),
                "probability": None,
            }
        )
        at += len(text)
    hostile = answer(HOSTILE[0], text=told, sources=sources, spans=spans, timings={HOSTILE[0]: 1.0, "total": 1.0})
    arm = {
        "name": HOSTILE[0], "label": HOSTILE[0], "about": HOSTILE[1], "answer": told, "source": sources[0],
        "confidence": 1.0, "seconds": 1.0, "candidates": sources, "spans": spans, "f1": 1.0, "exact_match": True, "grounded": 1.0,
    }  # fmt: skip
    missing = {"name": "x", "label": HOSTILE[0], "about": HOSTILE[1], "how": [HOSTILE[1]]}
    server.replies |= {
        "/v1/about": lambda body, headers: as_json({"index": {"name": HOSTILE[0], "products": 1}}),
        "/v1/ask": lambda body, headers: as_events(
            ("found", {"candidates": [s | CANDIDATES[0] | s for s in sources]}),
            ("piece", {"text": told}),
            ("answer", hostile),
        ),
        "/v1/compare": lambda body, headers: as_events(
            ("arm", arm), ("compared", {"question": body["question"], "arms": [arm], "missing": [missing]})
        ),
    }
    page.get(server.url)
    ask(page, HOSTILE[0])
    shown = page.execute_script("return [...document.querySelectorAll('#cards .title')].map((e) => e.textContent)")
    assert shown == list(HOSTILE)
    # Signs that turn the direction of writing do not reach beyond the text they stand in.
    for selector in ("#text", "#answer-heading", ".description"):
        assert one(page, selector).value_of_css_property("unicode-bidi") == "isolate", selector
    assert one(page, ".title bdi").value_of_css_property("unicode-bidi") == "isolate"
    one(page, "#tab-compare").click()
    settled(page)
    assert len(all_of(page, ".arm")) == 1
    server.replies["/v1/ask"] = lambda body, headers: problem(422, HOSTILE[0])
    one(page, "#tab-answer").click()
    ask(page, HOSTILE[1])
    assert HOSTILE[0] in one(page, "#problem").text
    assert page.execute_script("return window.hit") is None
    assert all_of(page, "img, svg, body script, iframe, [onerror], [onload]") == []
    assert page.execute_script("return [...document.links].every((a) => a.protocol.startsWith('http'))")


@pytest.mark.parametrize(
    ("reply", "title", "advice"),
    [
        (problem(503, "queue-full", **{"Retry-After": "7"}), "The server is busy", "Try again in 7 s."),
        (problem(429, "rate", **{"Retry-After": "12"}), "Too many questions in a short time", "Try again in 12 s."),
        (problem(422, "the question has 5,000 characters"), "The server does not take this", "the question has 5,000"),
        (problem(500, "something went wrong"), "The server failed", "something went wrong"),
        ((502, {"Content-Type": "text/html"}, [b"<h1>Bad gateway</h1>"]), "The server failed", "Its log says more."),
        (as_events(("piece", {"text": "A pen"})), "The answer broke off", "ask again for the rest"),
        (
            as_events(("piece", {"text": "A pen"}), ("error", {"status": 504, "title": "Timeout", "detail": "no answer in 30 s"})),
            "The server failed", "no answer in 30 s",
        ),
        ((200, {"Content-Length": "99"}, []), "The answer broke off", "ask again"),
    ],
)  # fmt: skip
def test_what_went_wrong_is_told_with_what_to_do(
    reply: Reply, title: str, advice: str, page: Chrome, server: StandIn
) -> None:
    usual = server.replies["/v1/ask"]
    server.replies["/v1/ask"] = lambda body, headers: reply
    ask(page, "pen")
    assert one(page, "#problem h2").text == title
    assert advice in one(page, "#problem").text
    assert one(page, "#problem").get_attribute("role") == "alert"
    again = all_of(page, "#problem button")
    assert bool(again) is (title != "The server does not take this")
    server.replies["/v1/ask"] = usual
    if again:
        again[0].click()
        until(page, lambda p: one(p, "#text .copied"))
        assert not one(page, "#problem").is_displayed()


def test_a_server_that_is_gone_is_told(page: Chrome, server: StandIn) -> None:
    with standing_in() as other:
        other.replies = dict(server.replies)
        page.get(other.url)
        ask(page, "pen")
        assert texts(page, "#text .copied")
    ask(page, "ink")
    assert one(page, "#problem h2").text == "The server does not answer"
    assert "ragqa serve INDEX" in one(page, "#problem").text


def test_a_key_is_asked_for_and_kept_for_the_tab(page: Chrome, server: StandIn) -> None:
    usual = dict(server.replies)

    def guarded(path: str) -> Callable[[dict[str, Any], dict[str, str]], Reply]:
        return lambda body, headers: (
            usual[path](body, headers) if headers.get("Authorization") == "Bearer right" else problem(401, "no key")
        )

    server.replies = {path: guarded(path) for path in usual}
    page.get(server.url)
    ask(page, "pen")
    assert one(page, "#problem h2").text == "This server wants a key"
    assert page.switch_to.active_element.get_attribute("type") == "password"
    page.switch_to.active_element.send_keys("wrong", Keys.ENTER)
    until(page, lambda p: "That key was not accepted." in one(p, "#problem").text)
    one(page, "#key").send_keys("right", Keys.ENTER)
    until(page, lambda p: one(p, "#text .copied"))
    until(page, lambda p: one(p, "#about").text == "shop · 1,234 products")
    page.refresh()  # the question stands in the address
    until(page, lambda p: one(p, "#text .copied"))
    assert "right" not in page.current_url


def test_a_question_has_an_address_and_the_browser_goes_back(page: Chrome, server: StandIn) -> None:
    ask(page, "pen & ink?")
    assert page.current_url == f"{server.url}?q=pen+%26+ink%3F"
    assert one(page, "#facts .link").get_attribute("href") == page.current_url
    ask(page, "ink")
    page.back()
    until(page, lambda p: one(p, "#answer-heading").text == "pen & ink?")
    settled(page)
    assert one(page, "#question").get_attribute("value") == "pen & ink?"
    assert page.title == "pen & ink? · ragqa"
    one(page, "#question").clear()
    one(page, "#question").send_keys("  ", Keys.ENTER)
    assert one(page, "#status").text == "Write a question first."


def test_nothing_is_too_faint_too_wide_or_without_a_name(page: Chrome, server: StandIn) -> None:
    offered = {"abstained": True, "spans": [], "grounded": 0.0}
    arm = {
        "name": "base", "label": "base model", "about": "alone", "answer": TEXT, "source": None, "confidence": 0.5,
        "seconds": 2.0, "candidates": [PEN, INK], "spans": answer("")["spans"], "f1": 0.25, "exact_match": False, "grounded": 0.8,
    }  # fmt: skip
    missing = {
        "name": "plain",
        "label": "plain",
        "about": "trained",
        "how": ["ragqa fine-tune INDEX --mode plain --out adapters/plain"],
    }
    server.replies["/v1/compare"] = lambda body, headers: as_events(
        ("compared", {"question": body["question"], "arms": [arm], "missing": [missing]})
    )
    states: dict[str, Callable[[], None]] = {
        "empty": lambda: page.get(server.url),
        "answer": lambda: ask(page, "pen"),
        "selected": lambda: all_of(page, "#text .copied")[1].click(),
        "none": lambda: _ask_for(page, server, offered | {"several": False}),
        "several": lambda: _ask_for(page, server, offered | {"several": True}),
        "key": lambda: _ask_with(page, server, problem(401)),
        "busy": lambda: _ask_with(page, server, problem(503)),
        "compare": lambda: _compare(page),
    }
    usual = server.replies["/v1/ask"]
    for name, reach in states.items():
        size(page, 1280, 900)
        reach()
        for dark in (False, True):
            prefer(page, dark=dark)
            count, faint_ones = faint(page)
            assert count >= 8, name
            assert faint_ones == [], f"{name}, {'dark' if dark else 'light'}"
        size(page, 360, 740)
        assert too_wide(page) <= 0, name
        assert nameless(page) == [], name
    server.replies["/v1/ask"] = usual


def _ask_for(page: Chrome, server: StandIn, changed: dict[str, Any]) -> None:
    server.replies["/v1/ask"] = lambda body, headers: as_events(("answer", answer(body["question"], **changed)))
    ask(page, "pen")


def _ask_with(page: Chrome, server: StandIn, reply: Reply) -> None:
    server.replies["/v1/ask"] = lambda body, headers: reply
    ask(page, "pen")


def _compare(page: Chrome) -> None:
    one(page, "#tab-compare").click()
    settled(page)
    assert all_of(page, ".arm")


def test_a_server_without_comparison_says_how_to_have_it(page: Chrome) -> None:
    one(page, "#question").send_keys("pen")
    one(page, "#tab-answer").send_keys(Keys.ARROW_RIGHT)
    settled(page)
    assert one(page, "#tab-compare").get_attribute("aria-selected") == "true"
    assert "ragqa serve INDEX --compare" in one(page, "#missing").text
    assert page.current_url.endswith("?q=pen&view=compare")
    one(page, "#tab-answer").click()
    settled(page)
    assert texts(page, "#text .copied")


def test_the_page_speaks_the_language_of_the_browser_or_the_one_chosen(page: Chrome, server: StandIn) -> None:
    agent = page.execute_script("return navigator.userAgent")
    page.execute_cdp_cmd("Emulation.setUserAgentOverride", {"userAgent": agent, "acceptLanguage": "pt-BR,pt,en"})
    try:
        page.get(server.url)
        assert one(page, "h1").text == "Pergunte a este catálogo"
        assert one(page, "html").get_attribute("lang") == "pt"
        ask(page, "pen")
        assert texts(page, "#facts dt") == ["Confiança", "Copiado", "Tempo"]
        assert one(page, "#about").text == "shop · 1.234 produtos"
        assert one(page, "#text sup button").get_attribute("aria-label") == "da fonte 1, Fountain pen"
        size(page, 360, 740)
        assert too_wide(page) <= 0
        one(page, "button[value=en]").click()
        assert texts(page, "#facts dt") == ["Confidence", "Copied", "Time"]
        assert one(page, "button[value=en]").get_attribute("aria-pressed") == "true"
        page.refresh()
        assert one(page, "h1").text == "Ask this catalogue"
    finally:
        page.execute_cdp_cmd("Emulation.setUserAgentOverride", {"userAgent": agent, "acceptLanguage": "en-US,en"})


def test_both_languages_have_the_same_words() -> None:
    source = (PAGE / "words.js").read_text("utf-8")
    english, portuguese = source.split("  pt: {")
    names = [re.findall(r"^    (\w+):", part.split("\nconst KEPT")[0], re.MULTILINE) for part in (english, portuguese)]
    assert len(names[0]) > 60
    assert names[0] == names[1]


def test_the_pictures_of_the_readme_are_there_and_small() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    pictures = re.findall(r'<img src="([^"]+)" alt="[^"]+"', readme)
    assert pictures == [f"docs/{name}" for name in PICTURES]
    for picture in pictures:
        content = (ROOT / picture).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) < 400_000
