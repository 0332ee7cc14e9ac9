"""Where a run tells its figures: what of a Journal the engine needs, and the log of a rank that tells nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Log(Protocol):
    """What of a Journal the engine needs."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record metrics of a step."""
        ...

    def progress(self, done: int, total: int, unit: str, **figures: float | str) -> None:
        """Record how far the run is."""
        ...

    def event(self, message: str, **data: Any) -> None:
        """Record something worth telling."""
        ...


class Silence:
    """The log of a rank that does not write."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record nothing."""

    def progress(self, done: int, total: int, unit: str, **figures: float | str) -> None:
        """Record nothing."""

    def event(self, message: str, **data: Any) -> None:
        """Record nothing."""
