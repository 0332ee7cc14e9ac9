"""The record of a stage as it runs: one JSON line each, durable, beside the checkpoint.

    {"t": 1764000000000, "step": 12, "m": {"train/loss": 3.21}}          metrics, shipped to MLflow with this timestamp
    {"t": 1764000000000, "p": {"done": 12, "total": 200, "unit": "step", ...}}    progress, for the screen only
    {"t": 1764000000000, "e": "checkpoint refused: ...", "d": {...}}      events

MLflow stores an identical (key, timestamp, step, value) once, so replaying the file adds nothing twice. A resumed run
makes some steps again; a metric already recorded for a step (or a later one) is not recorded a second time, so the
history has neither gap nor double. A line that is not whole JSON was cut by a crash or a full disk: readers pass over it.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genai_core.errors import DiskFullError

JOURNAL = "journal.jsonl"
"""Name of the file in a workspace."""


def parse_row(line: bytes) -> dict[str, Any] | None:
    """Return the row of a line, or None if the line was cut."""
    try:
        row = json.loads(line)
    except ValueError:  # includes UnicodeDecodeError: cut in the middle of a character
        return None
    return row if isinstance(row, dict) else None


class Journal:
    """Append-only. Several processes may have it open, but a metric has one writer (rank 0)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last_step: dict[str, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        self._recover()

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

    def last_step(self, name: str) -> int:
        """Return the last step of a metric in this journal, -1 if there is none."""
        return self._last_step.get(name, -1)

    def progress(self, done: int, total: int, unit: str, **figures: float | str) -> None:
        """Record how far the stage is, for the screen."""
        self._write({"p": _plain({"done": done, "total": total, "unit": unit, **figures})})

    def event(self, message: str, **data: Any) -> None:
        """Record something worth telling: a refused checkpoint, a skipped step, a changed plan."""
        self._write({"e": message, "d": _plain(data)})

    def sync(self) -> None:
        """Force what was written to the disk. Called before a checkpoint is committed: a machine that loses power must
        not keep a checkpoint that is newer than the record, or the history would have a gap."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, row: dict[str, Any]) -> None:
        text = json.dumps({"t": int(time.time() * 1000), **row}, ensure_ascii=False, allow_nan=False)
        line = text.encode(errors="replace") + b"\n"
        if self._is_torn():  # by another writer, who died since we opened the file
            line = b"\n" + line
        written = self._file.write(line)  # one write, appended: rows of two writers do not mix
        if written != len(line):
            raise DiskFullError(f"No space left for {self.path}. Free some and run again to resume.")

    def _is_torn(self) -> bool:
        size = os.fstat(self._file.fileno()).st_size
        return size > 0 and os.pread(self._file.fileno(), 1, size - 1) != b"\n"

    def _recover(self) -> None:
        if self._is_torn():
            self._file.write(b"\n")
        for line in self.path.read_bytes().splitlines():
            row = parse_row(line)
            for name in (row or {}).get("m", ()):
                self._last_step[name] = max(row["step"], self._last_step.get(name, -1))  # type: ignore[index]


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold: a NaN loss must be told, not raise where it is told."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    return str(value)
