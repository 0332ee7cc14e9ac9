"""The jobs of ours that run on a Ray cluster, and whether anybody still waits for them.

A job outlives its flow on purpose: the next run of the recipe finds it and goes on waiting for it. Where no next run
comes, as after a cancel that did not reach the job server, it holds its GPUs until it is done.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from genai_core.config.settings import Settings
from genai_core.errors import ConfigError, GenaiCoreError
from genai_core.launch.job_server import JOB_PREFIX, JobServer
from genai_core.launch.jobs import is_for_store
from genai_core.storage.layout import job_message_path
from genai_core.storage.open import open_store


@dataclass(frozen=True, slots=True)
class FlowState:
    """What Prefect tells of a flow run."""

    name: str
    ended: bool
    ended_seconds: float = 0.0
    """How long ago it ended."""


AskFlow = Callable[[str], FlowState | None]
"""The state of a flow run by its id; None where there is no such run, or nobody to ask."""


@dataclass(frozen=True, slots=True)
class ClusterJob:
    """A job of ours that waits or runs."""

    name: str
    """Submission id on the cluster."""
    stage: str
    status: str
    """PENDING or RUNNING."""
    seconds: float
    """Since it was submitted."""
    is_of_store: bool
    """Whether it works for the store of the settings; of another's jobs no flow run is known."""
    flow: FlowState | None
    """The flow run that waits for it, or was the last to wait; None unknown."""

    def is_dead(self, minutes: float) -> bool:
        """Return whether its flow run ended so long ago that nobody will come back for it."""
        return self.flow is not None and self.flow.ended and self.flow.ended_seconds >= 60 * minutes


def list_jobs(address: str, settings: Settings, ask_flow: AskFlow) -> list[ClusterJob]:
    """Return our jobs on a cluster that have not ended, oldest first.

    Raises what JobServer.ask raises.
    """
    found = JobServer(address).ask("list_jobs") or []
    alive = [job for job in found if (job.submission_id or "").startswith(JOB_PREFIX) and not job.status.is_terminal()]
    flow_runs = _last_flow_runs([job.submission_id for job in alive], settings)
    return [
        ClusterJob(
            name=job.submission_id,
            stage=(job.metadata or {}).get("stage", ""),
            status=str(job.status.value),
            seconds=max(0.0, time.time() - (job.start_time or 0) / 1000),
            is_of_store=is_for_store(job.submission_id, settings.storage_uri),
            flow=ask_flow(flow_run) if (flow_run := flow_runs.get(job.submission_id, "")) else None,
        )
        for job in sorted(alive, key=lambda job: job.start_time or 0)
    ]


def stop_jobs(address: str, names: Sequence[str]) -> None:
    """Stop jobs; what they had saved is kept, and the next run of the same stage goes on from there.

    Raises ConfigError for a job that is not there or not ours, before any is stopped, and what JobServer.ask raises.
    """
    server = JobServer(address)
    for name in names:
        if not name.startswith(JOB_PREFIX):
            raise ConfigError(f"{name} is not a job of genai: their names begin with {JOB_PREFIX}. See: genai jobs")
        if server.ask("get_job_status", name) is None:
            raise ConfigError(f"There is no job {name} on the Ray cluster at {address}. See: genai jobs")
    for name in names:
        server.ask("stop_job", name)


def _last_flow_runs(names: Sequence[str], settings: Settings) -> dict[str, str]:
    """Return, by job of this store, the flow run that waited for it last: each tells its message so before it waits.

    A job whose message cannot be read is left out. Its metadata names the first that waited, which may have ended long ago.
    """
    found: dict[str, str] = {}
    with suppress(GenaiCoreError):
        objects = open_store(settings.storage_uri, settings, probe=False)
        for name in names:
            if is_for_store(name, settings.storage_uri):
                with suppress(ValueError, KeyError):
                    message: dict[str, Any] = json.loads(objects.get(job_message_path(name)) or b"{}")
                    found[name] = str(message["job"]["tags"].get("prefect.flow_run_id", ""))
    return found
