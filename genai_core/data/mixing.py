"""Rows of several datasets in one training: every step has its share of each.

With shares p_1 .. p_K and R rows a step, a step has of dataset k

    floor(R p_k) rows, and one more or not,      R in all

and over the steps the share is exact: what is left of R after the whole rows goes, row by row, to the datasets that most is
due to by then, sum_s R p_k less what they have had. For K = 2 that is rounding: n_1(s) = floor(s R p_1 + 1/2) visits have
passed before step s, and the rest is the other's. For more, the borders between datasets cannot be rounded each for itself:
a dataset between two others would lose to both at once, and have no row in a step that owes it 1.2. Nothing is drawn and
nothing drifts: whom most is due gets the next row, so at no step is a dataset a whole row from its share (two: half a row;
up to nine: found with random shares, tests/data/test_mixing.py).

Each dataset has epochs and an order of its own (data/order). Which rows, where they stand in the step and their noise are
functions of (seed, step), so that a resume needs only the step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized

import numpy as np

from genai_core.data.order import RowNoise, noise_for_step, rows_for_step, rows_of_visits
from genai_core.data.packing import PackedRow, PackedRows
from genai_core.errors import ConfigError, DataError

_MIX = 0x6D78  # tells these streams from those of order and noise
_WHOLE = 1e-9  # rows a step that are nearer than this to a whole number are one


class MixedRows:
    """Rows of several datasets under one numbering: those of the first, then those of the second, ..."""

    def __init__(self, parts: Mapping[str, PackedRows], shares: Mapping[str, float]) -> None:
        """Join datasets.

        Args:
            parts: rows by the name of their dataset.
            shares: of a step's rows, by name; they sum to 1.

        Raises:
            ConfigError: rows of different lengths.
            DataError: a dataset without rows.
        """
        for name, rows in parts.items():
            if not len(rows):
                raise DataError(
                    f"Dataset {name!r} has no rows to train on, but {shares[name]:g} of every step are to be its. "
                    "Leave it out of objective.datasets, or give the corpus some."
                )
        lengths = {name: rows.seq_len for name, rows in parts.items()}
        if len(set(lengths.values())) > 1:
            raise ConfigError(f"Datasets that are mixed need rows of one length; these have {lengths} tokens.")
        self.names = tuple(parts)
        self._parts = tuple(parts.values())
        self._shares = tuple(shares[name] for name in self.names)
        self._starts = np.cumsum([0, *(len(rows) for rows in self._parts)])
        self._taken: dict[int, list[np.ndarray]] = {}  # by rows a step: (K,) visits before each step so far

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, indices: Iterable[int]) -> list[PackedRow]:
        """Return the rows of these numbers, in this order."""
        numbers = np.asarray(list(indices), dtype=np.int64)
        sources = self.sources(numbers)
        found: list[PackedRow] = [None] * len(numbers)  # type: ignore[list-item]
        for source, rows in enumerate(self._parts):
            places = np.flatnonzero(sources == source)
            for place, row in zip(places, rows.take((numbers[places] - self._starts[source]).tolist()), strict=True):
                found[int(place)] = row
        return found

    def sources(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the number of each row's dataset, in the order of `names`."""
        return np.searchsorted(self._starts, np.asarray(indices), side="right") - 1

    def find(self, index: int) -> tuple[str, int]:
        """Return the name of a row's dataset and the row's number in it."""
        source = int(self.sources([index])[0])
        return self.names[source], index - int(self._starts[source])

    def efficiency(self) -> float:
        """Return the share of tokens that are not padding, as the steps see them."""
        return sum(share * rows.efficiency() for share, rows in zip(self._shares, self._parts, strict=True))

    def visits(self, seed: int, step: int, rows_per_step: int) -> tuple[np.ndarray, RowNoise]:
        """Return the rows of one step and their noise, as `visits_of_step` does."""
        before, after = (self._visited(at, rows_per_step) for at in (step, step + 1))
        counts = after - before
        numbers = [
            rows_of_visits(seed + source, int(first), int(end), len(rows)) + self._starts[source]
            for source, (first, end, rows) in enumerate(zip(before, after, self._parts, strict=True))
        ]
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, step, _MIX])))
        order = generator.permutation(rows_per_step)  # so that every rank and micro-batch has some of each
        noise = noise_for_step(seed, step, rows_per_step).noise
        # stratified within each dataset: an objective that is computed on one of them sees its rows alone
        places = [(np.arange(count) + generator.random(count)) / max(1, count) for count in counts]
        place = np.minimum(np.concatenate(places), np.nextafter(1.0, 0.0))
        return np.concatenate(numbers)[order], RowNoise(noise, place[order])

    def _visited(self, step: int, rows_per_step: int) -> np.ndarray:
        """Return how many visits of each dataset have passed before a step, (K,) int64."""
        if len(self._parts) <= 2:
            borders = np.array([0.0, *self._shares[:-1], 1.0])
            return np.diff(np.floor(step * rows_per_step * borders + 0.5).astype(np.int64))
        due = rows_per_step * np.array(self._shares)
        whole = np.floor(due + _WHOLE)
        part = np.where(due - whole > _WHOLE, due - whole, 0.0)
        left = rows_per_step - int(whole.sum())
        # of step s follows from s - 1, so what is known is kept: for speed alone, it is the same when counted again
        taken = self._taken.setdefault(rows_per_step, [np.zeros(len(due), dtype=np.int64)])
        while len(taken) <= step:
            at = len(taken)
            owed = np.where(part > 0, at * part - (taken[-1] - (at - 1) * whole), -np.inf)
            more = np.argsort(-np.round(owed, 9), kind="stable")[:left]
            counts = whole.astype(np.int64)
            counts[more] += 1
            taken.append(taken[-1] + counts)
        return taken[step]


def visits_of_step(rows: Sized, seed: int, step: int, rows_per_step: int) -> tuple[np.ndarray, RowNoise]:
    """Return the row numbers of one step, (R,) int64, and the noise of their visits: a function of its arguments."""
    if isinstance(rows, MixedRows):
        return rows.visits(seed, step, rows_per_step)
    return rows_for_step(seed, step, rows_per_step, len(rows)), noise_for_step(seed, step, rows_per_step)
