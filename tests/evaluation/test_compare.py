"""Intervals cover what they claim, differences are of shared cases only, reports are the same bytes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from genai_core.errors import ConfigError, DataError
from genai_core.evaluation.compare import (
    Report,
    compare,
    paired_bootstrap,
    paired_ratio_bootstrap,
    wilson_interval,
)


def report(split: str, model: str, rights: dict[str, float], *, nlls: dict[str, float] | None = None) -> Report:
    rows = [{"suite": "call", "case_id": case, "right": value} for case, value in rights.items()]
    rows += [
        {"suite": "text", "case_id": case, "nll": nll, "n_bytes": 100.0 * (1 + i), "n_tokens": 30.0}
        for i, (case, nll) in enumerate((nlls or {}).items())
    ]
    return Report(split=split, model=model, rows=tuple(rows))


def test_bootstrap_covers_the_true_difference_and_a_wrong_one_much_less() -> None:
    """95 % nominal: over 400 draws of 60 pairs coverage lies in 90..98.5 %; 0.3 sd beside the truth it does not."""
    rng = np.random.default_rng(5)
    covered, covered_wrong = 0, 0
    for trial in range(400):
        difficulty = rng.normal(size=60)
        a = difficulty + rng.normal(scale=0.5, size=60)
        b = difficulty + 0.25 + rng.normal(scale=0.5, size=60)
        interval = paired_bootstrap(a, b, draws=400, seed=trial)
        covered += interval.low <= 0.25 <= interval.high
        covered_wrong += interval.low <= 0.55 <= interval.high
    assert 0.90 <= covered / 400 <= 0.985
    assert covered_wrong / 400 < 0.2


def test_pairing_narrows_the_interval() -> None:
    """The same two samples unpaired (b in another order) give a much wider interval around the same mean."""
    rng = np.random.default_rng(1)
    difficulty = rng.normal(size=200)
    a, b = difficulty, difficulty + 0.1 + rng.normal(scale=0.1, size=200)
    paired = paired_bootstrap(a, b, draws=500, seed=0)
    shuffled = paired_bootstrap(a, np.roll(b, 7), draws=500, seed=0)
    assert math.isclose(paired.mean, shuffled.mean, abs_tol=1e-12)
    assert paired.low > 0 > shuffled.low
    assert (shuffled.high - shuffled.low) > 5 * (paired.high - paired.low)


def test_bootstrap_agrees_with_a_plain_loop() -> None:
    """The multinomial product is the same estimator as gathering rows one resample at a time."""
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=80), rng.normal(loc=0.3, size=80)
    ours = paired_bootstrap(a, b, draws=4000, seed=0)
    plain = [float((b - a)[rng.integers(0, 80, 80)].mean()) for _ in range(4000)]
    assert np.allclose([ours.low, ours.high], np.quantile(plain, [0.025, 0.975]), atol=0.02)
    assert ours == paired_bootstrap(a, b, draws=4000, seed=0)
    assert ours != paired_bootstrap(a, b, draws=4000, seed=1)


def test_ratio_interval_is_of_the_ratio_of_sums() -> None:
    """Sizes differ a hundredfold: the estimate follows the large case, a mean of ratios would not."""
    a = np.array([[100.0, 100.0], [2.0, 1.0], [2.0, 1.0]])
    b = np.array([[150.0, 100.0], [2.0, 1.0], [2.0, 1.0]])
    interval = paired_ratio_bootstrap(a, b, draws=200, seed=0)
    assert math.isclose(interval.mean, 154 / 102 - 104 / 102)
    assert abs(interval.mean - (b[:, 0] / b[:, 1] - a[:, 0] / a[:, 1]).mean()) > 0.3


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, table I, method 3 (score, no continuity correction)
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_against_published_values(successes: int, n: int, low: float, high: float) -> None:
    interval = wilson_interval(successes, n)
    assert math.isclose(interval.low, low, abs_tol=5e-5)
    assert math.isclose(interval.high, high, abs_tol=5e-5)


def test_compare_uses_shared_cases_only() -> None:
    ours = report("heldout", "new", {"a": 1.0, "b": 1.0, "c": 0.0, "only-new": 0.0}, nlls={"d": 50.0, "e": 80.0})
    theirs = report("heldout", "old", {"c": 0.0, "b": 0.0, "a": 1.0, "only-old": 1.0}, nlls={"d": 60.0, "e": 80.0})
    found = {difference.metric: difference for difference in compare(ours, theirs, draws=100, seed=0)}
    assert found["call/right"].n == 3
    assert math.isclose(found["call/right"].interval.mean, 1 / 3)
    assert math.isclose(found["text/bits_per_byte"].candidate, 130 / 300 / math.log(2))
    assert math.isclose(found["text/bits_per_byte"].interval.mean, -10 / 300 / math.log(2))


def test_compare_refuses_mismatched_splits_and_empty_pairs() -> None:
    with pytest.raises(ConfigError, match=r"new was evaluated on the heldout split and old on the sealed"):
        compare(report("heldout", "new", {"a": 1.0}), report("sealed", "old", {"a": 1.0}), draws=10, seed=0)
    with pytest.raises(DataError, match="same cases"):
        paired_bootstrap([], [], draws=10, seed=0)
    with pytest.raises(DataError, match="same cases"):
        paired_bootstrap([1.0, 2.0], [1.0], draws=10, seed=0)


def test_report_round_trip_is_byte_identical(tmp_path) -> None:
    first = report("heldout", "new", {"a": 1.0, "b": 0.0}, nlls={"d": 50.0})
    first.write(tmp_path / "one")
    again = Report.read(tmp_path / "one")
    again.write(tmp_path / "two")
    assert again.rows == first.rows
    for name in ("report.json", "cases.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    with pytest.raises(DataError, match=r"has no report\.json"):
        Report.read(tmp_path)
