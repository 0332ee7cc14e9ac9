"""The record of a stage as it runs: one JSON line each, durable, beside the checkpoint.

    {"t": 1764000000000, "step": 12, "m": {"train/loss": 3.21}}          metrics, shipped to MLflow with this timestamp
    {"t": 1764000000000, "p": {"done": 12, "total": 200, "unit": "step", ...}}    progress, for the screen only
    {"t": 1764000000000, "e": "checkpoint refused: ...", "d": {...}}      events

MLflow stores an identical (key, timestamp, step, value) once, so replaying the file adds nothing twice. A resumed run
makes some steps again; a metric already recorded for a step (or a later one) is not recorded a second time, so the
history has neither gap nor double.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Journal:
    """Append-only; a line that a crash cut off is dropped when the file is opened again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last_step: dict[str, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._recover()
        self._file = path.open("ab", buffering=0)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record metrics of a step. Values that are not finite are left out: they are events, not points of a curve."""
        fresh = {
            name: float(value)
            for name, value in values.items()
            if math.isfinite(value) and step > self._last_step.get(name, -1)
        }
        if fresh:
            self._write({"step": step, "m": fresh})
            self._last_step.update(dict.fromkeys(fresh, step))

    def progress(self, done: int, total: int, unit: str, **figures: float | str) -> None:
        """Record how far the stage is, for the screen."""
        self._write({"p": {"done": done, "total": total, "unit": unit, **figures}})

    def event(self, message: str, **data: Any) -> None:
        """Record something worth telling: a refused checkpoint, a skipped step, a changed plan."""
        self._write({"e": message, "d": data})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, row: dict[str, Any]) -> None:
        line = json.dumps({"t": int(time.time() * 1000), **row}, ensure_ascii=False, allow_nan=False)
        self._file.write(line.encode() + b"\n")

    def _recover(self) -> None:
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(self.path, whole)
        for line in data[:whole].splitlines():
            row = json.loads(line)
            for name in row.get("m", ()):
                self._last_step[name] = max(row["step"], self._last_step.get(name, -1))
