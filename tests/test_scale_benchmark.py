"""The scale benchmark makes the catalogue it says, and its tables count as they say."""

import copy
import json
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import scale, scale_peers, scale_report, scale_stages
from benchmarks.road import README
from benchmarks.scale_catalogue import KINDS, make_catalogue, make_questions
from benchmarks.scale_pictures import draw
from ragqa import prepare
from ragqa.records import Product
from ragqa.retrieval.lexical import build_lexical
from ragqa.retrieval.terms import terms
from ragqa.retrieval.text import fold

WORDS = "amber basalt cedar delta ember fjord garnet hazel indigo juniper".split()


@pytest.fixture
def sources(write_lines: Callable[..., Path]) -> dict[str, Path]:
    """60 products, every third without a description; two of the others have the title of an earlier one, but for case."""
    first = [
        {
            "uid": str(i),
            "title": f"Lamp {WORDS[i % 10]} LT-{i + 100} {i * 7} mm",
            "content": f"A lamp of {i * 7} mm, {WORDS[i // 7]} and {WORDS[i // 9]}, for the garden." if i % 3 else "",
        }
        for i in range(60)
    ]
    second = [
        {"uid": str(i), "title": title, "content": "Boils water."}
        for i, title in enumerate(("kettle one", "KETTLE ONE", "lamp AMBER lt-100 0 mm", "kettle &amp; cup", " "))
    ]
    return {"first": write_lines(first, "first.json"), "second": write_lines(second, "second.json.gz")}


