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
        assert np.all(np.abs(counts - per_step * np.array([0.55, 0.3, 0.15])) < 1.0 + 1e-9)
        seen += counts
    assert seen == pytest.approx(steps * per_step * np.array([0.55, 0.3, 0.15]), abs=1)


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
