"""A target of the fuzzer, guided by coverage: ``python -m benchmarks.hostile_coverage "JSON lines" -runs=200000``.

Needs atheris (requirements-benchmarks.txt: Linux on x86-64, Python 3.11). What follows the target's name is libFuzzer's.
An input that ends in anything but a result or one of the project's errors stops it, and is written to ``crash-*``.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

from ragqa.errors import MissingDependencyError, RagqaError

try:
    import atheris
except ImportError as error:
    raise MissingDependencyError("atheris is missing; pip install --no-deps -r requirements-benchmarks.txt") from error

with atheris.instrument_imports(include=["ragqa", "json", "csv", "gzip"]):
    from benchmarks.hostile_targets import targets


def main() -> None:
    """Fuzz one target; libFuzzer ends the process."""
    with tempfile.TemporaryDirectory() as folder:
        inputs, corpus = Path(folder) / "inputs", Path(folder) / "corpus"
        inputs.mkdir()
        corpus.mkdir()
        found = {one.name: one for one in targets(inputs)}
        if len(sys.argv) < 2 or sys.argv[1] not in found:
            sys.exit(f"name one of: {', '.join(map(repr, found))}")
        target = found[sys.argv[1]]
        for number, data in enumerate(target.corpus):
            (corpus / f"{number}").write_bytes(data)

        def takes(data: bytes) -> None:
            with contextlib.suppress(RagqaError):
                target.takes(data)

        atheris.Setup([sys.argv[0], *sys.argv[2:], str(corpus)], takes)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