def rows_of(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_the_same_seed_gives_the_same_catalogue(sources: dict[str, Path], tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_catalogue(100, tmp_path / name, sources, seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_real_products_come_first_and_varied_ones_make_up_the_number(sources: dict[str, Path], tmp_path: Path) -> None:
    few = make_catalogue(40, tmp_path / "few.jsonl", sources)
    many = make_catalogue(500, tmp_path / "many.jsonl", sources)
    # 60 and 2 of the second: its others have a title that is there already, or none.
    assert (few["products"], sum(few["real"].values()), few["varied"]) == (40, 40, 0)  # type: ignore[union-attr]
    assert (many["products"], many["real"], many["varied"]) == (500, {"first": 60, "second": 2}, 438)
    real, titles = ({row["title"] for row in rows_of(tmp_path / f"{name}.jsonl")} for name in ("few", "many"))
    assert real < titles
    # Varied ones stand among the real ones: half of the 62 in the first half.
    shared = [row["title"] in real for row in rows_of(tmp_path / "many.jsonl")]
    assert sum(shared[:250]) == 31


def test_no_product_is_dropped_by_cleaning(sources: dict[str, Path], tmp_path: Path) -> None:
    made = make_catalogue(700, tmp_path / "made.jsonl", sources)
    report = prepare(tmp_path / "made.jsonl", tmp_path / "clean.jsonl")
    assert (report.read, report.kept) == (700, 700)
    rows = rows_of(tmp_path / "made.jsonl")
    assert len({fold(row["title"]) for row in rows}) == len({row["uid"] for row in rows}) == 700
    # What has no description is described by the words of its title.
    undescribed = [row for row in rows if sorted(row["content"].split()) == sorted(row["title"].lower().split())]
    assert len(undescribed) == made["undescribed"] > 200


def test_a_varied_product_has_words_of_real_ones_and_other_numbers(sources: dict[str, Path], tmp_path: Path) -> None:
    make_catalogue(62, tmp_path / "real.jsonl", sources)
    make_catalogue(300, tmp_path / "made.jsonl", sources)
    titles = {row["title"] for row in rows_of(tmp_path / "real.jsonl")}
    letters = {"".join(filter(str.isalpha, word)) for title in titles for word in title.split()}
    varied = [row for row in rows_of(tmp_path / "made.jsonl") if row["title"] not in titles]
    assert len(varied) == 238
    for row in varied:
        assert {"".join(filter(str.isalpha, word)) for word in row["title"].split()} <= letters
    numbers = {word for title in titles for word in title.split() if word.isdigit()}
    new = [row for row in varied if not numbers.issuperset(word for word in row["title"].split() if word.isdigit())]
    assert len(new) > 50
    # The description's number is changed as the title's is.
    assert any(f"{row['title'].split()[-2]} mm," in row["content"] for row in new)


def test_kinds_of_questions_take_turns() -> None:
    products = [
        Product(str(i), f"Lamp {WORDS[i]} LT-{i + 100} for two", "Bright and sturdy garden light") for i in range(10)
    ]
    asked = make_questions(products)
    assert [q["kind"] for q in asked] == [*KINDS, *KINDS]
    assert asked == make_questions(products)
    assert "Lamp amber LT-100 for two" in asked[0]["text"]
    assert len({q["text"] for q in asked}) == 10
    without = make_questions([Product("1", "Lamp amber", "lamp amber")] * 5)
    assert [q["kind"] for q in without] == ["exact", "partial", "typo", "reordered", "partial"]


def test_the_exponent_of_known_growth() -> None:
    sizes = [1e4, 1e5, 582_280, 1.3e6]
    assert scale_report.exponent(sizes, [3 * n**0.5 for n in sizes]) == pytest.approx(0.5)
    assert scale_report.exponent(sizes, [7.0] * 4) == pytest.approx(0)
    assert scale_report.exponent([1e4], [1.0]) is None
    # By least squares: (0, 0), (1, 1), (2, 1) have the slope 1/2.
    assert scale_report.exponent([1, 10, 100], [1, 10, 10]) == pytest.approx(0.5)


def test_the_ratio_is_the_median_over_questions() -> None:
    assert scale_peers.ratio([3.0, 6.0, 9.0], [1.0, 2.0, 3.0]) == [3.0, 3.0, 3.0]
    middle, low, high = scale_peers.ratio([float(i) for i in range(1, 102)], [1.0] * 101)
    assert middle == 51
    # The order statistics between which a median lies with 95 %: 51 -+ 1.96 * sqrt(101) / 2.
    assert low == pytest.approx(41, abs=2)
    assert high == pytest.approx(61, abs=2)


def test_ways_are_asked_turn_by_turn() -> None:
    asked: list[str] = []
    ways: dict[str, Any] = {name: (lambda question, name=name: asked.append(f"{name}{question}")) for name in "ab"}
    found = scale_peers.turns(ways, [1, 2], 3)
    assert asked == ["a1", "a2", "b1", "b2"] * 3
    assert {name: len(times) for name, times in found.items()} == {"a": 2, "b": 2}


def test_peers_by_words_find_the_same_scores() -> None:
    random = np.random.default_rng(0)
    titles = [" ".join(random.choice(WORDS, size=random.integers(1, 6))) for _ in range(200)]
    ours = build_lexical([Product(str(i), title, "nothing") for i, title in enumerate(titles)]).without_descriptions()
    words = [terms(title) for title in titles]
    import bm25s

    fast = bm25s.BM25(k1=1.5, b=0.75, delta=1.0, method="bm25+")
    fast.index(words, show_progress=False)
    asked = [terms(title) for title in titles[:20]]
    for peer, _ in (scale_peers._rank_bm25(words), scale_peers._bm25s(fast)):
        search = lambda question: ours.search(question, scale_peers.K)  # noqa: E731
        assert scale_peers._alike("words", "titles", search, peer.one, asked) == 1.0
        wrong = lambda question: ours.search(question[:1], scale_peers.K)  # noqa: E731
        assert scale_peers._alike("words", "titles", wrong, peer.one, asked) < 0.5  # type: ignore[operator]


def test_memory_tells_the_process_own_from_pages_of_files(tmp_path: Path) -> None:
    size = 64 << 20
    (tmp_path / "part").write_bytes(bytes(size))
    before = scale_stages.memory(tmp_path)
    # Of the system itself: the allocator would give what it has left.
    own = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    own.write(bytes([1]) * size)
    mapped = np.memmap(tmp_path / "part", np.uint8, "r")
    assert int(mapped[::4096].sum()) == 0
    after = scale_stages.memory(tmp_path)
    assert after["anonymous"] - before["anonymous"] == pytest.approx(size, rel=0.1)
    assert (before["index_files"], after["index_files"]) == (0, size)
    assert after["resident"] == after["anonymous"] + after["index_files"] + after["other_files"]
    assert scale_stages.peak_memory() >= after["resident"] * 0.95
    del own, mapped


def test_a_peer_that_embeds_is_asked_up_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "installed", lambda name: name != "bm25s, numba")
    planned = scale.planned([10_000, 100_000], 10_000)
    assert [size for size, stage in planned if stage == "txtai hybrid"] == [10_000]
    assert [size for size, stage in planned if stage == "embedding"] == [100_000]
    assert [size for size, stage in planned if stage == "rank-bm25"] == [10_000, 100_000]
    assert "bm25s, numba" not in {stage for _, stage in planned}
    assert [stage for size, stage in planned if size == 10_000][:5] == list(scale.STAGES)


def test_a_stage_that_is_kept_is_not_measured_again(tmp_path: Path) -> None:
    file = scale.kept_file(1000, "bm25s, mapped", tmp_path)
    file.parent.mkdir()
    file.write_text(json.dumps({"asked": scale._asked(), "found": {"a": 1}}))
    assert scale.measure(1000, "bm25s, mapped", tmp_path)
    assert scale.kept(1000, "bm25s, mapped", tmp_path)["found"] == {"a": 1}  # type: ignore[index]
    file.write_text(json.dumps({"asked": {"seed": 0}, "found": {"a": 1}}))
    assert scale.kept(1000, "bm25s, mapped", tmp_path) is None


def a_peer(ratio: list[float], way: str, alike: float | None) -> dict[str, Any]:
    ms = {"p50": 30.0, "p95": 60.0, "mean": 35.0}
    return {
        "questions": 10, "rounds": 3, "prepared_in": 1.0, "built_in": 2.0, "peak": 3e8, "bytes": None, "ms": ms, "many": 40.0,
        "memory": {"resident": 2e8, "anonymous": 1e8, "index_files": 0, "other_files": 1e8},
        "ours": {way: {"ms": ms, "ratio": ratio, "alike": alike}},
    }  # fmt: skip


def a_size(products: int, ms: float) -> dict[str, Any]:
    ways = {way: {"p50": ms, "p95": 2 * ms, "mean": ms} for way in scale_report.WAYS}
    held = {"resident": 1.6e9, "anonymous": 5e8, "index_files": 1e9, "other_files": 1e8}
    seconds = {"clean": 1.0, "embed": products / 500, "total": 2 + products / 500}
    dense = {
        "factory": "IVF4096,SQ8",
        "parameters": "nprobe=16",
        "recall_at_10": 0.961,
        "latency_ms": ms,
        "questions": 200,
    }
    dense |= {
        "seconds": 4.0,
        "bytes": products * 400,
        "predicted": {"memory": products * 400, "latency_ms": 1.0, "seconds": 5.0},
    }
    return {
        "make": {"products": products, "real": {"parts": products - 100}, "varied": 100, "undescribed": 7},
        "build": {
            "products": products, "resumed": False, "seconds": seconds, "peak": 1e9, "dense": dense,
            "parts": {"vectors.faiss": products * 400, "titles.bin": products * 16},
        },
        "search": {"ms": ways, "many": {"retrieve": 200.0, "dense": 5000.0}, "memory": {"searching": held}},
        "start": {
            name: {"imported": [0.5] * 3, "opened": [2.0] * 3, "retrieved": [2.5, 2.4, 2.6]} for name in ("warm", "cold")
        },
        "update": {
            "added": 5, "changed": 6, "deleted": 7, "embedded": 4, "peak": 2e9,
            "seconds": {"clean": 0.5, "words": 0.25, "total": 1.0},
        },
        "peers": {
            "rank-bm25": a_peer([312.0, 300.0, 320.0], "titles", None),
            "bm25s": a_peer([1.5, 1.4, 1.6], "titles", 1.0),
            "bm25s, mapped": a_peer([0.9, 0.8, 1.1], "titles", None),
            "FAISS flat": a_peer([9.0, 8.0, 10.0], "dense", 0.954),
        },
    }  # fmt: skip


@pytest.fixture
def result() -> dict[str, Any]:
    rates = {"ragqa": [400.0, 500.0, 600.0], "sentence-transformers": [200.0, 200.0, 200.0]}
    rates["ragqa, int8"] = [800.0, 900.0, 1000.0]
    return {
        "machine": {"machine": "a machine", "threads": 2, "python": "3.11"},
        "measured": {"commit": ["abc"], "date": ["2026-01-01", "2026-01-02"]},
        "versions": {"bm25s": "1"},
        "asked": {"seed": 1, "single": 200, "many": 256},
        "peer_embedding_limit": 10_000,
        "embedding": {
            "titles": 3000, "of": 1000, "rates": rates,
            "cosine": {
                "ragqa": {"least": 0.999, "mean": 0.9999}, "ragqa, int8": {"least": 0.97, "mean": 0.99},
            },
            "recall": {"ragqa": 0.91, "sentence-transformers": 0.92, "ragqa, int8": 0.9},
            "dtype": {"ragqa": "bfloat16", "sentence-transformers": "float32", "ragqa, int8": "int8"},
        },
        "sizes": {"1000": a_size(1000, 1.0), "100000": a_size(100_000, 4.0)},
    }  # fmt: skip


def test_each_way_of_embedding_is_compared_with_the_library(result: dict[str, Any]) -> None:
    text = scale_report.table(result)
    assert "| ragqa | bfloat16 | 500 [400, 600] | 2.50 [2.00, 3.00] | 0.99900 | 0.99990 | 0.9100 |" in text
    assert "| ragqa | int8 | 900 [800, 1,000] | 4.50 [4.00, 5.00] | 0.97000 | 0.99000 | 0.9000 |" in text


def test_the_marks_are_those_of_the_largest_size(result: dict[str, Any]) -> None:
    text = scale_report.marks(result)
    assert "| mark | wanted | at 100,000 | reached |" in text
    assert "| retrieve, whole, p50 | under 10 ms | 4.00 ms | yes |" in text
    assert "| dense search alone, p50 | under 2 ms | 4.00 ms | **no** |" in text
    assert "| its recall@10 against exact search | at least 0.95 | 0.961 | yes |" in text
    assert "| lexical search, titles alone, times as fast as rank-bm25 | at least 50 | 312 [300, 320] | yes |" in text
    # Of two that are alike the faster one counts.
    assert (
        "| lexical search, titles alone, times as fast as bm25s, mapped | at least 1 | 0.90 [0.80, 1.10] | **no** |"
        in text
    )
    assert "| index and store on disk | under 2,500 MB | 41.6 MB | yes |" in text
    assert "| resident while searching | under 1,500 MB | 1,600 MB | **no** |" in text
    assert "| start to first retrieval | under 3 s | 2.5 s | yes |" in text
    assert "| updating one product in a hundred, of a build | under 5 % | 0.5% | yes |" in text
    without = copy.deepcopy(result)
    without["sizes"]["100000"]["peers"] = {}
    assert (
        "| lexical search, titles alone, times as fast as bm25s | at least 1 | not measured |  |"
        in scale_report.marks(without)
    )


def test_the_tables_have_every_size_stage_part_and_peer(result: dict[str, Any]) -> None:
    text = scale_report.table(json.loads(json.dumps(result)))
    assert "2026-01-01 to 2026-01-02 at commit `abc`" in text
    assert "| 100,000 | 202.0 | 1.0 | 200.0 | 1.0 | 500 | 1,000 MB |" in text
    assert "| 100,000 | 41.6 | 416 | 40.0 | 1.6 |" in text
    assert "| 1,000 | 1.00 [2.00] | 1.00 [2.00] |" in text
    assert "| 100,000 | `IVF4096,SQ8` | nprobe=16 | 0.961 | 200 | 4.00 | 1.00 | 4.0 | 5.0 | 40.0 MB | 40.0 MB |" in text
    assert "| 1,000 | 2.5 [2.4, 2.6] | 0.5 | 1.5 | 2.5 [2.4, 2.6] | 1,600 MB | 500 MB | 1,000 MB | 100 MB |" in text
    assert "| 1,000 | 5 | 6 | 7 | 4 | 1.0 | 0.5 | 0.2 | 25.0% | 2,000 MB |" in text
    assert "dense search | 30.0 | 9.00 [8.00, 10.0] | 0.954 |" in text
    assert "rank-bm25 was asked 10 questions at the largest size." in text
    assert "| ragqa | bfloat16 | 500 [400, 600] | 2.50 [2.00, 3.00] | 0.99900 | 0.99990 |" in text
    # 4 times as long at 100 times as many: log 4 / log 100.
    assert "| retrieve, whole, p50 ms | 1.00 | 4.00 | 4.0 | 0.30 | 0.30 |" in text
    result["sizes"]["1000"]["build"]["resumed"] = True
    assert "gone on with, so that times are too short: 1,000." in scale_report.table(result)


def test_pictures_are_the_same_each_time(result: dict[str, Any], tmp_path: Path) -> None:
    drawn = []
    for time in ("first", "second"):
        files = {name: tmp_path / f"{time}-{name}.svg" for name in scale_report.PICTURES}
        draw(result, files)
        drawn.append([file.read_bytes() for file in files.values()])
    assert drawn[0] == drawn[1]


def test_the_tables_are_made_from_the_committed_result() -> None:
    text = scale_report.table(json.loads(scale_report.RESULT.read_text("utf-8")))
    assert f"<!-- scale -->\n{text}\n<!-- /scale -->" in README.read_text("utf-8")
