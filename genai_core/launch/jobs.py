"""The cluster launcher: a stage job is a job of the Ray Jobs API, named by stage key, store and attempt.

The job outlives its flow. A new flow run finds it under the same name and re-attaches instead of paying twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from genai_core import errors
from genai_core.config.settings import Settings
from genai_core.errors import GenaiCoreError, InterruptedRunError, StageFailedError, TransientError
from genai_core.launch.job_server import AWAY_SECONDS, JOB_PREFIX, JobServer
from genai_core.launch.quiet import SILENCE
from genai_core.launch.shipped_code import pack_code
from genai_core.launch.submit import OnRow
from genai_core.storage.claims import Claim
from genai_core.storage.layout import job_message_path, job_outcome_path
from genai_core.storage.open import open_store

if TYPE_CHECKING:
    from genai_core.stages.contract import StageJob

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
PENDING_DEADLINE_SECONDS = 600.0
SUBMIT_SECONDS = 60.0
"""How long a head that answers may take no job: one that has just started has no agent yet."""

STOP_SECONDS = 5.0
EVENT_MARK = "GENAI-EVENT "
"""Lines of the job's log that are meant for us begin with this."""


def submission_id(key: str, attempt: int, storage_uri: str) -> str:
    """Return the name of a stage's job: what it computes, for which store, and which attempt it is.

    Two stores on one cluster may need the same stage, each its own first attempt.
    """
    return f"{JOB_PREFIX}{key[:40]}-{_store_mark(storage_uri)}-a{attempt}"


def is_for_store(name: str, storage_uri: str) -> bool:
    """Return whether a job of ours works for a store."""
    return f"-{_store_mark(storage_uri)}-a" in name


def _store_mark(storage_uri: str) -> str:
    return hashlib.sha256(storage_uri.encode()).hexdigest()[:8]


def job_environment(settings: Settings, storage_uri: str) -> dict[str, str]:
    """Return the variables that a job is sent. Whether Ray asks for tokens is not ours to say: its node has it set."""
    quiet = {name: value for name, value in SILENCE.items() if name != "RAY_AUTH_MODE"}
    return {**quiet, **settings.for_jobs(), "GENAI_STORAGE_URI": storage_uri}


def entrypoint(name: str, ships_code: bool) -> str:
    """Return the command of a job.

    One that is sent its code runs in a folder that Ray removes after it: its home must not be there, as it is by default.
    """
    home = 'GENAI_HOME="${GENAI_HOME:-$HOME/.genai}" ' if ships_code else ""
    return f"{home}python -m genai_core.stages run {name}"


class JobsLauncher:
    """Submits stage jobs over HTTP; the cluster's nodes reach the same store, and have this package or are sent it."""

    outlives_flow = True

    def __init__(self, address: str, settings: Settings, *, check: bool = True) -> None:
        """Take an address; with `check`, ask it at once. Raises what JobServer.ask raises."""
        self._settings = settings
        self._server = JobServer(address)
        if check:
            self._server.ask("get_version")

    def warm_up(self, *, training: bool = False) -> None:
        """Nothing to warm: the cluster is there."""

    def close(self) -> None:
        """Nothing to stop: jobs belong to the cluster."""

    def run(self, job: StageJob, claim: Claim, *, on_row: OnRow, should_stop: Callable[[], bool]) -> dict[str, Any]:
        """Submit the job, or re-attach to it; mirror its journal; return its outcome."""
        from ray.job_submission import JobStatus

        name = submission_id(job.key, job.attempt, job.storage_uri)
        objects = open_store(job.storage_uri, self._settings, probe=False)
        message = {"job": job.model_dump(mode="json"), "claim": claim.to_json()}
        objects.put(job_message_path(name), json.dumps(message).encode())
        read = 0
        submitted = time.monotonic()

        def ask(method: str) -> Any:
            return self._server.ask(method, name, seconds=AWAY_SECONDS, should_stop=should_stop)

        try:
            self._submit(name, job, ask)
            while True:
                if (status := ask("get_job_status")) is None:
                    raise TransientError(
                        f"The Ray cluster knows nothing of job {name} any more: its head has been lost."
                    )
                read = _mirror(ask("get_job_logs") or "", read, on_row)
                if status.is_terminal():
                    break
                if should_stop():
                    raise InterruptedRunError(f"{job.title} was stopped. Its state is kept: run again to resume.")
                if status == JobStatus.PENDING and time.monotonic() - submitted > PENDING_DEADLINE_SECONDS:
                    raise StageFailedError(f"Ray job {name} has been pending for {PENDING_DEADLINE_SECONDS:.0f} s.")
                time.sleep(POLL_SECONDS)
        except BaseException:  # also Prefect's TerminationSignal, which is not an Exception
            self._stop(name)
            raise
        outcome = objects.get(job_outcome_path(name))
        if outcome is None:
            info = ask("get_job_info")
            why = info.message if info else "its head has been lost"
            raise TransientError(f"Ray job {name} ended as {status} without an outcome: {why}")
        result: dict[str, Any] = json.loads(outcome)
        if "message" in result:
            raise getattr(errors, result["kind"], StageFailedError)(result["message"])
        return result

    def _stop(self, name: str) -> None:
        """Stop the job, if it was submitted; a server that does not answer must not hide why it is stopped."""
        try:
            self._server.ask("stop_job", name, seconds=STOP_SECONDS)
        except GenaiCoreError as error:
            log.warning("the Ray job %s may still run: %s", name, error)

    def _submit(self, name: str, job: StageJob, ask: Callable[[str], Any]) -> None:
        """Submit the job unless it is there."""
        if ask("get_job_status") is not None:
            return
        told = {"stage": job.title, "key": job.key, "flow_run": job.tags.get("prefect.flow_run_id", "")}
        command = entrypoint(name, job.compute.ship_code)
        deadline = time.monotonic() + SUBMIT_SECONDS
        while True:
            try:
                with self._runtime_env(job) as runtime_env:
                    self._server.ask(
                        "submit_job", entrypoint=command, submission_id=name, runtime_env=runtime_env, metadata=told
                    )
                return
            except TransientError:
                if ask("get_job_status") is not None:  # it was taken, but not said so
                    return
                if time.monotonic() > deadline:
                    raise
                time.sleep(2 * POLL_SECONDS)

    @contextmanager
    def _runtime_env(self, job: StageJob) -> Iterator[dict[str, Any]]:
        """Yield what Ray prepares for a job; the files that it names exist until the end of the block."""
        given: dict[str, Any] = {"env_vars": job_environment(self._settings, job.storage_uri)}
        if not job.compute.ship_code:
            yield given
            return
        with TemporaryDirectory(prefix="genai-code-") as folder:
            archive = Path(folder) / "code.zip"
            archive.write_bytes(self._code)
            # Not as a module: what lies in the folder where a node was started would be imported before it
            yield {**given, "working_dir": str(archive)}

    @cached_property
    def _code(self) -> bytes:
        """The code of all jobs of this launcher: what lies on the disk may be another's when a later one is submitted."""
        return pack_code()


def _mirror(logs: str, read: int, on_row: OnRow) -> int:
    """Hand on the journal rows that the job has printed since the last look; return how far we have read."""
    whole = logs.rfind("\n") + 1
    for line in logs[read:whole].splitlines():
        if line.startswith(EVENT_MARK):
            on_row(json.loads(line[len(EVENT_MARK) :]))
    return max(read, whole)
