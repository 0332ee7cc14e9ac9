"""Row order: every row once an epoch, and a resume sees what an unbroken run sees."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genai_core.data.order import permute_epoch, rows_for_step
from genai_core.errors import DataError


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**40), st.integers(1, 40), st.integers(1, 30))
def test_every_row_comes_once_in_every_epoch(seed, rows_per_step, n_rows):
    steps = 3 * n_rows  # whole epochs whatever rows_per_step is
    visits = np.concatenate([rows_for_step(seed, step, rows_per_step, n_rows) for step in range(steps)])
    epochs = visits.reshape(-1, n_rows)
    assert (np.sort(epochs, axis=1) == np.arange(n_rows)).all()
    assert visits.dtype == np.int64


def test_a_resume_continues_the_unbroken_order():
    unbroken = [rows_for_step(5, step, 7, 31).tolist() for step in range(40)]
    permute_epoch.cache_clear()
    assert [rows_for_step(5, step, 7, 31).tolist() for step in range(23, 40)] == unbroken[23:]
    assert rows_for_step(5, 39, 7, 31).tolist() == unbroken[39]  # and backwards, after a roll-back
    assert rows_for_step(5, 2, 7, 31).tolist() == unbroken[2]


def test_the_split_into_steps_does_not_change_the_order():
    small = np.concatenate([rows_for_step(1, step, 4, 10) for step in range(6)])
    large = np.concatenate([rows_for_step(1, step, 12, 10) for step in range(2)])
    assert small.tolist() == large.tolist()


def test_epochs_and_seeds_differ():
    orders = [permute_epoch(seed, epoch, 50).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_is_the_same_on_every_machine():
    visits = np.concatenate([rows_for_step(0, step, 32, 1000) for step in range(50)])
    assert hashlib.sha256(visits.astype("<i8").tobytes()).hexdigest()[:16] == "76725917192ea7b3"


def test_the_cached_order_cannot_be_changed_by_a_caller():
    rows = rows_for_step(0, 0, 4, 10)
    rows[:] = -1
    assert rows_for_step(0, 0, 4, 10).min() >= 0
    with pytest.raises(ValueError, match="read-only"):
        permute_epoch(0, 0, 10)[0] = 3


def test_no_rows_is_an_error():
    with pytest.raises(DataError, match="no packed rows"):
        rows_for_step(0, 0, 4, 0)
