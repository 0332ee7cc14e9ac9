"""run_stage: the one place where the identities of Prefect, Ray and MLflow meet.

key = digest(stage, code version, config, input digests)
published under the key?   -> its reference, `reused`
claimed by another run?    -> wait, then reuse what it publishes
else                       -> claim, dispatch the job, return what it published, `computed`
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from prefect.context import TaskRunContext
from prefect.exceptions import TerminationSignal

from genai_core.config.base import Config
from genai_core.errors import (
    ClaimLostError,
    DiskFullError,
    IntegrityError,
    InterruptedRunError,
    StorageError,
    TransientError,
    is_disk_full,
)
from genai_core.stages.contract import StageJob
from genai_core.stages.registry import STAGES, Stage
from genai_core.storage.artifact import ArtifactRef
from genai_core.storage.claims import Claim, acquire
from genai_core.storage.digest import digest_json, stage_key
from tasks.events import tell_published
from tasks.outbox import settle_reused
from tasks.session import Session, StageRow, Stopwatch, current_session

UNKNOWN_DIGEST = "unknown"
"""Stands for the digest of an artifact that a plan says would still have to be computed."""


def only_if_transient(task: Any, task_run: Any, state: Any) -> bool:
    """Return whether a failed task may be tried again: what a machine caused, never what a user or the maths caused."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, (TransientError, ClaimLostError))


RETRY: dict[str, Any] = {"retries": 3, "retry_delay_seconds": [1, 5, 20], "retry_condition_fn": only_if_transient}
"""Arguments of every stage task. A retry claims the stage again and resumes from its last checkpoint.

The first comes at once, for a killed worker; the last after half a minute, for a server that restarts or a node that a full
disk has taken away. A full disk that is known as one is not tried again.
"""


def run_stage(
    stage: str, config: Config, inputs: Mapping[str, ArtifactRef], *, name: str, title: str = ""
) -> ArtifactRef:
    """Return the reference to what the stage publishes, computing it only if it was never published before.

    Args:
        stage: name in the stage registry.
        config: the slice of the recipe that defines the result.
        inputs: references to the inputs, by role.
        name: readable name of the artifact.
        title: name in tables and runs; the stage's own if empty.
    """
    session = current_session()
    if session.should_stop():  # pressed while Prefect waited for this try
        raise InterruptedRunError("Stopped before a stage began. Run again to resume.")
    spec = STAGES[stage]
    title = title or stage
    key = stage_key(stage, spec.version, config, inputs)
    watch = Stopwatch()
    refreshed = bool({stage, title} & session.refresh)
    if refreshed and not session.planning:
        session.refresh -= {title}
        session.store.discard(key, reason=f"--refresh {title}")
    found = None if refreshed else session.store.find(key)
    if found is not None:
        return _reuse(session, title, found, watch)
    if session.planning:
        wanted = ArtifactRef(kind=spec.kind, name=name, version="", digest=UNKNOWN_DIGEST, uri="")
        session.add(StageRow(title, "compute", artifact=wanted))
        if refreshed:
            with suppress(IntegrityError):  # that it is damaged is why it is made again
                found = session.store.find(key, verify=False)
        return found or wanted
    session.on_event({"type": "stage", "title": title})
    claim = acquire(
        session.store.objects,
        key,
        session.owner(),
        stale_seconds=session.settings.stale_claim_seconds,
        on_wait=lambda holder: session.on_event({"type": "waiting", "title": title, "holder": holder}),
        should_stop=session.should_stop,
        inputs=[ref.key for ref in inputs.values() if ref.key],
    )
    if not isinstance(claim, Claim):
        found = session.store.find(key)
        assert found is not None, f"claim of {key} says published, but there is no manifest"
        return _reuse(session, title, found, watch)
    return _compute(session, spec, title, name, config, inputs, claim, watch)


