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
from genai_core.errors import ConfigError, InterruptedRunError, StageFailedError, TransientError
from genai_core.launch.quiet import SILENCE, silence
from genai_core.launch.shipped_code import pack_code
from genai_core.launch.submit import OnRow
from genai_core.storage.claims import Claim
from genai_core.storage.open import open_store

if TYPE_CHECKING:
    from genai_core.stages.contract import StageJob

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
PENDING_DEADLINE_SECONDS = 600.0
SUBMIT_DEADLINE_SECONDS = 60.0
EVENT_MARK = "GENAI-EVENT "
"""Lines of the job's log that are meant for us begin with this."""


def submission_id(key: str, attempt: int, storage_uri: str) -> str:
    """Return the name of a stage's job: what it computes, for which store, and which attempt it is.

    Two stores on one cluster may need the same stage, each its own first attempt.
    """
    store = hashlib.sha256(storage_uri.encode()).hexdigest()
    return f"genai-{key[:40]}-{store[:8]}-a{attempt}"


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

    def __init__(self, address: str, settings: Settings) -> None:
        silence()
        from ray.job_submission import JobSubmissionClient

        self._settings = settings
        self._address = address
        try:
            self._client = JobSubmissionClient(address)
        except ConnectionError as error:
            raise TransientError(f"The Ray job server at {address} does not answer.") from error
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"compute.ray_address={address!r} is not a Ray job server: {error}") from error

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
        objects.put(f"jobs/{name}.json", json.dumps(message).encode())
        read = 0
        submitted = time.monotonic()
        try:
            self._submit(name, job)
            while True:
                status = self._status(name)
                read = self._mirror(name, read, on_row)
                if status is not None and status.is_terminal():
                    break
                if should_stop():
                    raise InterruptedRunError(f"{job.title} was stopped. Its state is kept: run again to resume.")
                if status == JobStatus.PENDING and time.monotonic() - submitted > PENDING_DEADLINE_SECONDS:
                    raise StageFailedError(f"Ray job {name} has been pending for {PENDING_DEADLINE_SECONDS:.0f} s.")
                time.sleep(POLL_SECONDS)
        except BaseException:  # also Prefect's TerminationSignal, which is not an Exception
            self._stop(name)
            raise
        outcome = objects.get(f"jobs/{name}.outcome.json")
        if outcome is None:
            info = self._client.get_job_info(name)
            raise TransientError(f"Ray job {name} ended as {status} without an outcome: {info.message}")
        result: dict[str, Any] = json.loads(outcome)
        if "message" in result:
            raise getattr(errors, result["kind"], StageFailedError)(result["message"])
        return result

    def _stop(self, name: str) -> None:
        """Stop the job, if it was submitted; a server that does not answer must not hide why it is stopped."""
        try:
            self._client.stop_job(name)
        except (RuntimeError, ConnectionError, OSError) as error:
            log.warning("the Ray job %s may still run: %s", name, error)

    def _submit(self, name: str, job: StageJob) -> None:
        """Submit the job unless it is there. A head that has just started has no agent yet: it is asked again."""
        deadline = time.monotonic() + SUBMIT_DEADLINE_SECONDS
        while self._status(name) is None:
            try:
                with self._runtime_env(job) as runtime_env:
                    self._client.submit_job(
                        entrypoint=entrypoint(name, job.compute.ship_code),
                        submission_id=name,
                        runtime_env=runtime_env,
                        metadata={
                            "stage": job.title,
                            "key": job.key,
                            "flow_run": job.tags.get("prefect.flow_run_id", ""),
                        },
                    )
            except (RuntimeError, ConnectionError) as error:
                if time.monotonic() > deadline:
                    raise TransientError(f"The Ray job server at {self._address} takes no job: {error}") from error
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

    def _status(self, name: str) -> Any:
        try:
            return self._client.get_job_status(name)
        except RuntimeError as error:
            if "404" in str(error) or "does not exist" in str(error):
                return None
            raise TransientError(f"The Ray job server at {self._address} failed: {error}") from error

    def _mirror(self, name: str, read: int, on_row: OnRow) -> int:
        """Hand on the journal rows that the job has printed since the last look; return how far we have read."""
        logs: str = self._client.get_job_logs(name)
        whole = logs.rfind("\n") + 1
        for line in logs[read:whole].splitlines():
            if line.startswith(EVENT_MARK):
                on_row(json.loads(line[len(EVENT_MARK) :]))
        return max(read, whole)
