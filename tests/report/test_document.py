"""The three files: whole, safe, the same every time, and without texts where those may not be published."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ragqa.errors import StorageError
from ragqa.evaluation.scores import exact_match, token_overlap
from ragqa.report import answers
from ragqa.report.blocks import Answers, Bullets, Paragraph, Table, escape, plain
from ragqa.report.document import write_report
from ragqa.report.reading import Reading
from tests.report.made import LABELS, Made, made

HOSTILE = [
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "' onmouseover='alert(1)", "</article></main><h1>me</h1>",
    "| a | b |\n|---|---|\n```\n# head\n", "[x](javascript:alert(1)) ![y](http://evil.example/p.png)", "[a]: http://evil.example",
    "https://evil.example www.evil.example", "$\\frac$ `code` **b** _i_ ~~s~~", "&lt;b&gt; &#60;", "nul\x00 bell\x07 \ud800 \u202eturned",
    "{{ 7*7 }} $title ${title} %s",
]  # fmt: skip
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Collects elements, attributes and text, and checks that elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def hostile() -> tuple[Made, Made]:
    raw, analysis = made(arms=["copy", "plain", "retrieval_context"])
    for i, question in enumerate(raw["questions"]):
        question["text"] = HOSTILE[i % len(HOSTILE)]
        if question["product_id"]:
            question["reference"], question["product_id"] = (
                HOSTILE[(i + 1) % len(HOSTILE)],
                f"{i}{HOSTILE[i % len(HOSTILE)]}",
            )
    for arm in raw["arms"].values():
        for i, answer in enumerate(arm["runs"][0]["answers"]):
            answer["text"], answer["source"] = HOSTILE[(i + 2) % len(HOSTILE)], HOSTILE[i % len(HOSTILE)]
    raw["catalogue"]["name"] = "<b onclick=x>|shop`$x^2$_"
    return raw, analysis


def written(folder: Path, raw: Any, analysis: Any, texts: bool = True) -> dict[str, bytes]:
    paths = write_report(folder, raw, analysis, texts)
    assert {p for p in folder.rglob("*") if p.is_file()} == set(paths.values())
    return {name: path.read_bytes() for name, path in paths.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return written(tmp_path_factory.mktemp("whole"), *made())


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return written(tmp_path_factory.mktemp("attacked"), *hostile())


def test_the_page_fetches_nothing_and_runs_nothing(whole: dict[str, bytes]) -> None:
    page = Page(whole["html"].decode())
    assert not {tag for tag, _ in page.elements} & {
        "script",
        "link",
        "iframe",
        "img",
        "object",
        "embed",
        "base",
        "form",
    }
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "srcset", "action", "data", "poster", "background"):
                pytest.fail(f"{tag} {name}={value}")
            if name in ("href", "xlink:href"):
                assert (value or "").startswith("#") or (tag == "a" and (value or "").startswith("https://")), value
    assert not re.search(rb"url\((?!#)|@import", whole["html"])


def test_ids_are_unique_and_everything_referred_to_is_there(whole: dict[str, bytes]) -> None:
    text = whole["html"].decode()
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = {v[1:] for _, a in page.elements for k, v in a.items() if k.endswith("href") and v and v.startswith("#")}
    referred |= set(re.findall(r"url\(#([^)]*)\)", text))
    assert referred <= set(ids)
    contents = re.findall(r'<li><a href="#([^"]*)">', text)
    assert contents == re.findall(r'<section id="([^"]*)">', text)


def test_hostile_texts_are_shown_and_never_obeyed(attacked: dict[str, bytes]) -> None:
    page = Page(attacked["html"].decode())
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "b"}
    assert sum(tag == "h1" for tag, _ in page.elements) == 1
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert not [a for tag, a in page.elements if tag == "a" and "evil" in str(a.get("href"))]
    shown = " ".join(page.texts)
    assert "<script>alert(1)</script>" in shown
    assert "&lt;b&gt; &#60;" in shown
    assert "$title ${title}" in shown
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", shown)


def test_hostile_texts_stay_text_in_markdown(attacked: dict[str, bytes]) -> None:
    text = attacked["markdown"].decode()
    assert "<" not in re.sub(r"\\<|<https://aclanthology\.org/[^>]*>", "", text)
    assert "```" not in text
    assert set(re.findall(r"(?<!\\)\]\((\w+)", text)) == {"pictures"}
    assert not re.search(r"(?<!<)https?://", text)
    assert not re.search(r"^\[a\]:", text, re.M)
    assert [line for line in text.splitlines() if line.startswith("# ")] == [text.splitlines()[0]]


@pytest.mark.parametrize("source", ["whole", "attacked"])
def test_markdown_tables_have_as_many_cells_in_every_row(source: str, request: pytest.FixtureRequest) -> None:
    tables = re.findall(r"(?:^\|.*\|$\n?)+", request.getfixturevalue(source)["markdown"].decode(), re.M)
    assert len(tables) > 20
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.strip().splitlines()}
        assert len(widths) == 1, table[:500]


def test_without_texts_nothing_of_the_catalogue_is_in_any_file(tmp_path: Path, whole: dict[str, bytes]) -> None:
    raw, analysis = made()
    raw["sources"] = {"p": "Secretsource"}
    files = written(tmp_path / "bare", raw, analysis, texts=False)
    everything = b"".join(files.values()).decode()
    texts = [t for q in raw["questions"] for t in (q["text"], q["reference"]) if t]
    runs = [run["answers"] for arm in raw["arms"].values() for run in arm["runs"]] + [
        c["answers"] for c in raw["curve"]
    ]
    texts += [answer["text"] for given in runs for answer in given]
    words = {word.strip("?") for text in texts for word in text.split()} - set("What about the nothing".split()) | {
        "Secretsource"
    }
    assert not words & set(re.findall(r"\w+", everything))
    assert "left out here" in files["markdown"].decode()
    assert "left out here" in files["html"].decode()
    kept = json.loads(files["json"])
    assert kept["analysis"] == analysis
    assert [q["product_id"] for q in kept["raw"]["questions"]] == [q["product_id"] for q in raw["questions"]]
    for answer, bare, question in zip(
        raw["arms"]["copy"]["runs"][0]["answers"],
        kept["raw"]["arms"]["copy"]["runs"][0]["answers"],
        raw["questions"],
        strict=True,
    ):
        scores = {}
        if question["product_id"] is not None:
            pair = [answer["text"]], [question["reference"]]
            scores = {"exact_match": exact_match(*pair)[0], "f1": pytest.approx(token_overlap(*pair)[0, 2], abs=1e-5)}
        assert bare == {k: v for k, v in answer.items() if k != "text" and v is not None} | scores
    assert raw["questions"][0]["text"], "the run's own result is not touched"
    assert words & set(whole["markdown"].decode().split())
    assert "left out here" not in whole["markdown"].decode()


def test_json_is_the_result_as_given(whole: dict[str, bytes]) -> None:
    raw, analysis = made()
    assert json.loads(whole["json"]) == {"raw": raw, "analysis": analysis}


def test_writing_twice_gives_the_same_bytes(whole: dict[str, bytes], tmp_path: Path) -> None:
    for name in ("report.html", "report.md", "result.json"):
        (tmp_path / name).write_text("old")
    assert written(tmp_path, *made()) == whole


def test_pictures_are_well_formed_name_no_date_and_load_nothing(whole: dict[str, bytes]) -> None:
    pictures = {name.removeprefix("picture:"): text for name, text in whole.items() if name.startswith("picture:")}
    assert list(pictures) == ["forest", "gain", "kinds", "ranks", "learning", "latency", "risk", "recall"]
    for name, picture in pictures.items():
        root = ElementTree.fromstring(picture)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert {e.tag.split("}")[1] for e in root.iter()} <= {
            "svg",
            "g",
            "path",
            "use",
            "defs",
            "clipPath",
            "rect",
            "style",
        }
        for element in root.iter():
            for key, value in element.attrib.items():
                assert not key.endswith("href") or value.startswith(f"#{name}-")
        assert b"<!DOCTYPE" not in picture
        assert b"2026" not in picture
        assert f"pictures/{name}.svg".encode() in whole["markdown"]


@pytest.mark.parametrize(
    "options",
    [
        {"arms": ["copy"]},
        {"arms": ["base", "plain"], "sets": ["seen"]},
        {"arms": [], "kinds": ["absent"]},
        {"kinds": ["exact", "nonsense"], "seeds": [0, 1, 2]},
        {"arms": ["copy", "retrieval_context"], "kinds": ["typo"], "sets": ["unseen"], "questions": 1},
    ],
    ids=str,
)
def test_whatever_is_missing_the_report_is_whole(options: dict[str, Any], tmp_path: Path) -> None:
    raw, analysis = made(**options)
    for key in ("curve", "seeds", "ceiling", "abstention"):
        analysis[key] = []
    raw["curve"], raw["training"] = [], []
    files = written(tmp_path, raw, analysis)
    Page(files["html"].decode())
    assert b"None" not in files["html"]
    assert b"nan" not in files["markdown"]


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_report(tmp_path / "file", *made(arms=["copy"]))


def test_answers_shown_are_chosen_by_score_and_by_the_seed() -> None:
    raw, analysis = made()
    for i, question in enumerate(raw["questions"]):
        if question["set"] == "unseen" and question["product_id"]:
            raw["arms"]["retrieval_context"]["runs"][0]["answers"][i]["text"] = "" if i == 5 else question["reference"]
            raw["arms"]["copy"]["runs"][0]["answers"][i]["text"] = "" if i == 7 else question["reference"]
    reading = Reading(raw, analysis)
    why = {one.index: one.why for one in answers.choose(reading)}
    assert why[7] == f"{LABELS['retrieval_context']} above {LABELS['copy']}"
    assert why[5] == f"{LABELS['retrieval_context']} below {LABELS['copy']}"
    assert [one.why for one in answers.choose(reading)].count("random") == 4
    assert all(raw["questions"][i]["set"] == "unseen" for i in why)
    assert answers.choose(reading) == answers.choose(reading)
    assert answers.choose(reading, seed=1) != answers.choose(reading)


def test_blocks_write_plain_text() -> None:
    assert Paragraph("a < b & *c*").html() == "<p>a &lt; b &amp; *c*</p>"
    assert Paragraph("a < b & *c*").markdown() == r"a \< b &amp; \*c\*"
    assert plain("0.93 [0.91, 0.95] x") == "0.93 [0.91, 0.95] x"
    assert escape("\"'") == "&quot;&#x27;"
    cited = Bullets(["See <b> https://a.example/b?c=1&d=2, and on."], links=True)
    assert '&lt;b&gt; <a href="https://a.example/b?c=1&amp;d=2" rel="noreferrer">' in cited.html()
    assert cited.markdown() == r"- See \<b\> <https://a.example/b?c=1&d=2>, and on."
    assert Table("T", ["a", "b"], [["x|y", "1"]]).markdown() == "### T\n\n| a | b |\n| --- | ---: |\n| x\\|y | 1 |"
    assert "(nothing)" in Answers("t", "q", "r", [("arm", "", "")]).html()
