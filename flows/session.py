"""What every flow opens first: stores, launcher, and a voice in Prefect."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.exceptions import Pause, TerminationSignal
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.leaving import leave_behind
from flows.voice import PrefectVoice
from genai_core.config.recipe import Recipe
from genai_core.config.settings import Settings
from genai_core.errors import InterruptedRunError, StageFailedError
from genai_core.launch.submit import Launcher
from genai_core.storage.collect import record_run
from tasks.outbox import Outbox
from tasks.session import OnEvent, Session, open_session


@dataclass(frozen=True)
class Surroundings:
    """What the process that runs a flow adds to it: a screen, a stop button."""

    on_event: OnEvent = lambda event: None
    should_stop: Callable[[], bool] = lambda: False
    settings: Settings | None = None
    on_session: Callable[[Session], None] = lambda session: None
    launcher: Launcher | None = None  # warm already; its flow closes it


SURROUNDINGS: ContextVar[Surroundings | None] = ContextVar("genai_surroundings", default=None)


def using_server(api_url: str) -> AbstractContextManager[Any]:
    """Let flows of this process talk to the Prefect API at an address.

    The environment variable would come too late: Prefect has read it when it was imported.
    """
    return temporary_settings({PREFECT_API_URL: api_url})


LAST_WORDS_SECONDS = 20.0
"""How long the end of a run waits for an MLflow that has not been told all; what is left then, the next run tells."""

MOST_CRASHES = 3
"""A run that has crashed more often is not resumed again: what kills its process would go on doing so."""


class Deadline:
    """How long a run may take."""

    def __init__(self, hours: float) -> None:
        self._hours = hours
        self._at = time.monotonic() + hours * 3600 if hours else float("inf")

    def has_passed(self) -> bool:
        """Return whether the run has to stop."""
        return time.monotonic() > self._at

    def words(self) -> str:
        """Return why it was stopped, and what to do."""
        return (
            f"The run was stopped after compute.max_hours={self._hours:g}. Its state is kept: run it again and it goes on, "
            "or raise compute.max_hours."
        )


def refuse_what_crashes_again() -> None:
    """Raise StageFailedError in a deployed run that has crashed too often; automations resume what has crashed."""
    if runtime.deployment.id is None or int(runtime.flow_run.run_count or 1) <= MOST_CRASHES:
        return
    with get_client(sync_client=True) as client:
        states = client.read_flow_run_states(uuid.UUID(str(runtime.flow_run.id)))
    crashes = sum(state.type is StateType.CRASHED for state in states)
    if crashes > MOST_CRASHES:
        raise StageFailedError(
            f"This run has crashed {crashes} times and is not tried again. Its log, and logs/host-*.log in GENAI_HOME on the "
            "worker, say why, often want of memory. Its state is kept: a new run goes on from it."
        )


@contextmanager
def flow_session(recipe: Recipe, refresh: list[str]) -> Iterator[Session]:
    """Open a session for a flow run; at its end show it in Prefect and MLflow."""
    around = SURROUNDINGS.get() or Surroundings()
    voice = PrefectVoice()
    refuse_what_crashes_again()
    deadline = Deadline(recipe.compute.max_hours)

    def on_event(event: dict[str, Any]) -> None:
        around.on_event(event)
        voice.hear(event)
        if event["type"] == "row" and not session.planning:  # a garbage collection beside us must keep what we stand on
            keys = [row.artifact.key for row in session.rows if row.artifact]
            record_run(session.store.objects, session.flow_run_id, keys)

    with open_session(
        recipe.name,
        recipe.compute,
        settings=around.settings,
        launcher=around.launcher,
        refresh=set(refresh),
        on_event=on_event,
        should_stop=lambda: around.should_stop() or deadline.has_passed(),
    ) as session:
        flow_run_id = str(runtime.flow_run.id or session.flow_run_id)
        session.flow_run_id = flow_run_id
        session.tags["prefect.flow_run_id"] = flow_run_id
        around.on_session(session)
        session.parent()
        outbox = Outbox(session).start()
        status, ended = "failed", "FAILED"
        try:
            yield session
            refused = session.model is not None and not session.model["gate"]["passed"]
            status, ended = "refused" if refused else "completed", "FINISHED"
        except InterruptedRunError:
            status, ended = "interrupted", "KILLED"
            if deadline.has_passed():
                raise StageFailedError(deadline.words()) from None
            raise
        except TerminationSignal:  # cancelled in Prefect's page, or the worker is stopped
            status, ended = "interrupted", "KILLED"
            raise
        except Pause:
            status, ended = "suspended", "KILLED"
            raise
        finally:
            try:  # what a stage could not say while MLflow was away is said before its run is looked at
                outbox.close(0.0 if ended == "KILLED" else LAST_WORDS_SECONDS)
            finally:
                leave_behind(session, recipe, status, ended)
