"""The MLflow run of a stage, so that nothing of it depends on MLflow being there.

    <folder>/run.json        what the run should say: params, inputs, tags, files, how it ended
    <folder>/run-files/      copies of the small files that belong to it
    <folder>/journal.jsonl   metrics by step (journal.py), with journal.ack (shipper.py)
    <folder>/run.lock        locked by the process that records the run, as long as it lives

The folder is the workspace of the stage. Sending it is one idempotent act: `start` sends what is known, `finish` sends
all of it, and a later `replay` does what `finish` could not. Nobody replays a run whose recorder is alive: a stage is
published, and so seen by others, a moment before its record is complete.

    recording = Recording(tracker, workspace.path, RunRecord(stage_key=key, title="pretrain", ...), on_row=screen).start()
    ...
    recording.finish("FINISHED", metrics=result.metrics, artifact=ref)      # True: the workspace may be removed
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from pydantic import Field

from genai_core.config.base import Config
from genai_core.errors import GenaiCoreError, TransientError, is_disk_full
from genai_core.storage.artifact import ArtifactRef
from genai_core.tracking.journal import JOURNAL
from genai_core.tracking.runs import FLOW_RUN_ID, STAGE_KEY, Tracker, now_ms
from genai_core.tracking.secrets import masked
from genai_core.tracking.shipper import Shipper, replay_journal

log = logging.getLogger(__name__)

RECORD = "run.json"
FILES = "run-files"
LOCK = "run.lock"
SENDING_SECONDS = 90.0
"""How long a new attempt waits for another process that is sending how the one before has ended."""


class RunRecord(Config):
    """What one run should say, as JSON. A stage has a key; the run of a flow has its flow run id instead."""

    stage_key: str = Field(default="", description="Stage key; '' for the run of a flow.")
    flow_run_id: str = Field(default="", description="Flow run id; '' for the run of a stage.")
    title: str = Field(description="Name of the run.")
    parent_run_id: str = Field(default="", description="MLflow run of the flow.")
    tags: dict[str, str] = Field(default={}, description="Tags: flow run, commit, artifact.")
    config: dict[str, Any] = Field(default={}, description="The stage's config.")
    inputs: dict[str, ArtifactRef] = Field(default={}, description="Inputs by role.")
    metrics: dict[str, float] = Field(default={}, description="Key figures, known at the end.")
    status: str = Field(default="RUNNING", description="RUNNING, FINISHED, FAILED or KILLED.")
    ended_ms: int = Field(default=0, description="When it ended, milliseconds since 1970; 0 while it runs.")
    tracking: str = Field(default="", description="Address of the MLflow that has the run.")
    run_id: str = Field(default="", description="MLflow run; '' until MLflow has been reached.")
    sent: bool = Field(default=False, description="Whether MLflow has all of it.")


class Recording:
    """The run of one stage (or flow) while it happens. Neither `start` nor `finish` raises because MLflow is away."""

    def __init__(
        self,
        tracker: Tracker | None,
        folder: Path,
        record: RunRecord,
        on_row: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self._tracker = tracker
        self._folder = folder
        self._record = record.model_copy(update={"config": masked(record.config), "tags": masked(record.tags)})
        self._lock = threading.Lock()  # the record is written by the caller and by the shipper's thread
        self._held: IO[bytes] | None = None
        self._shipper = Shipper(folder / JOURNAL, tracker, self._open, on_row)
        self.sent = tracker is None
        """Whether MLflow has everything."""

    @property
    def run_id(self) -> str:
        """Return the MLflow run id, '' while MLflow has not been reached."""
        return self._record.run_id

    def page(self) -> str:
        """Return the path of the run's page on an MLflow server, '' while MLflow has not been reached."""
        if self._tracker is None or not self.run_id:
            return ""
        return f"/#/experiments/{self._tracker.experiment_id}/runs/{self.run_id}"

    @property
    def error(self) -> Exception | None:
        """Return why MLflow could not be reached the last time, None if it could."""
        return self._shipper.error

    def start(self, wait_seconds: float = 0.0) -> Recording:
        """Write down what is to be recorded, start shipping, return self; wait so long for the run to be open."""
        self._folder.mkdir(parents=True, exist_ok=True)
        # what has ended is being sent by another process: it would take our record for the one that it sends
        earlier = read_record(self._folder)
        deadline = time.monotonic() + (SENDING_SECONDS if earlier and earlier.ended_ms else 0.0)
        # not held for now if an attempt that lost its claim is still stopped in the middle of it
        while (held := self._lock_folder()) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        self._held = held
        earlier = read_record(self._folder)  # None if it has been sent and removed
        if earlier and self._tracker and earlier.tracking == self._tracker.address:
            self._record = self._record.model_copy(update={"tracking": earlier.tracking, "run_id": earlier.run_id})
        write_record(self._folder, self._record)
        self._shipper.start().wait_open(wait_seconds)
        return self

    def tag(self, tags: Mapping[str, str]) -> None:
        """Add tags; they reach MLflow at the end."""
        with self._lock:
            self._record = self._record.model_copy(update={"tags": masked({**self._record.tags, **tags})})
            write_record(self._folder, self._record)

    def link_reused(self, title: str, artifact: ArtifactRef) -> None:
        """Name, in the run of a flow, the run that made a reused artifact; the artifact itself while MLflow is away."""
        original = None
        if self._tracker is not None and self._shipper.error is None:
            try:
                original = self._tracker.find_stage_run(artifact.key)
            except TransientError as error:
                log.warning("the run of the reused %s is not linked: %s", artifact.label(), error)
        self.tag({f"reused.{title}": original or artifact.label()})

    def finish(
        self,
        status: str = "FINISHED",
        *,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        artifact: ArtifactRef | None = None,
        files: Mapping[str, Sequence[Path]] | None = None,
        deadline_seconds: float = 30.0,
    ) -> bool:
        """Return whether MLflow has everything; if not, the folder must stay, and `replay` sends it later.

        On a disk too full to say that the run has ended it stays open; who resumes or reuses the stage ends it.

        Args:
            status: FINISHED, FAILED or KILLED.
            files: small files and folders by folder in the run ('' = its root); they are copied first.
            deadline_seconds: how long to wait for MLflow.
        """
        try:
            return self._finish(status, metrics, tags, artifact, files, deadline_seconds)
        except OSError as error:
            if not is_disk_full(error):
                raise
            log.warning("the end of %s is not on record: %s", self._record.title, error)
            return False
        finally:
            self._release()

    def _finish(
        self,
        status: str,
        metrics: Mapping[str, float] | None,
        tags: Mapping[str, str] | None,
        artifact: ArtifactRef | None,
        files: Mapping[str, Sequence[Path]] | None,
        deadline_seconds: float,
    ) -> bool:
        deadline = time.monotonic() + deadline_seconds
        self._held = self._held or self._lock_folder()
        for folder, paths in (files or {}).items():
            target = self._folder / FILES / folder
            target.mkdir(parents=True, exist_ok=True)
            for path in paths:
                if path.is_dir():
                    shutil.copytree(path, target / path.name, dirs_exist_ok=True)
                else:
                    shutil.copyfile(path, target / path.name)
        told = {**(tags or {}), **({} if artifact is None else artifact_tags(artifact))}
        shipped = self._shipper.close(deadline_seconds)
        with self._lock:
            self._record = self._record.model_copy(
                update={
                    "status": status,
                    "ended_ms": now_ms(),
                    "metrics": finite(metrics or {}),
                    "tags": masked({**self._record.tags, **told}),
                }
            )
            write_record(self._folder, self._record)
        if self._tracker is not None and shipped and time.monotonic() < deadline:
            self.sent = _send_or_tell(self._tracker, self._folder, self._shipper)
        return self.sent

    def remove_told(self) -> None:
        """Remove the folder if the run has finished and MLflow has all of it."""
        remove_told(self._folder)

    def abandon(self) -> None:
        """Stop recording and leave the run as it is: another attempt has taken the stage over, and the run with it."""
        self._shipper.close(0.0)
        self._release()

    def _lock_folder(self) -> IO[bytes] | None:
        self._folder.mkdir(parents=True, exist_ok=True)  # who has sent the one before may have removed it
        with suppress(FileNotFoundError):
            return try_lock(self._folder)
        return None

    def _release(self) -> None:
        if self._held is not None:
            self._held.close()

    def _open(self) -> str:
        """Open the run and say what is known at the start; called by the shipper until it works."""
        assert self._tracker is not None
        opened = open_run(self._tracker, self._record)
        with self._lock:  # the stage may have ended meanwhile
            update = {"tracking": opened.tracking, "run_id": opened.run_id}
            self._record = self._record.model_copy(update=update)
            write_record(self._folder, self._record)
        describe_run(self._tracker, opened)
        return opened.run_id


