"""Where the rows of an index go when it is updated: those kept stand first, in their old order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt

from ragqa.errors import IndexDamagedError

# The new row of one that is dropped; no index has so many.
GONE: Final = np.uint32(0xFFFFFFFF)


@contextmanager
def rows_that_are_there() -> Iterator[None]:
    """Within, a row that is named and not there is told as the index's damage.

    Raises:
        IndexDamagedError: instead of IndexError or OverflowError.
    """
    try:
        yield
    except (IndexError, OverflowError) as error:
        raise IndexDamagedError("a part of the index names rows that are not there; build the index anew") from error


def new_rows(kept: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.uint32]:
    """For each old row its new one, (count,), or `GONE`.

    Args:
        kept: the old rows that stay, ascending.
        count: how many old rows there are.
    """
    rows = np.full(count, GONE)
    rows[kept] = np.arange(len(kept), dtype=np.uint32)
    return rows
