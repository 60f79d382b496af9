"""Adapters on questions about products they never saw, beside the first candidate: ``python -m benchmarks.unseen``.

For every question of the adapter's own `split/test_unseen.jsonl` that has a product, the answer is right when it is the
product's description cut to the answer's budget, after SQuAD's normalisation (Rajpurkar et al. 2016): lower case, no
punctuation, no articles, white space folded. All roads are given the same candidates; nobody abstains. *first* returns
the first candidate's description, *adapter* that of the candidate it chooses, *no model* that of the one chosen by the
same logit, fitted on the same validation questions but without the model's log-probabilities; *shown* counts where the
right one is among those in the prompt, which nobody who chooses can pass. *free* lets the adapter write.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import string
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from math import comb
from pathlib import Path
from typing import Any

from benchmarks.road import HERE, README
from ragqa import Answerer
from ragqa.generation.choice import Alternatives, alternatives, fit
from ragqa.generation.prompt import cut_at_tokens
from ragqa.progress import progress_bar, show_progress
from ragqa.records import Retrieval

BATCH = 32
RESULT = HERE / "results" / "unseen.json"


def main() -> int:
    """Ask all questions, write the result and the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, nargs="?")
    parser.add_argument("adapters", type=Path, nargs="*")
    parser.add_argument("--questions", default="test_unseen", help="a set of the split (default: test_unseen)")
    parser.add_argument("--free", type=int, default=0, metavar="N", help="also let it write N answers freely")
    parser.add_argument("--limit", type=int, metavar="N", help="ask N of the questions, chosen at random")
    parser.add_argument("--keep", action="store_true", help="add to the committed result")
    parser.add_argument("--tables", action="store_true", help="only write the tables from the committed result")
    chosen = parser.parse_args()
    if chosen.tables:
        write_tables(json.loads(RESULT.read_text("utf-8")))
        return 0
    if not chosen.adapters:
        parser.error("an index and one adapter or more are needed")
    show_progress(True)
    result = {a.name: measure(chosen.index, a, chosen.questions, chosen.free, chosen.limit) for a in chosen.adapters}
    for name, found in result.items():
        print(table(name, found))
    if chosen.keep:
        kept = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {}
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(kept | result) + "\n", "utf-8")
        write_tables(kept | result)
    return 0


def write_tables(result: dict[str, Any]) -> None:
    """Put the tables between their marks in benchmarks/README.md."""
    marks = re.compile(r"(<!-- unseen -->\n).*?(\n<!-- /unseen -->)", re.DOTALL)
    text = tables(result)
    README.write_text(marks.sub(lambda m: m[1] + text + m[2], README.read_text("utf-8")), "utf-8")


def tables(result: dict[str, Any]) -> str:
    """The tables of all adapters."""
    return "\n".join(table(name, found) for name, found in result.items()).strip()


def measure(index: Path, adapter: Path, questions: str, free: int, limit: int | None = None) -> dict[str, Any]:
    """Right or wrong for every question, on every road."""
    answerer = Answerer.from_pretrained(index, adapter=str(adapter))
    products = {product.id: product for product in answerer.index.store}
    rows = {product.id: row for row, product in enumerate(answerer.index.store)}
    held_out = frozenset(rows[i] for i in (adapter / "split" / "products_absent.txt").read_text().split())

    def retrieved(part: str) -> tuple[list[dict[str, Any]], list[Retrieval]]:
        read = [json.loads(line) for line in (adapter / "split" / f"{part}.jsonl").read_text().splitlines()]
        found: list[Retrieval] = []
        for start in range(0, len(read), BATCH):
            texts = [q["text"] for q in read[start : start + BATCH]]
            found += answerer.retriever.retrieve(texts, 10, without=held_out)
        return read, found

    every, all_found = retrieved(questions)
    asked = [q for q in every if q["product_id"] is not None]
    found = [r for q, r in zip(every, all_found, strict=True) if q["product_id"] is not None]
    if limit is not None and limit < len(asked):
        kept = sorted(random.Random(0).sample(range(len(asked)), limit))  # noqa: S311
        asked, found = [asked[i] for i in kept], [found[i] for i in kept]
    budget = answerer.settings.max_new_tokens
    tokenizer = answerer.generator.tokenizer
    right = [normalised(cut_at_tokens(tokenizer, products[q["product_id"]].description, budget)) for q in asked]

    def scored(texts: Sequence[str]) -> list[bool]:
        return [normalised(text) == wanted for text, wanted in zip(texts, right, strict=False)]

    plain = answerer.trained is not None and answerer.trained.mode == "plain"
    first = [cut_at_tokens(tokenizer, r.candidates[0].product.description, budget) for r in found]
    shown = [[c.product.description for c in r.candidates[: answerer.settings.context_products]] for r in found]
    size = answerer.settings.context_products
    roads = {
        "first": scored(first),
        "no model": scored(
            [
                cut_at_tokens(tokenizer, r.candidates[i].product.description, budget)
                for r, i in zip(found, _without_model(*retrieved("validation"), found, products, size), strict=True)
            ]
        ),
        "adapter": scored(_answers(answerer, found)),
        "shown": [
            any(normalised(cut_at_tokens(tokenizer, text, budget)) == wanted for text in texts)
            for texts, wanted in zip(shown, right, strict=True)
        ],
    }
    if free and not plain:
        order = random.Random(0).sample(range(len(found)), min(free, len(found)))  # noqa: S311
        written = _answers(answerer, [found[i] for i in order], decoding="free")
        marks = [normalised(text) == right[i] for text, i in zip(written, order, strict=True)]
        roads |= {"free": marks, "adapter, same questions": [roads["adapter"][i] for i in order]}
    return {
        "questions": [{"kind": q["kind"], "ambiguous": q["ambiguous"], "product_id": q["product_id"]} for q in asked],
        "right": roads,
        "manifest": {k: _manifest(adapter)[k] for k in ("mode", "recipe", "trained", "seconds", "choice")},
        "date": time.strftime("%Y-%m-%d"),
    }