def open_run(tracker: Tracker, record: RunRecord) -> RunRecord:
    """Return the record with the id of its run here: the one it had, else found by key, else new."""
    tags = dict(record.tags)
    if record.run_id and record.tracking == tracker.address and tracker.run_exists(record.run_id):
        tracker.reopen(
            record.run_id, tags | ({"mlflow.parentRunId": record.parent_run_id} if record.parent_run_id else {})
        )
        return record
    if record.flow_run_id:
        run_id = tracker.parent_run(record.flow_run_id, record.title, tags)
    else:
        run_id = tracker.stage_run(record.stage_key, record.title, record.parent_run_id, tags)
    return record.model_copy(update={"tracking": tracker.address, "run_id": run_id})


def describe_run(tracker: Tracker, record: RunRecord) -> None:
    """Log the params and inputs of a run."""
    if record.config:
        tracker.log_params(record.run_id, record.config)
    if record.inputs:
        tracker.log_inputs(record.run_id, record.inputs)


def send_record(tracker: Tracker, folder: Path) -> None:
    """Send everything of a folder but its journal, and end the run if it has ended. May be repeated."""
    record = read_record(folder)
    assert record is not None, f"{folder} has no {RECORD}"
    record = open_run(tracker, record)
    write_record(folder, record)
    describe_run(tracker, record)
    files = folder / FILES
    if files.exists():
        tracker.log_files(record.run_id, sorted(files.iterdir()))
    if record.ended_ms:
        if record.metrics:
            tracker.log_summary(record.run_id, record.metrics, record.ended_ms)
        tracker.finish(record.run_id, record.status, record.ended_ms)
        if record.flow_run_id:
            tracker.delete_doubles(FLOW_RUN_ID, record.flow_run_id, record.run_id)
        else:
            tracker.delete_doubles(STAGE_KEY, record.stage_key, record.run_id)
        write_record(folder, record.model_copy(update={"sent": True}))


