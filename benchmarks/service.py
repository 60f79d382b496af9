"""How many clients can one service bear? ``python -m benchmarks.service --keep``.

A server process as `ragqa serve` starts it and a process of clients share the machine's cores. From 1 to 64 clients ask,
each its next question when it has its answer, with micro-batches and without (`--max-batch 1`); then twice as many
questions a second arrive as the service can bear. Every question is another one, and every answer is held against what
the same index gives its question in Python. Each mode's result is kept in the work folder, and the same command goes on
after an interruption; with `--again` all is measured in one piece, and what was kept before is left out.

Catalogue: the sample of LF-Amazon-1.3M. With `--adapter` the model also writes freely. The models compute in the format
that they have on this processor, which the result names.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks import service_report
from benchmarks.road import CATALOGUES, ROOT
from benchmarks.service_report import RESULT, write_tables
from ragqa.versions import installed_versions, setting

# Mode: decoding, kind of question, seconds a load, clients, whether it needs an adapter.
MODES: Final = {
    "copy": ("copy", "partial", 5.0, (1, 4, 16, 64), False),
    "exact titles": ("auto", "exact", 5.0, (1, 4, 16, 64), False),
    "extractive": ("extractive", "partial", 8.0, (1, 4, 16), False),
    "free": ("free", "partial", 8.0, (1, 4, 16), True),
}
_OVERLOAD: Final = ("copy", "extractive")
_BATCHES: Final = {"batches": 16, "one at a time": 1}
_NEW_TOKENS: Final = 128


def main() -> int:
    """Measure, and keep the result where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogue", type=Path, default=CATALOGUES["lf_amazon_sample"], help="(default: LF-Amazon)")
    parser.add_argument("--work", type=Path, default=Path("indexes/service"), help="(default: %(default)s)")
    parser.add_argument(
        "--index", type=Path, help="an index of the catalogue (default: one is built in the work folder)"
    )
    parser.add_argument("--adapter", type=Path, help="a LoRA adapter trained with retrieval, for free decoding")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="only these")
    parser.add_argument("--clients", nargs="+", type=int, help="only so many clients")
    parser.add_argument("--seconds", type=float, help="of each load (default: 5, or 8 where the generator is asked)")
    parser.add_argument("--again", action="store_true", help="measure anew what is kept in the work folder")
    parser.add_argument("--keep", action="store_true", help="make it the committed result")
    parser.add_argument("--tables", action="store_true", help="only write table and picture from the committed result")
    chosen = parser.parse_args()
    if chosen.tables:
        write_tables(json.loads(RESULT.read_text("utf-8")))
        return 0
    work = chosen.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    index = chosen.index or work / "index"
    if not index.exists():
        if not chosen.catalogue.exists():
            print(f"no catalogue at {chosen.catalogue}; set RAGQA_DATA (see benchmarks/README.md)", file=sys.stderr)
            return 2
        _run("-m", "ragqa.build_index", str(chosen.catalogue), "--out", str(index))
    if chosen.again:
        for mode in chosen.modes:
            _kept(work, mode).unlink(missing_ok=True)
    written: set[str] = set()
    for mode in chosen.modes:
        decoding, kind, seconds, clients, adapted = MODES[mode]
        if adapted and chosen.adapter is None:
            print(f"{mode} is not measured: name an adapter trained with retrieval, --adapter FOLDER", file=sys.stderr)
            continue
        if _kept(work, mode).exists():
            continue
        started, questions = time.monotonic(), work / f"{kind}.json"
        if kind not in written:
            _run("-m", "benchmarks.service", "questions", str(index), kind, str(questions))
            written.add(kind)
        settings = {"decoding": decoding} | ({"max_new_tokens": _NEW_TOKENS} if adapted else {})
        found: dict[str, Any] = setting() | {"settings": settings, "questions": kind, "ways": {}}
        for way, most in _BATCHES.items():
            options = ["--max-batch", str(most), *(["--adapter", str(chosen.adapter)] if adapted else [])]
            # Clients that wait for their answers are not refused, however long that is.
            with _served(index, [*options, "--max-wait", "1000", "--timeout", "1000"]) as url:
                load = _Load(url, questions, settings)
                found["ways"][way] = [
                    load.run("--clients", str(number), "--seconds", str(chosen.seconds or seconds))
                    for number in chosen.clients or clients
                ]
        if mode in _OVERLOAD:
            best = max(one["answers_per_second"] for one in found["ways"]["batches"])
            with _served(index, []) as url:
                load = _Load(url, questions, settings)
                found["overload"] = load.run("--rate", str(2 * best), "--seconds", "10") | {
                    "best": best,
                    "commit": setting()["commit"],
                }
        found["minutes"] = round((time.monotonic() - started) / 60, 1)
        print(f"{mode}: {found['minutes']} minutes", file=sys.stderr, flush=True)
        _kept(work, mode).write_text(json.dumps(found) + "\n", "utf-8")
    result: dict[str, Any] = setting() | {
        "versions": installed_versions(("torch", "fastapi", "uvicorn", "uvloop", "httptools")),
        "dtype": _run("-c", _DTYPE).strip(),
        "products": json.loads(_run("-c", _COUNT, str(index))),
        "modes": {
            mode: json.loads(_kept(work, mode).read_text("utf-8")) for mode in MODES if _kept(work, mode).exists()
        },
    }
    print(service_report.table(result))
    if chosen.keep:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        write_tables(result)
    return 0


