"""Datasets in one training: exact shares, an order of their own, and nothing but (seed, step) decides."""

from __future__ import annotations

import numpy as np
import pytest

from genai_core.data.mixing import MixedRows, visits_of_step
from genai_core.data.order import noise_for_step, rows_for_step
from genai_core.data.packing import PackedRows, pack_examples
from genai_core.errors import ConfigError, DataError


def rows_of(token: int, count: int, length: int = 8) -> PackedRows:
    """Return rows of one repeated token."""
    return pack_examples([([token] * length, [1] * length)] * count, length)


def mixed(shares: dict[str, float] | None = None) -> MixedRows:
    shares = shares or {"text": 0.55, "pairs": 0.3, "few": 0.15}
    return MixedRows({"text": rows_of(5, 50), "pairs": rows_of(6, 20), "few": rows_of(7, 3)}, shares)


def test_every_step_has_its_share_of_each_and_many_steps_have_it_exactly() -> None:
    rows, per_step, steps = mixed(), 8, 200
    seen = np.zeros(3)
    for step in range(steps):
        indices, _ = rows.visits(1, step, per_step)
        counts = np.bincount(rows.sources(indices), minlength=3)
        assert counts.sum() == per_step
        assert np.all(np.abs(counts - per_step * np.array([0.55, 0.3, 0.15])) < 1.0)
        seen += counts
    assert seen == pytest.approx(steps * per_step * np.array([0.55, 0.3, 0.15]), abs=1)


def counts_of(shares: np.ndarray, per_step: int, steps: int) -> np.ndarray:
    """Return the rows of each dataset in each step, (steps, K)."""
    names = [str(number) for number in range(len(shares))]
    rows = MixedRows({name: rows_of(5, 4) for name in names}, dict(zip(names, shares.tolist(), strict=True)))
    found = [rows.sources(rows.visits(0, step, per_step)[0]) for step in range(steps)]
    return np.array([np.bincount(one, minlength=len(shares)) for one in found])


def test_the_dataset_in_the_middle_is_owed_a_row_in_every_step() -> None:
    """3.6, 1.2 and 3.2 rows of 8: with each border rounded for itself the third step had none of the second."""
    counts = counts_of(np.array([0.45, 0.15, 0.4]), 8, 50)
    assert set(counts[:, 1].tolist()) == {1, 2}
    assert counts[:5].sum(0).tolist() == [18, 6, 16] and counts.sum(0).tolist() == [180, 60, 160]


@pytest.mark.parametrize("datasets", [2, 3, 4, 9])
def test_a_step_has_what_is_due_rounded_up_or_down_and_no_step_is_a_row_behind(datasets: int) -> None:
    generator = np.random.default_rng(datasets)
    for _ in range(10):
        shares, per_step = generator.dirichlet(np.ones(datasets)), int(generator.integers(2, 40))
        counts, due = counts_of(shares, per_step, 100), per_step * shares
        assert (counts.sum(1) == per_step).all()
        assert (counts >= np.floor(due)).all() and (counts <= np.ceil(due)).all()
        assert np.abs(counts.cumsum(0) - due * np.arange(1, 101)[:, None]).max() < (0.5 if datasets == 2 else 1.0)


def test_two_datasets_are_shared_out_as_ever_and_a_later_step_needs_no_earlier_one() -> None:
    for share in (0.7, 0.35, 1 / 3, 0.15):
        borders = np.array([0.0, share, 1.0])
        passed = np.array([np.floor(step * 10 * borders + 0.5) for step in range(101)])
        assert (counts_of(np.array([share, 1 - share]), 10, 100) == np.diff(np.diff(passed, axis=1), axis=0)).all()
    first, second = mixed(), mixed()
    ahead = first.visits(1, 90, 8)[0]
    assert [second.visits(1, step, 8)[0] for step in range(91)][-1].tolist() == ahead.tolist()


def test_each_dataset_has_epochs_of_its_own() -> None:
    rows = mixed()
    visits = np.zeros(len(rows), dtype=int)
    for step in range(100):
        indices, _ = rows.visits(1, step, 8)
        np.add.at(visits, indices, 1)
        for source, row in zip(rows.sources(indices), rows.take(indices), strict=True):
            assert row.input_ids[0] == 5 + source, "the row is one of the dataset that its number belongs to"
        for own in (visits[:50], visits[50:70], visits[70:]):
            assert own.max() - own.min() <= 1, "no row comes again before all of its dataset have come"


def test_a_step_is_a_function_of_seed_and_step_and_ranks_see_all_datasets() -> None:
    first, again = mixed().visits(3, 17, 8), mixed().visits(3, 17, 8)
    assert first[0].tolist() == again[0].tolist()
    assert first[1].noise.tolist() == again[1].noise.tolist()
    assert first[0].tolist() != mixed().visits(4, 17, 8)[0].tolist()
    rows = mixed({"text": 0.5, "pairs": 0.25, "few": 0.25})
    halves = [set(rows.sources(rows.visits(3, step, 8)[0][:4]).tolist()) for step in range(50)]
    assert {0, 1, 2} in halves and len({tuple(sorted(half)) for half in halves}) > 1, "rows are shuffled within a step"


def test_the_places_of_each_dataset_lie_one_in_each_cell() -> None:
    rows = mixed()
    indices, noise = rows.visits(1, 5, 40)
    sources = rows.sources(indices)
    for source in range(3):
        places = np.sort(noise.place[sources == source])
        assert np.floor(places * len(places)).tolist() == list(range(len(places)))


def test_rows_of_one_dataset_are_visited_as_before() -> None:
    rows = rows_of(5, 9)
    indices, noise = visits_of_step(rows, 2, 3, 4)
    assert indices.tolist() == rows_for_step(2, 3, 4, 9).tolist()
    assert noise.place.tolist() == noise_for_step(2, 3, 4).place.tolist()


def test_what_cannot_be_mixed_is_refused() -> None:
    with pytest.raises(DataError, match="'pairs' has no rows"):
        MixedRows({"text": rows_of(5, 2), "pairs": PackedRows([])}, {"text": 0.5, "pairs": 0.5})
    with pytest.raises(ConfigError, match="one length"):
        MixedRows({"text": rows_of(5, 2), "pairs": rows_of(6, 2, 16)}, {"text": 0.5, "pairs": 0.5})