def pending(root: Path, status: str = "") -> Iterator[Path]:
    """Yield the folders below `root` (one level) of ended runs that MLflow does not have completely; '' = however they ended.

    A run that has not ended is left out: its stage is alive, or will be resumed in the same folder and ship the rest.
    """
    for path in sorted(root.glob(f"*/{RECORD}")):
        record = read_record(path.parent)
        if record is not None and record.ended_ms and not record.sent and status in ("", record.status):
            yield path.parent


def end_deserted(root: Path) -> None:
    """Write down that the runs of flows below `root` have ended whose process died without a word: KILLED.

    A stage's run is left alone: whoever resumes the stage goes on with it.
    """
    for path in sorted(root.glob(f"*/{RECORD}")):
        with alone(path.parent) as record:
            if record is None or record.ended_ms or not record.flow_run_id:
                continue
            last_sign = max(file.stat().st_mtime_ns for file in path.parent.iterdir()) // 1_000_000
            write_record(path.parent, record.model_copy(update={"status": "KILLED", "ended_ms": last_sign}))


def replay(folder: Path, tracker: Tracker, deadline_seconds: float = 60.0) -> bool:
    """Return whether MLflow has all of a folder, after sending what it lacks. Adds nothing twice.

    The folder of a finished stage may then be removed; that of a failed one is still its workspace. False if its
    recorder is alive. Raises the errors of `Connection.call` when MLflow is still away.
    """
    with alone(folder) as record:
        return record is not None and _replay(folder, record, tracker, deadline_seconds)