def _without_model(
    asked: Sequence[dict[str, Any]], seen: Sequence[Retrieval], found: Sequence[Retrieval], products: Any, size: int
) -> list[int]:
    """The places chosen by the logit of `ragqa.generation.choice` without the model."""

    def known(r: Retrieval) -> Alternatives:
        return alternatives([0.0] * (1 + size), r.candidates[:size], r.question.subject, r.confidence)

    open_ = [(q, r) for q, r in zip(asked, seen, strict=True) if not r.candidates[0].exact]
    right = []
    for q, r in open_:
        wanted = products[q["product_id"]].description if q["product_id"] else None
        same = [c.product.description == wanted for c in r.candidates[:size]]
        right.append(1 + same.index(True) if True in same else 0)
    choice = fit([known(r) for _, r in open_], right)
    places = []
    for r in found:
        shares = choice.probabilities(known(r))[1:]
        exact = [i for i, c in enumerate(r.candidates[:size]) if c.exact]
        places.append(max(exact or range(size), key=lambda i, p=shares: (p[i], -i)))  # type: ignore[misc]
    return places


def _answers(answerer: Answerer, found: Sequence[Retrieval], **settings: Any) -> list[str]:
    texts: list[str] = []
    with progress_bar("answering", len(found), "questions") as bar:
        for start in range(0, len(found), BATCH):
            block = [replace(r, confidence=max(r.confidence, 1e-6)) for r in found[start : start + BATCH]]
            texts += [answer.text for answer in answerer.answer(block, min_confidence=0.0, **settings)]
            bar.update(len(block))
    return texts


def _manifest(adapter: Path) -> dict[str, Any]:
    return dict(json.loads((adapter / "manifest.json").read_text()))


def normalised(text: str) -> str:
    """SQuAD's normalisation."""
    bare = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def table(name: str, found: dict[str, Any]) -> str:
    """The shares of right answers by kind of question, as Markdown."""
    asked, roads = found["questions"], found["right"]
    whole = [road for road in ("first", "no model", "adapter", "shown") if road in roads]
    manifest = found["manifest"]
    about = (
        f"`--mode {manifest['mode']}`, {manifest['recipe']['examples']:,} examples, trained in "
        f"{manifest['seconds']['train'] / 60:.1f} minutes ({manifest['seconds']['total'] / 60:.1f} with everything), "
        f"validation loss {manifest['trained']['first_loss']:.3f} -> {manifest['trained']['best_loss']:.3f}, measured on "
        f"{found['date']}."
    )
    lines = [
        f"### {name}",
        "",
        about,
        "",
        "| questions | n | " + " | ".join(whole) + " |",
        "|---" * (len(whole) + 2) + "|",
    ]
    kinds = sorted({q["kind"] for q in asked})
    groups = {kind: [i for i, q in enumerate(asked) if q["kind"] == kind] for kind in kinds}
    groups |= {"one product fits": [i for i, q in enumerate(asked) if not q["ambiguous"]], "all": [*range(len(asked))]}
    for group, members in groups.items():
        cells = " | ".join(f"{sum(roads[road][i] for i in members) / len(members):.3f}" for road in whole)
        lines.append(f"| {group} | {len(members)} | {cells} |")
    won, lost = (sum(a and not b for a, b in pairs) for pairs in _both(roads["adapter"], roads["first"]))
    lines += ["", f"Adapter against first: {won} won, {lost} lost, exact two-sided p = {_sign_test(won, lost):.3g}."]
    if "free" in roads:
        n = len(roads["free"])
        lines.append(
            f"Of {n} at random, written freely: {sum(roads['free']) / n:.3f} right; the same by the chosen source's text: "
            f"{sum(roads['adapter, same questions']) / n:.3f}."
        )
    return "\n".join(lines) + "\n"


def _both(one: Sequence[bool], other: Sequence[bool]) -> tuple[list[tuple[bool, bool]], list[tuple[bool, bool]]]:
    return [*zip(one, other, strict=True)], [*zip(other, one, strict=True)]


def _sign_test(won: int, lost: int) -> float:
    """McNemar's exact test: the chance of so uneven a share of the pairs that differ."""
    n, few = won + lost, min(won, lost)
    return min(1.0, 2 * sum(comb(n, k) for k in range(few + 1)) / 2**n)


if __name__ == "__main__":
    sys.exit(main())