@contextmanager
def hold(session: Session, title: str, what: Any) -> Iterator[None]:
    """Hold a claim on something that is done in place and publishes nothing; a second run waits for its turn."""
    claim = acquire(
        session.store.objects,
        digest_json(what),
        session.owner(),
        stale_seconds=session.settings.stale_claim_seconds,
        on_wait=lambda holder: session.on_event({"type": "waiting", "title": title, "holder": holder}),
        should_stop=session.should_stop,
    )
    assert isinstance(claim, Claim), f"something was published for {title}"
    claim.start_heartbeat(session.settings.heartbeat_seconds)
    try:
        yield
    finally:
        claim.release("done")


def _reuse(session: Session, title: str, ref: ArtifactRef, watch: Stopwatch) -> ArtifactRef:
    told = session.store.manifest(ref.key)["told"]
    row = StageRow(title, "reused", watch.seconds(), ref, told.get("metrics", {}), told)
    session.add(row)
    if not session.planning:
        settle_reused(session, ref, dict(row.metrics))
        session.parent().link_reused(title, ref)
    return ref


def _compute(
    session: Session,
    spec: Stage,
    title: str,
    name: str,
    config: Config,
    inputs: Mapping[str, ArtifactRef],
    claim: Claim,
    watch: Stopwatch,
) -> ArtifactRef:
    claim.start_heartbeat(session.settings.heartbeat_seconds)
    try:
        session.launcher.warm_up()
        job = StageJob(
            stage=spec.name,
            title=title,
            key=claim.key,
            attempt=claim.attempt,
            kind=spec.kind,
            name=name,
            config=config.model_dump(mode="json"),
            inputs=dict(inputs),
            compute=session.compute,
            storage_uri=session.settings.storage_uri,
            tracking_uri=session.settings.tracking_uri,
            experiment=session.experiment,
            parent_run_id=session.parent_run_id(),
            tags={**session.tags, **_prefect_tags(), "genai.title": title},
        )
        with saying_disk_full(title):
            outcome = session.launcher.run(
                job,
                claim,
                on_row=lambda row: session.on_event({"type": "journal", "title": title, "row": row}),
                should_stop=session.should_stop,
            )
    except BaseException as error:
        claim.stop_heartbeat()
        if not isinstance(error, ClaimLostError):
            with suppress(StorageError):  # what ended the stage is told, not that the store cannot note it
                claim.release(f"{type(error).__name__}: {error}"[:300])
        if isinstance(error, (TransientError, ClaimLostError)):
            session.on_event({"type": "lost", "title": title, "reason": str(error)})
        else:
            status = "interrupted" if isinstance(error, (InterruptedRunError, TerminationSignal)) else "failed"
            with suppress(StorageError):
                session.add(StageRow(title, status, watch.seconds(), reasons=(str(error),)))
        raise
    claim.stop_heartbeat()
    ref = ArtifactRef.model_validate(outcome["artifact"])
    session.add(StageRow(title, "computed", watch.seconds(), ref, outcome["metrics"], outcome["told"]))
    tell_published(ref, stage=spec.name, recipe_name=session.recipe_name)
    return ref


@contextmanager
def saying_disk_full(title: str) -> Iterator[None]:
    """Turn any library's way of saying that no space is left into our own, which has a remedy."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise DiskFullError(
            f"No space left while computing {title} ({error}). Free some and run again: it resumes."
        ) from error


def _prefect_tags() -> dict[str, str]:
    context = TaskRunContext.get()
    if context is None:
        return {}
    return {
        "prefect.task_run_id": str(context.task_run.id),
        "prefect.flow_run_id": str(context.task_run.flow_run_id or ""),
    }


def metrics_of(ref: ArtifactRef) -> dict[str, Any]:
    """Return the key figures of a published artifact; empty in a plan, where it may not exist yet."""
    if not ref.key:
        return {}
    return dict(current_session().store.manifest(ref.key)["told"].get("metrics", {}))
