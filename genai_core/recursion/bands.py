"""How far a figure of a whole set of samples may move by chance: half-samples.

A bootstrap repeats samples, and repeated samples look like collapse to every diversity metric. So halves are drawn
without replacement: the variance of a mean over a random half of n, around the mean of the n, is sigma^2 / n, that of
the full-sample mean itself (delete-half jackknife, Shao and Wu 1989, Annals of Statistics 17:1176). Every model is cut at
the same prompts, so the halves are paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from genai_core.evaluation.compare import LEVEL, Interval

DRAWS = 200


def half_sample_interval(
    statistic: Callable[[np.ndarray], float], n: int, *, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Return the value of a statistic on all n samples, with a 95 % interval from random halves.

    Args:
        statistic: of the samples with the given indices, (k,) ascending. NaN = undefined there.
        n: number of samples.
        draws: random halves.
        seed: of the halves; the same seed cuts every statistic at the same places.

    A diversity metric is biased by the number of samples, so the halves give the width and the full set the centre.
    """
    whole = statistic(np.arange(n))
    if n < 4 or not math.isfinite(whole):
        return Interval(whole, -math.inf, math.inf, n)
    rng = np.random.default_rng(seed)
    halves = np.array([statistic(np.sort(rng.permutation(n)[: n // 2])) for _ in range(draws)])
    halves = halves[np.isfinite(halves)]
    if not len(halves):
        return Interval(whole, -math.inf, math.inf, n)
    low, middle, high = np.quantile(halves, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    return Interval(whole, whole + float(low - middle), whole + float(high - middle), n)
