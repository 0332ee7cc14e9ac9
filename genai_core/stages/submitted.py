"""The far side of the cluster launcher: a Ray job reads its StageJob from the store and leaves its outcome there."""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import Any

from genai_core.config.settings import read_settings
from genai_core.errors import GenaiCoreError
from genai_core.launch.jobs import EVENT_MARK
from genai_core.launch.quiet import silence
from genai_core.launch.workers import RayWorkers
from genai_core.stages.contract import StageJob
from genai_core.stages.entry import StopSignal, run_job
from genai_core.storage.layout import job_message_path, job_outcome_path
from genai_core.storage.open import open_store


def run_submitted(submission_id: str) -> int:
    """Run the job stored under the submission id; return the exit code."""
    silence()
    settings = read_settings()
    objects = open_store(settings.storage_uri, settings, probe=False)
    stored = objects.get(job_message_path(submission_id))
    if stored is None:
        print(f"No job {submission_id} in {objects.uri}.")
        return 2
    message = json.loads(stored)
    stop = StopSignal(threading.Event())
    signal.signal(signal.SIGTERM, lambda *_: stop.ask())  # `stop_job` asks first and kills three seconds later

    def emit(event: dict[str, Any]) -> None:
        if event["type"] == "journal":
            print(EVENT_MARK + json.dumps(event["row"]), flush=True)

    def leave(outcome: dict[str, Any]) -> None:
        objects.put(job_outcome_path(submission_id), json.dumps(outcome).encode())

    def abandon(error: GenaiCoreError) -> None:
        leave({"kind": type(error).__name__, "message": str(error)})
        os._exit(1)  # Ray ends the workers of a driver that is gone

    job = StageJob.model_validate(message["job"])
    try:
        leave(run_job(job, message["claim"], settings, RayWorkers("auto").serve, emit, stop, abandon))
    except GenaiCoreError as error:
        leave({"kind": type(error).__name__, "message": str(error)})
        return 1
    return 0
