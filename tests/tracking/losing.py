"""An MLflow that goes away and comes back, and what a journal of the tests holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genai_core.errors import TransientError
from genai_core.tracking.journal import Journal
from genai_core.tracking.runs import Tracker


class Losable(Tracker):
    """An MLflow that can go away and come back: every call passes through `call`."""

    away = False
    calls = 0

    def call(self, what: str) -> Any:
        self.calls += 1
        if self.away:
            raise TransientError(f"MLflow at {self.address} is away: {what}")
        return super().call(what)


def write(path: Path, steps: range) -> None:
    journal = Journal(path)
    for step in steps:
        journal.metrics(step, {"train/loss": 1.0 / (step + 1), "rate": float(step)})
    journal.close()


def history(tracker: Tracker, run_id: str, name: str = "train/loss") -> list[tuple[int, float]]:
    rows = tracker.client.get_metric_history(run_id, name)
    return sorted((row.step, row.value) for row in rows)


def expected(steps: range) -> list[tuple[int, float]]:
    return [(step, 1.0 / (step + 1)) for step in steps]


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
