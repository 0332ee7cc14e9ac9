"""What earlier runs could not tell MLflow is told now: journals and run records that wait in the workspaces."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from genai_core.errors import GenaiCoreError
from genai_core.storage.artifact import ArtifactRef
from genai_core.tracking.recording import end_deserted, pending, read_record, replay, settle
from genai_core.tracking.runs import Tracker

if TYPE_CHECKING:
    from tasks.session import Session

EVERY_SECONDS = 30.0
PUBLISHED = "FINISHED"


def workspaces(session: Session) -> Path:
    """Return the folder of the stages' unfinished state on this machine."""
    return session.store.objects.local_path("work") or session.settings.scratch / "work"


class Outbox:
    """Sends on a thread, while a flow runs and once more at its end, what MLflow has not been told. Adds nothing twice.

    At first whatever has ended; later only what was published: a stage that failed may be under way again by now, and
    its next attempt tells all of it.
    """

    def __init__(self, session: Session, every_seconds: float = EVERY_SECONDS) -> None:
        self._session = session
        self._every = every_seconds
        self._tracker = _tracker(session)
        self._over = threading.Event()
        self._told = ""
        self._thread = threading.Thread(target=self._loop, daemon=True, name="outbox")

    def start(self) -> Outbox:
        """Start the thread and return self."""
        self._thread.start()
        return self

    def close(self, deadline_seconds: float) -> None:
        """Send what still waits; wait for that no longer than the deadline. What is left is for the next flow run."""
        self._over.set()
        self._thread.join(deadline_seconds)

    def _loop(self) -> None:
        flows = self._session.settings.scratch / "flows"
        end_deserted(flows)
        self._send(workspaces(self._session), flows)
        while not self._over.wait(self._every):
            self._send(workspaces(self._session), published_only=True)
        self._send(workspaces(self._session), published_only=True)

    def _send(self, *roots: Path, published_only: bool = False) -> None:
        for root in roots:
            for folder in pending(root):
                record = read_record(folder)
                if record is None or (published_only and record.status != PUBLISHED):
                    continue
                try:
                    sent = replay(folder, self._tracker)
                except (GenaiCoreError, OSError) as error:  # MLflow is away, or this disk is full
                    self._tell(f"MLflow has not been told all yet: {error}")
                    return
                if sent and record.status == PUBLISHED:
                    shutil.rmtree(folder, ignore_errors=True)

    def _tell(self, words: str) -> None:
        """Tell the screen, once for as long as the reason is the same."""
        if words != self._told:
            self._told = words
            self._session.on_event({"type": "journal", "row": {"e": words, "d": {}}})


def settle_reused(session: Session, ref: ArtifactRef, metrics: dict[str, float]) -> None:
    """Finish the record of a stage that published and was killed before it could say so."""
    folder = workspaces(session) / ref.key
    if not (folder / "run.json").exists():
        return
    try:
        if settle(folder, _tracker(session), ref, metrics):
            shutil.rmtree(folder, ignore_errors=True)
    except GenaiCoreError as error:
        session.on_event({"type": "journal", "row": {"e": f"MLflow has not been told all yet: {error}", "d": {}}})


def _tracker(session: Session) -> Tracker:
    return Tracker(session.settings.tracking_uri, session.experiment, session.settings.home / "mlartifacts")
