"""What Prefect hears while stages run: lines in the log, and a bar for the running stage."""

from __future__ import annotations

import time
import uuid
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from tasks.figures import clock, figures, say_progress
from tasks.session import StageRow

EVERY_SECONDS = 15.0
"""Between two calls of Prefect's server for progress: one takes some 20 ms of the flow process, none of a training's."""


class PrefectVoice:
    """Mirrors a stage's progress into the flow run, at most once in fifteen seconds. A server that is away is passed over."""

    def __init__(self) -> None:
        self._logger = get_run_logger()
        self._last = 0.0
        self._bar: uuid.UUID | None = None
        self._waiting_for = ""

    def hear(self, event: dict[str, Any]) -> None:
        """Say what a person in the UI would want to read of an event."""
        match event["type"]:
            case "stage":
                self._logger.info("%s: started", event["title"])
                self._waiting_for = ""
                self._last = time.monotonic()
            case "waiting":
                if event["holder"] != self._waiting_for:  # it is told twice a second
                    self._waiting_for = event["holder"]
                    self._logger.info("%s: another run is computing it (%s); waiting", event["title"], event["holder"])
            case "row":
                self._say_row(event["row"])
            case "journal":
                self._say_journal(event)

    def _say_row(self, row: StageRow) -> None:
        if self._bar is not None and row.status == "computed":
            self._show(row.name, 100.0, f"computed in {clock(row.seconds)}")
        self._bar = None
        artifact = f" {row.artifact.label()}" if row.artifact else ""
        self._logger.info(
            "%s: %s in %.1f s%s  %s", row.name, row.status, row.seconds, artifact, figures(row.metrics, 6)
        )
        for reason in row.reasons:
            self._logger.info("%s: %s", row.name, reason)

    def _say_journal(self, event: dict[str, Any]) -> None:
        row, title = event["row"], event.get("title", "")
        if "e" in row:
            self._logger.info("%s: %s", title, row["e"])
        elif "p" in row and time.monotonic() - self._last > EVERY_SECONDS:
            self._last = time.monotonic()
            said = say_progress(row["p"])
            self._logger.info("%s: %s", title, said)
            done, total = float(row["p"]["done"]), float(row["p"]["total"])
            if total > 0:
                self._show(title, min(100.0, 100 * done / total), said)

    def _show(self, title: str, percent: float, said: str) -> None:
        try:
            if self._bar is None:
                found: Any = create_progress_artifact(percent, key=f"progress-{title}", description=said)
                self._bar = found
            else:
                update_progress_artifact(self._bar, percent, description=said)
        except Exception as error:  # whatever Prefect's server does to a bar, the stage goes on
            self._logger.debug("%s: no bar: %s", title, error)
