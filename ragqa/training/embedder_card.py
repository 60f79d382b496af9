"""The README of a trained encoder: what it was trained on, and what that changed, in figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ragqa.training.recall import DEPTHS

# Below this two-sided p a change is not put down to chance.
_SURE: Final = 0.05
_SET_NAMES: Final = {"validation": "Validation questions", "unseen": "Questions about unseen products"}


def card(manifest: Mapping[str, Any], name: str) -> str:
    """The card as Markdown.

    Args:
        manifest: of the trained encoder.
        name: of its folder.
    """
    figures, settings, base = manifest["recalls"], manifest["settings"], manifest["base"]
    best, steps = manifest["best_step"], manifest["steps"]
    searched = f"all {figures['titles']:,} titles that are not held out"
    if figures["sampled"]:
        searched = f"a random sample of {figures['titles']:,} of {figures['of']:,} titles, so they are too high for all"
    sections = [
        "---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\n"
        "tags:\n- sentence-transformers\n- ragqa\n---",
        f"# {name}",
        f"The sentence encoder {base['name']}, trained with ragqa to find the titles "
        "of one catalogue by questions that have them in part, mistyped or in another order.",
        f"```bash\npython -m ragqa.build_index CATALOGUE --embedder {name}\n```",
        "## What changed",
        verdict(manifest),
        "Recall at 1 / 3 / 10, before -> after. *Vectors*: nearest titles by cosine similarity alone. *Retriever*: "
        "after ragqa's look-up of exact titles and its order by cosine similarity and shared trigrams, which is what "
        f"answering uses. Searched were {searched}. *One fits*: share of the questions that only one product fits; the "
        "others leave open which one is meant, and the row *sure* leaves them out.",
        *(f"{title}:\n\n{_table(figures, key)}" for key, title in _SET_NAMES.items()),
        "Training used no product that the second table asks about; the best checkpoint was chosen on the first.",
        "## Training",
        f"{manifest['pairs']:,} pairs of a question's subject and a title, each with a hard negative mined by the index's "
        f"own vectors, {steps:,} steps of {settings['batch_size']} (kept: step {best:,}), multiple negatives ranking "
        f"loss, learning rate {settings['learning_rate']:g}, seed {manifest['seed']}, on {manifest['device']} in "
        f"{manifest['dtype']}, {manifest['seconds']['total'] / 60:.1f} minutes with measuring. `manifest.json` has all "
        "settings, hashes and versions, `metrics.jsonl` the course of the loss.",
        "The questions were made from the catalogue by rules, not typed by people; other catalogues and other "
        "languages were not tried.",
    ]
    return "\n\n".join(sections) + "\n"


def verdict(manifest: Mapping[str, Any]) -> str:
    """One paragraph: whether the whole retriever finds more unseen products than before, or only its vectors do."""
    figures = manifest["recalls"]
    old, new = (figures[when]["unseen"]["sure"] for when in ("before", "after"))
    changes = figures["change"]["unseen"]
    sentences = []
    for way, subject in (("dense", "the vectors alone"), ("retriever", "the whole retriever")):
        told = []
        for depth in ("1", "3"):
            moved = changes[way][depth]
            what = (
                "which may be chance" if moved["p"] >= _SURE else "better" if moved["won"] > moved["lost"] else "WORSE"
            )
            told.append(
                f"at {depth} {old[way][depth]:.3f} -> {new[way][depth]:.3f}, {what} "
                f"({moved['won']} won, {moved['lost']} lost, p = {moved['p']:.2g})"
            )
        sentences.append(f"{subject} {'; '.join(told)}.")
    end = "That the whole retriever gets better is not shown: keep the encoder you have."
    whole = changes["retriever"]
    gained = [depth for depth in ("1", "3") if whole[depth]["p"] < _SURE and whole[depth]["won"] > whole[depth]["lost"]]
    if any(whole[depth]["p"] < _SURE and whole[depth]["won"] < whole[depth]["lost"] for depth in ("1", "3")):
        end = "The whole retriever gets WORSE: keep the encoder you have."
    elif gained:
        end = f"The whole retriever gets better (at {' and '.join(gained)})."
    return f"Recall on {new['questions']:,} questions about unseen products that only one product fits: " + " ".join(
        [*sentences, end]
    )


def _table(figures: Mapping[str, Any], key: str) -> str:
    lines = ["| kind | questions | one fits | vectors | retriever |", "|---|---|---|---|---|"]
    for kind, after in figures["after"][key].items():
        before = figures["before"][key][kind]
        cells = [f"{_row(before[way])} -> {_row(after[way])}" for way in ("dense", "retriever")]
        lines.append(f"| {kind} | {after['questions']:,} | {after['sure']:.2f} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def _row(values: Mapping[str, float]) -> str:
    return " / ".join(f"{values[str(depth)]:.3f}" for depth in DEPTHS)
