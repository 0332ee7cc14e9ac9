"""Feedback has one type, whoever gives it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Feedback:
    """What is said about a completion.

    `valid=False` means that it could not be judged or is malformed; that is not the same as score 0 of a well-formed
    answer. `uses_gold` marks feedback that looked at the right answer: refused at evaluation time inside a loop.
    """

    score: float
    text: str = ""
    step_scores: tuple[float, ...] = field(default=())
    valid: bool = True
    source: str = ""
    uses_gold: bool = False
