"""One entry point runs every stage everywhere: inputs in, body, artifact published under the claim, run recorded."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genai_core.config.settings import Settings
from genai_core.errors import ClaimLostError, InterruptedRunError
from genai_core.stages.contract import StageContext, StageJob, StageResult, Workers
from genai_core.stages.provenance import describe_environment
from genai_core.stages.registry import STAGES
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.storage.artifacts import ArtifactStore
from genai_core.storage.claims import Claim
from genai_core.storage.open import open_store
from genai_core.storage.workspace import Workspace
from genai_core.tracking.journal import JOURNAL, Journal
from genai_core.tracking.recording import FILES, LOCK, RECORD, Recording, RunRecord
from genai_core.tracking.runs import Tracker
from genai_core.tracking.system_metrics import SystemMetrics

Emit = Callable[[dict[str, Any]], None]
STOP_FILE = "stop"
SHIPPING_DEADLINE_SECONDS = 20.0
FAILED_DEADLINE_SECONDS = 3.0
SMALL_FILES = ("report.json", "stats.json", "samples.json", "preflight.html", "preflight.json", "*.png", "*.md")
"""What of an artifact is also kept with the MLflow run, to be looked at there."""


@dataclass
class StopSignal:
    """Asked for by the person (SIGINT) or the scheduler; a worker in another process sees the file."""

    event: threading.Event
    file: Path | None = None

    def ask(self) -> None:
        """Ask the running stage to stop at its next good point."""
        self.event.set()
        if self.file is not None:
            self.file.touch()


def run_job(
    job: StageJob,
    claim_state: dict[str, Any],
    settings: Settings,
    serve_workers: Callable[..., Workers],
    emit: Emit,
    stop: StopSignal,
    abandon: Callable[[ClaimLostError], None] = lambda error: None,
) -> dict[str, Any]:
    """Run one stage job; return {"artifact", "metrics", "told"} of what it published.

    `abandon` is called from a thread of its own as soon as another attempt has taken over, while the body may be far
    from its next `check`: it must end every worker, because the other attempt works in the same workspace.

    Raises InterruptedRunError when stopped, ClaimLostError when another attempt has taken over, and what the body raises.
    """
    started = time.monotonic()
    store = ArtifactStore(open_store(job.storage_uri, settings, probe=False), settings.scratch)
    claim = Claim.from_json(store.objects, claim_state)
    workspace = Workspace(store.objects, job.key, settings.scratch)
    workspace.restore()
    journal = Journal(workspace.path / JOURNAL)
    stop.file = workspace.path / STOP_FILE
    stop.file.unlink(missing_ok=True)

    def check() -> None:
        claim.check()
        if stop.event.is_set():
            raise InterruptedRunError(f"{job.title} was stopped. Its state is kept: run again to resume.")

    claim.start_heartbeat(settings.heartbeat_seconds, on_lost=abandon)
    recording = Recording(
        Tracker(job.tracking_uri, job.experiment, settings.home / "mlartifacts") if job.tracking_uri else None,
        workspace.path,
        RunRecord(
            stage_key=job.key,
            title=job.title,
            parent_run_id=job.parent_run_id,
            tags=job.tags,
            config=job.config,
            inputs=job.inputs,
        ),
        on_row=lambda row: emit({"type": "journal", "row": row}),
    ).start()
    system = SystemMetrics(journal).start()
    try:
        output = workspace.path / f"output-a{job.attempt}"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)
        context = StageContext(
            job=job,
            inputs={role: path for role, ref in job.inputs.items() if (path := fetch_input(store, ref)) is not None},
            output=output,
            workspace=workspace,
            journal=journal,
            workers=serve_workers(
                workspace,
                journal,
                check,
                run_name=f"{job.key[:16]}-a{job.attempt}",
                max_failures=job.compute.max_failures,
            ),
            check=check,
        )
        stage = STAGES[job.stage]
        check()
        result: StageResult = stage.load_body()(stage.config.model_validate(job.config), context)
        check()
        told = {
            **result.told,
            **describe_environment(),
            "seconds": round(time.monotonic() - started, 3),
            "stage": job.stage,
            "title": job.title,
            "code_version": stage.version,
            "config": job.config,
            "inputs": {role: ref.model_dump(mode="json") for role, ref in job.inputs.items()},
            "metrics": dict(result.metrics),
            "commit": job.tags.get("git.commit", ""),
            "attempt": job.attempt,
            "run_id": recording.run_id,
        }
        ref = store.publish(claim, job.kind, job.name, output, told)
        system.stop()
        journal.close()
        shipped = recording.finish(
            "FINISHED",
            metrics=result.metrics,
            artifact=ref,
            files=small_files(output),
            deadline_seconds=SHIPPING_DEADLINE_SECONDS,
        )
        if shipped:
            workspace.remove()
        else:  # the journal and the run's record wait for MLflow; the rest has been published
            forget_all_but_the_record(workspace)
        return {"artifact": ref.model_dump(mode="json"), "metrics": dict(result.metrics), "told": told}
    except BaseException as error:
        system.stop()
        journal.close()
        if isinstance(error, ClaimLostError):
            recording.abandon()  # the run is the other attempt's now, and may have finished already
        else:
            status = "KILLED" if isinstance(error, InterruptedRunError) else "FAILED"
            recording.finish(status, deadline_seconds=FAILED_DEADLINE_SECONDS)
        raise
    finally:
        claim.stop_heartbeat()


def fetch_input(store: ArtifactStore, ref: ArtifactRef) -> Path | None:
    """Return the verified local directory of an input, or None for a source that is not a path."""
    if ref.kind is not ArtifactKind.SOURCE:
        return store.fetch(ref)
    path = Path(ref.uri)
    return path if path.exists() else None


def forget_all_but_the_record(workspace: Workspace) -> None:
    """Delete the unfinished state of a published stage, but keep what MLflow has not been told yet."""
    for path in workspace.path.glob("*"):  # none where MLflow has been told meanwhile
        if path.name not in {RECORD, FILES, LOCK} and not path.name.startswith("journal"):
            workspace.forget(path.name)


def small_files(output: Path) -> dict[str, list[Path]]:
    """Return what of an artifact is also kept with the MLflow run."""
    return {"": sorted({path for pattern in SMALL_FILES for path in output.glob(pattern)})}


def encode(message: dict[str, Any]) -> bytes:
    """Return one line of the protocol between the flow process and a job."""
    return json.dumps(message, ensure_ascii=False).encode() + b"\n"