def _kept(work: Path, mode: str) -> Path:
    """Where a mode's result is kept."""
    return work / f"{mode.replace(' ', '-')}-measured.json"


class _Load:
    """Loads one after the other, each with questions that were not asked yet."""

    def __init__(self, url: str, questions: Path, settings: dict[str, Any]) -> None:
        self._common = [url, str(questions), "--settings", json.dumps(settings)]
        self._first = 0

    def run(self, *how: str) -> dict[str, Any]:
        told = _run("-m", "benchmarks.service_load", *self._common, "--first", str(self._first), *how)
        found: dict[str, Any] = json.loads(told.splitlines()[-1])
        self._first += sum(found["statuses"].values()) + 100
        print(f"{time.strftime('%H:%M:%S')} {' '.join(how)}: {json.dumps(found)}", file=sys.stderr, flush=True)
        return found


@contextmanager
def _served(index: Path, options: Sequence[str]) -> Iterator[str]:
    """`ragqa serve`, ready; stopped by SIGTERM, which must end it with status 0."""
    command = [sys.executable, "-m", "ragqa.serve", str(index), "--port", "0", "-q", *options]
    with subprocess.Popen(command, cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout  # noqa: S101  (for the type checker)
            url = running.stdout.readline().strip()
            while running.poll() is None:
                try:
                    with urllib.request.urlopen(f"{url}/readyz"):  # noqa: S310  (of our own server)
                        break
                except urllib.error.URLError:
                    time.sleep(0.1)
            yield url
            running.terminate()
            if running.wait(60):
                raise RuntimeError(f"the server ended with status {running.returncode}")
        finally:
            running.kill()


def _run(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def _environment() -> dict[str, str]:
    return os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


_DTYPE: Final = (
    "from ragqa.models.device import choose_dtype; print(str(choose_dtype('auto', 'cpu')).removeprefix('torch.'))"
)
_COUNT: Final = "import sys; from ragqa.index.generations import live_generation; from ragqa.index.storage import read_manifest; from pathlib import Path; print(read_manifest(live_generation(Path(sys.argv[1])))['count'])"


def write_questions(index: str, kind: str, out: str) -> None:
    """Questions about an index's products in turn, each with what it must give, as `ragqa` answers it in Python."""
    from ragqa import Answerer
    from ragqa.retrieval.noise import partial_title

    answerer = Answerer.from_pretrained(index)
    random_ = random.Random(0)  # noqa: S311  (not for secrets)
    titles = [product.title for product in answerer.index.store]
    random_.shuffle(titles)
    texts = dict.fromkeys(
        title if kind == "exact" else partial_title(title, random_)
        for _ in range(1 if kind == "exact" else 4)
        for title in titles
    )
    questions = [f"What is the description of {text}?" for text in texts]
    answers = answerer.ask_many(questions, decoding="copy" if kind == "partial" else "auto")
    # The text of an exact title is the same in every mode; for others a generator may choose another of the sources.
    rows = [
        {
            "question": answer.question,
            "sources": [source.id for source in answer.sources],
            "text": answer.text if kind == "exact" else None,
        }
        for answer in answers
    ]
    Path(out).write_text(json.dumps(rows) + "\n", "utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["questions"]:
        write_questions(*sys.argv[2:])
        sys.exit(0)
    sys.exit(main())
