"""From the journal of a stage to MLflow: a thread that reads the file behind the writer and may be late, never wrong.

    journal.jsonl   rows, appended by the stage (see journal.py)
    journal.ack     {"run_id": ..., "offset": bytes of the journal that MLflow has}, replaced atomically

A row is sent, then acknowledged. A crash between the two sends it again; MLflow stores an identical (key, timestamp,
step, value) once, so nothing is doubled. While MLflow is away the file waits and the run goes on.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genai_core.errors import TransientError
from genai_core.tracking.journal import parse_row
from genai_core.tracking.runs import METRICS_PER_CALL, Tracker

log = logging.getLogger(__name__)

READ_BYTES = 1 << 18  # about 2,000 rows
LONGEST_PAUSE_SECONDS = 30.0


class Acknowledged:
    """Which run has how much of a journal, beside it on disk."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._path = journal.with_suffix(".ack")
        self.run_id, self.offset = "", 0
        if self._path.exists():
            told = json.loads(self._path.read_text())
            self.run_id, self.offset = str(told["run_id"]), int(told["offset"])
        if self.offset > journal_bytes(journal):  # another journal than the one acknowledged
            self.offset = 0

    def for_run(self, run_id: str) -> None:
        """Start from the beginning if it was another run (another server, say) that had the rows."""
        if run_id != self.run_id:
            self.run_id, self.offset = run_id, 0

    def advance(self, offset: int) -> None:
        """Record that the run has everything before `offset`."""
        self.offset = offset
        draft = self._path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.part")
        draft.write_text(json.dumps({"run_id": self.run_id, "offset": offset}))
        draft.replace(self._path)

    def is_behind(self) -> bool:
        """Return whether the journal has whole rows that the run has not."""
        return bool(read_rows(self._journal, self.offset)[0])


def journal_bytes(journal: Path) -> int:
    """Return the size of a journal; 0 while there is none."""
    return journal.stat().st_size if journal.exists() else 0


def read_rows(journal: Path, offset: int, limit: int = READ_BYTES) -> tuple[list[tuple[int, dict[str, Any]]], int]:
    """Return whole rows from `offset` on, each with the offset after it, and the offset after the last of them.

    A line without its end is still being written, or was cut by a crash: it is not a row yet.
    """
    if not journal.exists():
        return [], offset
    with journal.open("rb") as handle:
        handle.seek(offset)
        data = handle.read(limit)
        while b"\n" not in data and (more := handle.read(limit)):  # one row longer than the limit
            data += more
    rows = []
    for line in data.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        offset += len(line)
        # a line that a crash cut is passed over; what it held is made again by the resumed stage
        rows.append((offset, parse_row(line) or {}))
    return rows, offset


class Shipper:
    """Ships one journal to one run, and hands progress and events to the screen.

    `run_id` may be a function that opens the run: it is called in the thread, again and again until MLflow answers,
    so that a stage can begin while MLflow is away. With no tracker only the screen is served.
    """

    def __init__(
        self,
        journal: Path,
        tracker: Tracker | None,
        run_id: str | Callable[[], str],
        on_row: Callable[[dict[str, Any]], None] | None = None,
        *,
        every_seconds: float = 1.0,
        look_seconds: float = 0.25,
    ) -> None:
        self._journal = journal
        self._tracker = tracker
        self._run_id = run_id
        self._on_row = on_row
        self._every, self._look = every_seconds, look_seconds
        self._acknowledged = Acknowledged(journal)
        self._shown = journal_bytes(journal)  # what an earlier attempt told is not told again
        self._next_ship = 0.0
        self._pause = 0.0
        self._deadline: float | None = None
        self._wake = threading.Event()
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="genai-shipper", daemon=True)
        self.error: Exception | None = None
        """Why the last attempt to ship failed; None after one that worked."""

    @property
    def run_id(self) -> str:
        """Return the id of the run, '' while MLflow has not been reached."""
        return self._run_id if isinstance(self._run_id, str) else ""

    def start(self) -> Shipper:
        """Start the thread and return self."""
        self._thread.start()
        return self

    def wait_open(self, seconds: float) -> str:
        """Return the id of the run as soon as it is open, '' if that takes longer."""
        self._opened.wait(seconds)
        return self.run_id

    def close(self, deadline_seconds: float = 30.0) -> bool:
        """Return whether MLflow has the whole journal; wait for it no longer than the deadline. Never raises."""
        self._deadline = time.monotonic() + deadline_seconds
        self._wake.set()
        if self._thread.ident is not None:
            # one request may be under way: it ends by itself, but nobody waits for it
            self._thread.join(deadline_seconds + 0.5)
        if self._tracker is None:
            return True
        return not self._thread.is_alive() and not self._acknowledged.is_behind() and bool(self.run_id)

    def _loop(self) -> None:
        while self._deadline is None:
            self._tell()
            self._try_to_ship()
            self._wake.wait(self._look)
        self._tell()
        self._next_ship = 0.0
        while not self._try_to_ship() and time.monotonic() < self._deadline:
            time.sleep(min(self._look, max(0.0, self._deadline - time.monotonic())))

    def _tell(self) -> None:
        """Hand new progress and event rows to the screen, also while MLflow is away."""
        if self._on_row is None:
            return
        while True:
            before = self._shown
            rows, self._shown = read_rows(self._journal, before)
            for _, row in rows:
                if "p" in row or "e" in row:
                    try:
                        self._on_row(row)
                    except Exception as error:  # a screen that cannot draw must not stop the metrics behind it
                        log.warning("progress was not shown: %s", error)
            if self._shown == before:
                return

    def _try_to_ship(self) -> bool:
        """Return whether everything has been shipped; after a failure wait, each time longer."""
        if self._tracker is None:
            return True
        if time.monotonic() < self._next_ship:
            return False
        try:
            self._ship(self._tracker)
            if self.error is not None:
                log.info("MLflow is back; the journal has been shipped")
            self.error, self._pause = None, 0.0
            self._next_ship = time.monotonic() + self._every
            return not self._acknowledged.is_behind()
        except Exception as error:  # whatever tracking does, the run goes on; the rows are on disk
            if self.error is None:
                log.warning("MLflow is away, records wait in %s: %s", self._journal.name, error)
            self.error = error
            longest = LONGEST_PAUSE_SECONDS if self._deadline is None else 1.0
            self._pause = min(max(2 * self._pause, self._every), longest)
            self._next_ship = time.monotonic() + self._pause
            return False

    def _ship(self, tracker: Tracker) -> None:
        if not isinstance(self._run_id, str):
            self._run_id = self._run_id()
        if not self._run_id:
            raise TransientError("the run could not be opened when the stage began")
        self._opened.set()
        self._acknowledged.for_run(self._run_id)
        while self._deadline is None or time.monotonic() < self._deadline:
            rows, _ = read_rows(self._journal, self._acknowledged.offset)
            if not rows:
                return
            points: list[tuple[str, float, int, int]] = []
            for offset, row in rows:
                points += [(name, value, row["t"], row["step"]) for name, value in row.get("m", {}).items()]
                if len(points) >= METRICS_PER_CALL or offset == rows[-1][0]:
                    tracker.log_points(self._run_id, points)
                    self._acknowledged.advance(offset)
                    points = []


def replay_journal(journal: Path, tracker: Tracker, run_id: str, deadline_seconds: float = 60.0) -> bool:
    """Return whether MLflow has the whole journal, after sending what an earlier shipper could not."""
    return Shipper(journal, tracker, run_id).start().close(deadline_seconds)
