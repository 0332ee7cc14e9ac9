"""What a Ray cluster's machines have, asked by a small job: versions, and whether they reach the store.

python -m genai_core.launch.checkup           the job: one line with EVENT_MARK and JSON
"""

from __future__ import annotations

import json
import platform
import time
import uuid
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from genai_core.config.settings import Settings, read_settings
from genai_core.errors import GenaiCoreError, TransientError
from genai_core.launch.job_server import JOB_PREFIX, JobServer
from genai_core.launch.jobs import EVENT_MARK, job_environment
from genai_core.storage.open import open_store

PACKAGES = ("genai", "ray", "torch", "transformers")


def ask_cluster(address: str, settings: Settings, seconds: float = 45.0) -> dict[str, Any]:
    """Run the job on a cluster; return what it found: {"python", "packages", "store", "time"}.

    "packages" is versions by name, '' for what is missing; "store" says what is wrong with it, '' if nothing is.
    Raises TransientError if the job does not end well in time, with the end of its log, and what JobServer.ask raises.
    """
    server = JobServer(address)
    name = server.ask(
        "submit_job",
        entrypoint="python -m genai_core.launch.checkup",
        submission_id=f"{JOB_PREFIX}checkup-{uuid.uuid4().hex[:12]}",
        runtime_env={"env_vars": job_environment(settings, settings.storage_uri)},
    )
    from ray.job_submission import JobStatus

    deadline = time.monotonic() + seconds
    while (status := server.ask("get_job_status", name)) is not None and not status.is_terminal():
        if time.monotonic() > deadline:
            server.ask("stop_job", name)
            raise TransientError(f"a job was {status} for {seconds:.0f} s")
        time.sleep(0.3)
    log = server.ask("get_job_logs", name) or ""
    server.ask("delete_job", name)
    for line in log.splitlines():
        if status == JobStatus.SUCCEEDED and line.startswith(EVENT_MARK):
            found: dict[str, Any] = json.loads(line[len(EVENT_MARK) :])
            return found
    raise TransientError(f"a job {status}: {(log.strip().splitlines() or ['it printed nothing'])[-1]}")


def look() -> dict[str, Any]:
    """Return what this machine has, as `ask_cluster` hands it on."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = ""
    store = ""
    try:
        settings = read_settings()
        open_store(settings.storage_uri, settings, patience_seconds=5.0)
    except GenaiCoreError as error:
        store = str(error)
    return {"python": platform.python_version(), "packages": packages, "store": store, "time": time.time()}


if __name__ == "__main__":
    print(EVENT_MARK + json.dumps(look()), flush=True)
