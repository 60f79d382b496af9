"""JSON files that somebody else may have written, read within bounds.

What they say is not believed: who takes a manifest apart expects `UNREADABLE` and says in one line what is wrong.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

# A manifest has some kB, the tokenizer of 250,000 tokens some 30 MB.
MOST_BYTES: Final = 256 * 2**20
# What a file that says something else than it should ends in when it is taken apart. `OverflowError`: 1e999 is infinite,
# and no whole number.
UNREADABLE: Final = (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError)


def read_json(path: Path, most: int = MOST_BYTES) -> Any:
    """What a JSON file says.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger, not UTF-8, not JSON, or nested too deeply.
    """
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"more than {most:,} bytes")
    try:
        return json.loads(data.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
