"""What this run and earlier ones could not tell MLflow is told now: journals and run records that wait in the workspaces."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from genai_core.errors import GenaiCoreError, TransientError
from genai_core.storage.artifact import ArtifactRef
from genai_core.tracking.recording import end_deserted, pending, remove_told, replay, settle
from genai_core.tracking.runs import Tracker

if TYPE_CHECKING:
    from tasks.session import Session

EVERY_SECONDS = 30.0


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
        """Send what still waits; wait for that no longer than the deadline, and not for who stops the run meanwhile.

        What is left is for the next flow run.
        """
        self._over.set()
        deadline = time.monotonic() + deadline_seconds
        while self._thread.is_alive() and time.monotonic() < deadline and not self._session.should_stop():
            self._thread.join(0.1)

    def _loop(self) -> None:
        flows = self._session.settings.scratch / "flows"
        self._attempt(lambda: end_deserted(flows))
        self._attempt(lambda: self._send(workspaces(self._session), flows))
        over = False
        while not over:
            over = self._over.wait(self._every)
            self._attempt(lambda: self._send(workspaces(self._session), status="FINISHED"))

    def _attempt(self, action: Callable[[], None]) -> None:
        """Do one thing; whatever goes wrong (a full disk, say), the next one is done, and the run goes on."""
        try:
            action()
        except Exception as error:
            if str(error) != self._told:  # once for as long as the reason is the same
                self._told = str(error)
                tell(self._session, error)
        else:
            self._told = ""

    def _send(self, *roots: Path, status: str = "") -> None:
        """Send what waits. Raises the error of the last that MLflow refuses, at once where it is away."""
        refused: GenaiCoreError | None = None
        for root in roots:
            for folder in pending(root, status):
                try:
                    if replay(folder, self._tracker):
                        remove_told(folder)
                except TransientError:
                    raise
                except GenaiCoreError as error:  # this one; it holds up no other
                    refused = error
        if refused is not None:
            raise refused


def settle_reused(session: Session, ref: ArtifactRef, metrics: dict[str, float]) -> None:
    """Finish the record of a stage that published and was killed before it could say so."""
    folder = workspaces(session) / ref.key
    try:
        if settle(folder, _tracker(session), ref, metrics):
            remove_told(folder)
    except GenaiCoreError as error:
        tell(session, error)


def tell(session: Session, error: Exception) -> None:
    """Say why something still waits."""
    session.on_event({"type": "journal", "row": {"e": f"MLflow has not been told all yet: {error}", "d": {}}})


def _tracker(session: Session) -> Tracker:
    return Tracker(session.settings.tracking_uri, session.experiment, session.settings.home / "mlartifacts")