def _replay(folder: Path, record: RunRecord, tracker: Tracker, deadline_seconds: float) -> bool:
    record = open_run(tracker, record)
    write_record(folder, record)
    if not replay_journal(folder / JOURNAL, tracker, record.run_id, deadline_seconds):
        return False
    send_record(tracker, folder)
    return True


def settle(
    folder: Path, tracker: Tracker, artifact: ArtifactRef, metrics: Mapping[str, float], deadline_seconds: float = 60.0
) -> bool:
    """Return whether MLflow has all of a stage that published and was killed before it could say so.

    Called when a stage is found published (reused) while its workspace still holds a run that has not ended. False if
    its recorder is alive: then it is just about to say so.
    """
    with alone(folder) as found:
        if found is None or found.sent:
            return found is not None
        record = found
        if not record.ended_ms:
            update = {"status": "FINISHED", "ended_ms": now_ms(), "metrics": finite(metrics)}
            tags = {**record.tags, **masked(artifact_tags(artifact))}
            record = record.model_copy(update={**update, "tags": tags})
            write_record(folder, record)
        return _replay(folder, record, tracker, deadline_seconds)


def try_lock(folder: Path) -> IO[bytes] | None:
    """Return the locked file of a folder, None if another holds it. Closing it, or the process's end, gives it up."""
    handle = (folder / LOCK).open("ab")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle


@contextmanager
def alone(folder: Path) -> Iterator[RunRecord | None]:
    """Give the record of a folder, None if it has none or if another process is at it; keep others away meanwhile."""
    try:
        held = try_lock(folder)
    except FileNotFoundError:  # its stage has removed it
        held = None
    if held is None:
        yield None
        return
    with held:
        yield read_record(folder)


def remove_told(folder: Path) -> None:
    """Remove the folder of a stage or flow that has finished and been told; not one that is used again by now."""
    with alone(folder) as record:
        if record is not None and record.status == "FINISHED" and record.sent:
            shutil.rmtree(folder, ignore_errors=True)


def finite(figures: Mapping[str, float]) -> dict[str, float]:
    """Return the figures that are finite."""
    return {name: float(value) for name, value in figures.items() if math.isfinite(value)}


def artifact_tags(artifact: ArtifactRef) -> dict[str, str]:
    """Return the tags by which a run names what it published."""
    return {
        "genai.artifact": artifact.label(),
        "genai.artifact_uri": artifact.uri,
        "genai.digest": artifact.digest,
    }


def read_record(folder: Path) -> RunRecord | None:
    """Return the record of a folder, None if it has none."""
    try:
        return RunRecord.model_validate_json((folder / RECORD).read_bytes())
    except FileNotFoundError:
        return None


def write_record(folder: Path, record: RunRecord) -> None:
    """Write the record of a folder, atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{RECORD}.{os.getpid()}.part"
    draft.write_text(json.dumps(record.model_dump(mode="json"), ensure_ascii=False, indent=1))
    draft.replace(folder / RECORD)


def _send_or_tell(tracker: Tracker, folder: Path, shipper: Shipper) -> bool:
    try:
        send_record(tracker, folder)
    except GenaiCoreError as error:
        shipper.error = error
        return False
    return True
