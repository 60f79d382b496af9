"""What a run writes about itself: manifest, metrics, loss curve, and a model card that a person can read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ragqa.files import HashingFile, storage_errors, write_json, write_json_lines
from ragqa.generation.adapter import KEPT, base_name
from ragqa.seals import FILES, file_parts, sealed
from ragqa.training.judge import Shown
from ragqa.training.workplace import MANIFEST

METRICS: Final = "metrics.jsonl"
PICTURE: Final = "loss.png"
PROMPTS: Final = "prompts.jsonl"
# Colours that the colour-blind tell apart (Okabe and Ito 2008).
_BLUE, _ORANGE = "#0072B2", "#D55E00"


def write_documents(
    folder: Path,
    name: str,
    manifest: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    shown: Sequence[tuple[Shown, str]],
    prompts: Sequence[str],
) -> dict[str, Any]:
    """Write the documents of a run, the manifest last; returns the manifest.

    Args:
        folder: holds the adapter already.
        name: of the adapter.
        manifest: of the run; what it vouches for is added.
        history: what the Trainer logged.
        shown: questions with their answers before training, and the answers after.
        prompts: on which a merged model will be compared with the adapter.

    Raises:
        StorageError: the disk is full.
    """
    write_json_lines(folder / METRICS, history)
    with storage_errors(folder):
        draw(history, folder / PICTURE, int(manifest["trained"]["best_step"]))
    with HashingFile(folder / "README.md") as file:
        file.write(card(name, manifest, shown).encode(errors="replace"))
    write_json_lines(folder / PROMPTS, ({"prompt": prompt} for prompt in prompts))
    open_to_readers(folder)
    return write_manifest(folder, manifest)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest of a finished folder, with what it vouches for; returns it so."""
    whole = sealed({**manifest, FILES: file_parts(folder, KEPT)})
    write_json(folder / MANIFEST, whole)
    return whole


def open_to_readers(folder: Path) -> None:
    """Let others read what libraries wrote for their own user alone."""
    with storage_errors(folder):
        for path in folder.rglob("*"):
            if path.is_file():
                path.chmod(0o644)


