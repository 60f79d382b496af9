"""Where the rows of an index go when it is updated: those kept stand first, in their old order."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

# The new row of one that is dropped; no index has so many.
GONE: Final = np.uint32(0xFFFFFFFF)


def new_rows(kept: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.uint32]:
    """For each old row its new one, (count,), or `GONE`.

    Args:
        kept: the old rows that stay, ascending.
        count: how many old rows there are.
    """
    rows = np.full(count, GONE)
    rows[kept] = np.arange(len(kept), dtype=np.uint32)
    return rows
