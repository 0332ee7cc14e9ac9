"""What `genai doctor` says: one finding for each thing looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How a thing is."""

    OK = "ok"
    NOTE = "note"
    """It works, but not as one might believe."""
    BAD = "bad"
    """It keeps a run from working."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, what was found, and what to do where that is not good."""

    name: str
    verdict: Verdict
    detail: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**asdict(self), "verdict": self.verdict.value}


def judge(good: bool, name: str, detail: str, remedy: str = "") -> Finding:
    """Return a finding that is bad unless it is good; the remedy is told only then."""
    return Finding(name, Verdict.OK, detail) if good else Finding(name, Verdict.BAD, detail, remedy)


def note(name: str, detail: str, remedy: str) -> Finding:
    """Return a finding that a person should know, and that stops nothing."""
    return Finding(name, Verdict.NOTE, detail, remedy)
