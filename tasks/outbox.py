"""What earlier runs could not tell MLflow is told now: journals and run records that wait in the workspaces."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from genai_core.errors import GenaiCoreError
from genai_core.storage.artifact import ArtifactRef

if TYPE_CHECKING:
    from genai_core.tracking.runs import Tracker
    from tasks.session import Session


def workspaces(session: Session) -> Path:
    """Return the folder of the stages' unfinished state on this machine."""
    return session.store.objects.local_path("work") or session.settings.scratch / "work"


def send_waiting(session: Session) -> None:
    """Send, on a thread, the records of ended stages and flow runs that MLflow does not have; adds nothing twice."""
    threading.Thread(target=_send_waiting, args=(session,), daemon=True, name="outbox").start()


def _send_waiting(session: Session) -> None:
    from genai_core.tracking.recording import end_deserted, pending, read_record, replay

    tracker = _tracker(session)
    flows = session.settings.scratch / "flows"
    end_deserted(flows)
    for root in (workspaces(session), flows):
        for folder in pending(root):
            try:
                sent = replay(folder, tracker)
            except GenaiCoreError as error:
                session.on_event(
                    {"type": "journal", "row": {"e": f"MLflow has not been told all yet: {error}", "d": {}}}
                )
                return
            record = read_record(folder)
            if sent and record is not None and record.status == "FINISHED":
                shutil.rmtree(folder, ignore_errors=True)


def settle_reused(session: Session, ref: ArtifactRef, metrics: dict[str, float]) -> None:
    """Finish the record of a stage that published and was killed before it could say so."""
    folder = workspaces(session) / ref.key
    if not (folder / "run.json").exists():
        return
    from genai_core.tracking.recording import settle

    try:
        if settle(folder, _tracker(session), ref, metrics):
            shutil.rmtree(folder, ignore_errors=True)
    except GenaiCoreError as error:
        session.on_event({"type": "journal", "row": {"e": f"MLflow has not been told all yet: {error}", "d": {}}})


def _tracker(session: Session) -> Tracker:
    from genai_core.tracking.runs import Tracker

    return Tracker(session.settings.tracking_uri, session.experiment, session.settings.home / "mlartifacts")
