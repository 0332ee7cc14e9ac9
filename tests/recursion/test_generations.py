"""The bookkeeping of generations, run with models whose law is known (self_improvement 3.2.2, items 1 and 2)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from genai_core.recursion.generations import Generations, log_slope


def test_pass_moves_the_parent_and_keeps_the_data() -> None:
    state = Generations[str, str].start("m0").after("pass", "m1", "s1").after("pass", "m2", "s2")
    assert (state.origin, state.parent, state.kept, state.stopped) == ("m0", "m2", ("s1", "s2"), "")


def test_refusal_keeps_the_parent_and_quarantines_the_data() -> None:
    state = Generations[str, str].start("m0").after("pass", "m1", "s1").after("refuse", "m2", "s2")
    assert (state.parent, state.kept, state.quarantined, state.stopped) == ("m1", ("s1",), ("s2",), "")
    again = state.after("refuse", "m3", "s3")
    assert (again.parent, again.stopped) == ("m1", "2 generations refused in a row")
    assert state.after("pass", "m3", "s3").after("refuse", "m4", "s4").stopped == "", "a pass between them counts"


def test_stop_ends_the_loop_at_once() -> None:
    state = Generations[str, str].start("m0").after("stop", "m1", "s1")
    assert (state.parent, state.quarantined, state.stopped) == ("m0", ("s1",), "the guard stopped the loop")


@pytest.mark.parametrize(("keeps", "stops_at"), [(0.99, 0), (0.93, 3)])
def test_a_slow_slide_stops_the_loop_though_every_gate_passed(keeps: float, stops_at: int) -> None:
    """7 % of the tail lost each time: no single generation is refused at 0.85, the slope over three stops it."""
    state = Generations[int, int].start(0)
    ended = 0
    for generation in range(1, 9):
        state = state.after("pass", generation, generation, tail_ratio=keeps**generation)
        if state.stopped:
            ended = generation
            break
    assert ended == stops_at


def test_log_slope_is_least_squares() -> None:
    values = [2.0, 1.0, 1.5, 0.3, 0.2]
    assert log_slope(values) == pytest.approx(np.polyfit(range(5), np.log(values), 1)[0])
    assert log_slope([1.0, 0.0]) == -math.inf


def test_mean_over_runs_hides_what_the_log_slope_of_each_run_shows() -> None:
    """Item 1: Gaussian, replace, M samples: E sigma^2 stays, the median falls as exp(-n / (M - 1))."""
    rng = np.random.default_rng(0)
    M, n, runs = 50, 40, 2000
    variances = np.ones((n + 1, runs))
    for generation in range(1, n + 1):
        variances[generation] = variances[generation - 1] * rng.chisquare(M - 1, runs) / (M - 1)
    slopes = [log_slope(run) for run in variances.T]
    assert np.median(slopes) == pytest.approx(-1 / (M - 1), rel=0.15)
    assert abs(log_slope(variances.mean(axis=1))) < 0.25 / (M - 1)
    assert np.median(variances[-1]) == pytest.approx(math.exp(-n / (M - 1)), rel=0.1)


def generations_of_means(rng: np.random.Generator, M: int, n: int, *, accumulate: bool) -> float:
    """Return the squared error after n generations that estimate a mean; the bookkeeping decides what is trained on."""
    real = float(rng.normal(scale=1 / math.sqrt(M)))  # mean of M real values, truth 0
    state = Generations[float, float].start(real)
    for _ in range(n - 1):
        synthetic = state.parent + float(rng.normal(scale=1 / math.sqrt(M)))
        trained_on = [real, *state.kept, synthetic] if accumulate else [synthetic]
        state = state.after("pass", sum(trained_on) / len(trained_on), synthetic)
    return state.parent**2


def test_accumulating_bounds_what_replacing_lets_grow() -> None:
    """Item 2: replace n/M, accumulate (1/M) sum 1/i^2 <= pi^2 / (6 M), within 4 standard errors."""
    rng = np.random.default_rng(1)
    M, n, runs = 50, 40, 1500
    for accumulate, law in ((False, n / M), (True, sum(1 / i**2 for i in range(1, n + 1)) / M)):
        errors = np.array([generations_of_means(rng, M, n, accumulate=accumulate) for _ in range(runs)])
        assert abs(errors.mean() - law) < 4 * errors.std() / math.sqrt(runs)
    assert errors.mean() < math.pi**2 / (6 * M) * 1.1
