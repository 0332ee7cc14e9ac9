"""Which rows a step sees: a pure function of (seed, step), so that a resume needs only the step.

Rows are visited in epochs, each its own permutation drawn from (seed, epoch). Step s takes the visits
[s R, (s+1) R), wherever in the epochs they fall.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from genai_core.errors import DataError


def rows_for_step(seed: int, step: int, rows_per_step: int, n_rows: int) -> np.ndarray:
    """Return the row numbers of one step, (rows_per_step,) int64, in the order they are visited.

    Args:
        seed: of the permutations.
        step: from 0.
        rows_per_step: over all ranks and micro-steps.
        n_rows: in the data set; it may be smaller than rows_per_step.

    Raises:
        DataError: there are no rows.
    """
    if n_rows < 1:
        raise DataError("There are no packed rows to train on: the corpus is smaller than one row, or all was dropped.")
    first, end = step * rows_per_step, (step + 1) * rows_per_step
    parts = []
    while first < end:
        epoch, offset = divmod(first, n_rows)
        count = min(end - first, n_rows - offset)
        parts.append(permute_epoch(seed, epoch, n_rows)[offset : offset + count])
        first += count
    return np.concatenate(parts)


@lru_cache(maxsize=4)  # a step may lie across two epochs, and training and evaluation take turns
def permute_epoch(seed: int, epoch: int, n_rows: int) -> np.ndarray:
    """Return the order of all rows in one epoch, (n_rows,) int64, read-only."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
    order = generator.permutation(n_rows).astype(np.int64)
    order.setflags(write=False)
    return order