def draw(history: Sequence[Mapping[str, Any]], path: Path, best: int) -> None:
    """Draw the course of the losses, and of the chosen sources where there are any, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    train = [(e["step"], e["loss"]) for e in history if "loss" in e]
    watched = [(e["step"], e["eval_loss"]) for e in history if "eval_loss" in e]
    sources = [(e["step"], e["eval_source_accuracy"]) for e in history if "eval_source_accuracy" in e]
    figure = Figure(figsize=(8.5 if sources else 6.0, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2 if sources else 1, squeeze=False)[0]
    steps, losses = zip(*train, strict=True)
    axes[0].plot(steps, losses, color=_BLUE, linewidth=0.8, alpha=0.35)
    # Single batches differ; their mean over a tenth of the run shows the course.
    wide = max(1, len(losses) // 10)
    means = [sum(losses[max(0, i - wide + 1) : i + 1]) / min(i + 1, wide) for i in range(len(losses))]
    axes[0].plot(steps, means, color=_BLUE, linewidth=1.8, label="training (thin: single steps)")
    axes[0].plot(*zip(*watched, strict=True), color=_ORANGE, marker="o", markersize=4, label="validation")
    axes[0].axvline(best, color="grey", linewidth=1, linestyle=":", label=f"kept: step {best}")
    axes[0].set(xlabel="optimiser step", ylabel="loss (nats a token, weighted)", title="Loss", ylim=(0, None))
    axes[0].legend(edgecolor="none", framealpha=1.0, loc="upper right")
    if sources:
        axes[1].plot(*zip(*sources, strict=True), color=_ORANGE, marker="o", markersize=4)
        axes[1].axvline(best, color="grey", linewidth=1, linestyle=":")
        axes[1].set(xlabel="optimiser step", ylabel="share of validation questions", title="Right source", ylim=(0, 1))
    for one in axes:
        one.grid(alpha=0.25)
        one.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def card(name: str, manifest: Mapping[str, Any], shown: Sequence[tuple[Shown, str]]) -> str:
    """The model card as Markdown."""
    base, trained, plan, recipe = (manifest[part] for part in ("base", "trained", "plan", "recipe"))
    retrieval = manifest["mode"] == "retrieval"
    fell = trained["best_loss"] < trained["first_loss"]
    context = manifest["context"]
    model = base_name(base["name"])
    sections = [
        f"---\nlibrary_name: peft\nbase_model: {json.dumps(model)}\npipeline_tag: text-generation\n"
        "tags:\n- lora\n- peft\n- ragqa\n---",
        f"# {name}",
        (
            f"A LoRA adapter for {model}, trained with ragqa on {manifest['examples']:,} questions about the "
            f"products of `{manifest['index']['catalogue']}`. "
            + (
                f"It reads a question with up to {context['products']} numbered candidates and answers with the number "
                "of the right one and its description."
                if retrieval
                else "It reads a question alone, without candidates, and answers with a description from memory."
            )
        ),
        f'```bash\npython -m ragqa.ask INDEX --adapter {name} "What is the description of ...?"\n```',
        "## How training went",
        (
            f"The validation loss {'fell' if fell else 'did NOT fall'} from {trained['first_loss']:.3f} to "
            f"{trained['best_loss']:.3f} nats (kept: step {trained['best_step']:,} of {trained['steps']:,}"
            + (f"; stopped early, {trained['planned']:,} were planned" if trained["steps"] < trained["planned"] else "")
            + "), in "
            + (f"(from step {trained['resumed_at']:,}, where it was resumed) " if trained["resumed_at"] else "")
            + f"{manifest['seconds']['train'] / 60:.1f} minutes on {manifest['device']} in {manifest['dtype']}."
        ),
        f"![loss]({PICTURE})",
        "## Answers before and after",
        "Greedy, with the same prompt, to validation questions; nothing was chosen but that each is of another kind.",
        *(_answers(one, after) for one, after in shown),
        "## The run",
        _table(
            {
                "examples": f"{manifest['examples']:,} ({', '.join(_dropped(manifest)) or 'none left out'}), and "
                f"{manifest['number_questions']:,} questions of which only the source's number was learnt; "
                f"{manifest['abstaining']:,} of the examples are answered by abstaining",
                "tokens an epoch": f"{plan['tokens']:,}, {plan['answer_tokens']:,} of them learnt; "
                f"{plan['computed']:,} computed",
                "parameters": f"{plan['trained']:,} of {plan['parameters']:,} trained: {', '.join(plan['layers'])}",
                "optimiser": f"AdamW, peak {recipe['learning_rate']:g}, {recipe['schedule']}, seed {manifest['seed']}",
                "base weights": f"`{base['weights_sha256'][:16]}` ({base['revision'] or base['origin']})",
                "index": f"`{str(manifest['index']['content_sha256'])[:16]}`, {manifest['index']['products']:,} products",
                "prompt template": f"{manifest['prompt']['version']}, `{manifest['prompt']['fingerprint'][:16]}`",
            }
            | ({"choice of sources": _choice(manifest["choice"])} if retrieval else {})
        ),
        "`manifest.json` has all settings, hashes and versions; `recipe.toml` repeats the run; `split/` has the questions "
        "and which products were trained on; `metrics.jsonl` the course of the losses; `cleaning.json` how the catalogue "
        "was cleaned.",
        "## Limits",
        "The questions were made from the catalogue by rules, not typed by people. "
        + (
            "The candidates are the retriever's: what it does not find cannot be answered. The text of an answer is by "
            "default the chosen source's own (`--decoding free` lets the model write it)."
            if retrieval
            else "What it says of products that it was not trained on is invented; its sources did not shape its answer."
        ),
    ]
    return "\n\n".join(sections) + "\n"


def _answers(one: Shown, after: str) -> str:
    rows = {"question": one.question, "right": one.right, "before": one.answer, "after": after}
    cells = [f"| {name} | {_cell(text)} |" for name, text in rows.items()]
    return "\n".join([f"| {one.kind} | |", "|---|---|", *cells])


def _cell(text: str) -> str:
    """Catalogue text inside a table: one line, no markup of its own."""
    flat = " ".join(text.split())[:400]
    for sign in "\\`*_[]<>|#":
        flat = flat.replace(sign, f"\\{sign}")
    flat = flat.replace("://", ": //")  # no links that the catalogue put there
    return flat or "(nothing)"


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _dropped(manifest: Mapping[str, Any]) -> list[str]:
    return [f"{count:,} left out: {reason}" for reason, count in manifest["dropped"].items()]


def _choice(choice: Mapping[str, Any]) -> str:
    if not choice["fitted_on"]:
        return "too few questions to fit on; the built-in weights"
    weights = ", ".join(f"{n} {w:.2f}" for n, w in zip(choice["features"], choice["weights"], strict=True))
    judged = ""
    if choice["judged"]:
        judged = (
            f", {choice['judged']} of them read by the model (5-fold log loss there {choice['log_loss']:.3f} nats, "
            f"{choice['log_loss_without']:.3f} without its word)"
        )
    return f"fitted on {choice['fitted_on']} questions{judged}: model {choice['model'][0]:.2f}, {weights}"
