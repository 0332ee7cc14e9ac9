"""What a correction did to the answers: right or wrong before, right or wrong after, and what it cost.

                 after right   after wrong
    before right     CC            CI
    before wrong     IC            II

IC - CI is the gain in right answers. A loop with IC = CI is noise that looks busy, so both are always shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Transitions:
    """Counts of cases, and the tokens generated for all of them by either way of answering."""

    cc: int
    ci: int
    ic: int
    ii: int
    tokens_before: int
    tokens_after: int

    @property
    def total(self) -> int:
        """Return the number of cases."""
        return self.cc + self.ci + self.ic + self.ii

    @property
    def gain(self) -> int:
        """Return right answers won less right answers lost."""
        return self.ic - self.ci

    def to_json(self) -> dict[str, Any]:
        """Return the table as a JSON value, with its gain."""
        return {**asdict(self), "gain": self.gain}


def count_transitions(
    before: Sequence[bool], after: Sequence[bool], tokens_before: Sequence[int], tokens_after: Sequence[int]
) -> Transitions:
    """Return the table over paired cases.

    Args:
        before: whether each case's answer was right.
        after: whether the same case's corrected answer is.
        tokens_before: tokens generated for each case's answer, discarded candidates included.
        tokens_after: the same of the corrected answer, the draft included.
    """
    pairs = list(zip(before, after, strict=True))
    return Transitions(
        cc=sum(bool(a and b) for a, b in pairs),
        ci=sum(bool(a and not b) for a, b in pairs),
        ic=sum(bool(b and not a) for a, b in pairs),
        ii=sum(bool(not a and not b) for a, b in pairs),
        tokens_before=sum(tokens_before),
        tokens_after=sum(tokens_after),
    )
