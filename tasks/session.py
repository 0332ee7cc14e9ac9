"""What surrounds the tasks of one flow run: stores, launcher, tracking, and the rows of its report."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genai_core.config.compute import ComputeConfig
from genai_core.config.settings import Settings, read_settings
from genai_core.launch.submit import Launcher, open_launcher
from genai_core.storage.artifact import ArtifactRef
from genai_core.storage.artifacts import ArtifactStore
from genai_core.storage.open import open_store
from genai_core.storage.owner import Owner, this_process

if TYPE_CHECKING:
    from genai_core.tracking.recording import Recording

EXPERIMENT = "genai"
"""The MLflow experiment of all flow runs."""

OnEvent = Callable[[dict[str, Any]], None]


@dataclass
class StageRow:
    """One line of the end table and of the report."""

    name: str
    status: str  # computed, reused, refused, skipped, interrupted, failed; in a plan: reused, compute
    seconds: float = 0.0
    artifact: ArtifactRef | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    told: Mapping[str, Any] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the row as the report shows it."""
        ref = self.artifact
        row: dict[str, Any] = {
            "name": self.name,
            "status": self.status,
            "seconds": round(self.seconds, 2),
            "artifact": ref.model_dump(mode="json", include={"kind", "name", "version", "digest", "uri"})
            if ref
            else None,
            "metrics": dict(self.metrics),
        }
        if self.reasons:
            row["reasons"] = list(self.reasons)
        if "peak_memory_bytes" in self.told:
            row["peak_memory_bytes"] = self.told["peak_memory_bytes"]
        return row


def report_of_run(
    recipe_name: str,
    status: str,
    seconds: float,
    rows: Sequence[StageRow],
    model: dict[str, Any] | None,
    forecasts: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the report of a run as JSON, which its page is made from."""
    stages = [row.to_json() for row in rows]
    for stage in stages:
        if forecast := forecasts.get(stage["name"]):
            stage["forecast"] = forecast
    return {
        "recipe": recipe_name,
        "status": status,
        "seconds": round(seconds, 2),
        "stages": stages,
        "model": model,
    }


@dataclass
class Session:
    """One flow run's surroundings; tasks find it through `current_session`."""

    recipe_name: str
    settings: Settings
    store: ArtifactStore
    compute: ComputeConfig
    launcher: Launcher
    refresh: set[str] = field(default_factory=set)
    on_event: OnEvent = lambda event: None
    should_stop: Callable[[], bool] = lambda: False
    planning: bool = False
    flow_run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    rows: list[StageRow] = field(default_factory=list)
    model: dict[str, Any] | None = None
    teachers: dict[str, ArtifactRef] = field(default_factory=dict)
    """Those of this run, by their config, as they were at its start."""

    tags: dict[str, str] = field(default_factory=dict)
    experiment: str = EXPERIMENT
    started: float = field(default_factory=time.monotonic)
    _parent: Recording | None = None

    def add(self, row: StageRow) -> None:
        """Add a row to the report and tell the screen."""
        self.rows.append(row)
        self.on_event({"type": "row", "row": row})

    def parent(self) -> Recording:
        """Return the MLflow run of this flow run; opened on a thread at the first call, importing MLflow takes seconds."""
        if self._parent is None:
            from genai_core.tracking.recording import Recording, RunRecord
            from genai_core.tracking.runs import Tracker

            self._parent = Recording(
                Tracker(self.settings.tracking_uri, EXPERIMENT, self.settings.home / "mlartifacts"),
                self.settings.scratch / "flows" / self.flow_run_id,
                RunRecord(flow_run_id=self.flow_run_id, title=self.recipe_name, tags=self.tags),
            ).start()
        return self._parent

    def parent_run_id(self, wait_seconds: float = 30.0) -> str:
        """Return the MLflow run id of this flow run, '' if MLflow is away."""
        parent = self.parent()
        deadline = time.monotonic() + wait_seconds
        while not parent.run_id and parent.error is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return parent.run_id

    def owner(self) -> Owner:
        """Return who claims stages: this process, or a job that outlives it and is known by its heartbeat alone."""
        owner = this_process(f"{self.recipe_name} {self.flow_run_id[:8]}")
        return owner.model_copy(update={"pid": 0}) if self.launcher.outlives_flow else owner


def refuse_last(session: Session, reasons: tuple[str, ...]) -> None:
    """Show the stage that ended last as refused, and tell the screen why."""
    row = session.rows[-1]
    row.status, row.reasons = "refused", reasons
    session.on_event({"type": "refused", "title": row.name, "reasons": reasons})


_SESSION: ContextVar[Session | None] = ContextVar("genai_session", default=None)


def current_session() -> Session:
    """Return the session of the running flow."""
    session = _SESSION.get()
    assert session is not None, "a stage task was called outside open_session()"
    return session


@contextmanager
def open_session(
    recipe_name: str,
    compute: ComputeConfig,
    *,
    settings: Settings | None = None,
    launcher: Launcher | None = None,
    refresh: set[str] | None = None,
    on_event: OnEvent | None = None,
    should_stop: Callable[[], bool] | None = None,
    planning: bool = False,
) -> Iterator[Session]:
    """Open the stores and, if none is given, the launcher for one flow run; close them after it."""
    settings = settings or read_settings()
    store = ArtifactStore(open_store(settings.storage_uri, settings), settings.scratch)
    session = Session(
        recipe_name=recipe_name,
        settings=settings,
        store=store,
        compute=compute,
        launcher=launcher or open_launcher(compute.ray_address or settings.ray_address, settings, check=False),
        refresh=set(refresh or ()),
        on_event=on_event or (lambda event: None),
        should_stop=should_stop or (lambda: False),
        planning=planning,
        tags={"git.commit": git_commit(), "genai.recipe": recipe_name},
    )
    token = _SESSION.set(session)
    try:
        yield session
    finally:
        _SESSION.reset(token)
        session.launcher.close()


def git_commit() -> str:
    """Return the commit of the code in the working directory, '' outside a repository."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._start
