"""The bookkeeping of the generations: which parent comes next, whose data is kept, when the loop ends.

    pass      the candidate is the parent, its data stays in the mixture (accumulate, never replace)
    refuse    the parent stays, the candidate's data is quarantined: no later generation sees it
    stop      as refuse, and no further generation is made

It also stops by itself after two refusals in a row without a pass between them, and when a figure slides: every gate
may pass while each generation loses a little, so the slope of its logarithm over the last three generations counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Literal, TypeVar

REFUSALS_IN_A_ROW = 2
SLIDE_GENERATIONS = 3
# 0.95 a generation: five such generations keep 77 % of the tail, with no single one beyond a threshold of 0.85
SLIDE_SLOPE = math.log(0.95)

Model = TypeVar("Model")
Data = TypeVar("Data")


@dataclass(frozen=True)
class Generations(Generic[Model, Data]):
    """Where the loop stands; every step returns a new one."""

    origin: Model
    parent: Model
    kept: tuple[Data, ...] = ()
    """Synthetic data of the passed generations, oldest first."""

    quarantined: tuple[Data, ...] = ()
    refusals: int = 0
    stopped: str = ""
    """Why the loop ended before its last generation; '' = it did not."""

    tails: tuple[float, ...] = field(default=(1.0,))
    """Tail coverage of the passed generations, as a share of generation 0's."""

    @staticmethod
    def start(origin: Model) -> Generations[Model, Data]:
        """Return the state before generation 1."""
        return Generations(origin, origin)

    def after(
        self, decision: Literal["pass", "refuse", "stop"], candidate: Model, data: Data, tail_ratio: float = 1.0
    ) -> Generations[Model, Data]:
        """Return the state after a generation was judged."""
        if decision == "pass":
            tails = (*self.tails, tail_ratio)
            slides = len(tails) > SLIDE_GENERATIONS and log_slope(tails[-SLIDE_GENERATIONS - 1 :]) < SLIDE_SLOPE
            return replace(
                self,
                parent=candidate,
                kept=(*self.kept, data),
                refusals=0,
                tails=tails,
                stopped="tail coverage slides from generation to generation" if slides else "",
            )
        refusals = self.refusals + 1
        if decision == "stop":
            stopped = "the guard stopped the loop"
        else:
            stopped = f"{refusals} generations refused in a row" if refusals >= REFUSALS_IN_A_ROW else ""
        return replace(self, quarantined=(*self.quarantined, data), refusals=refusals, stopped=stopped)


def log_slope(values: Sequence[float]) -> float:
    """Return the least-squares slope of log(value) per generation; -inf where a value is 0.

    The logarithm, because collapse multiplies: the mean of a spread over many runs stays where it was while nearly every
    single run shrinks (self_improvement 3.2.2, item 1).
    """
    if min(values) <= 0:
        return -math.inf
    logs = [math.log(value) for value in values]
    middle = (len(values) - 1) / 2
    spread = sum((index - middle) ** 2 for index in range(len(values)))
    return sum((index - middle) * log for index, log in enumerate(logs)) / spread
