"""Which rows a step sees: a pure function of (seed, step), so that a resume needs only the step.

Rows are visited in epochs, each its own permutation drawn from (seed, epoch). Step s takes the visits
[s R, (s+1) R), wherever in the epochs they fall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from genai_core.errors import DataError

_NOISE = 0x6E6F  # tells the noise's streams from those of the order
_GOLDEN = (5**0.5 - 1) / 2  # multiples of it, modulo 1, are spread evenly however many there are


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
    return rows_of_visits(seed, step * rows_per_step, (step + 1) * rows_per_step, n_rows)


def rows_of_visits(seed: int, first: int, end: int, n_rows: int) -> np.ndarray:
    """Return the row numbers of the visits [first, end), int64, counted from the beginning of the training.

    Raises:
        DataError: there are no rows.
    """
    if n_rows < 1:
        raise DataError("There are no packed rows to train on: the corpus is smaller than one row, or all was dropped.")
    parts = [np.empty(0, dtype=np.int64)]
    while first < end:
        epoch, offset = divmod(first, n_rows)
        count = min(end - first, n_rows - offset)
        parts.append(permute_epoch(seed, epoch, n_rows)[offset : offset + count])
        first += count
    return np.concatenate(parts)


@dataclass(frozen=True, slots=True, eq=False)
class RowNoise:
    """The randomness of rows that are visited: what an objective draws for a row, it draws from these."""

    noise: np.ndarray
    """(R,) int64, not negative: a seed for each visit."""

    place: np.ndarray
    """(R,) float64 in [0, 1): one in each of R cells of equal width."""

    def __getitem__(self, rows: slice) -> RowNoise:
        return RowNoise(self.noise[rows], self.place[rows])


def noise_for_step(seed: int, step: int, rows_per_step: int) -> RowNoise:
    """Return the noise of the rows of one step, in the order of `rows_for_step`: a pure function of its arguments.

    Args:
        seed: of the training.
        step: from 0.
        rows_per_step: R, over all ranks and micro-steps.
    """
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, step, _NOISE])))
    noise = generator.integers(0, 2**63, rows_per_step, dtype=np.int64)
    # low-discrepancy times of MDLM (arXiv 2406.07524): stratified over the step, not over a rank or micro-batch
    place = (np.arange(rows_per_step) + generator.random(rows_per_step)) / rows_per_step
    return RowNoise(noise, np.minimum(place, np.nextafter(1.0, 0.0)))


def noise_of_rows(indices: Sequence[int] | np.ndarray) -> RowNoise:
    """Return noise that belongs to the rows themselves, so that a measurement always sees the same."""
    rows = np.asarray(indices, dtype=np.int64)
    noise = [int(np.random.SeedSequence([int(row), _NOISE]).generate_state(1, np.uint64)[0] >> 1) for row in rows]
    return RowNoise(np.array(noise, dtype=np.int64), np.mod((rows + 0.5) * _GOLDEN, 1.0))


@lru_cache(maxsize=4)  # a step may lie across two epochs, and training and evaluation take turns
def permute_epoch(seed: int, epoch: int, n_rows: int) -> np.ndarray:
    """Return the order of all rows in one epoch, (n_rows,) int64, read-only."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
    order = generator.permutation(n_rows).astype(np.int64)
    order.setflags(write=False)
    return order
