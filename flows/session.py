"""What every flow opens first: stores, launcher, and a voice in Prefect's log and artifacts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from prefect import get_run_logger, runtime
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.settings import PREFECT_API_URL, temporary_settings

from genai_core.config.recipe import Recipe
from genai_core.config.settings import Settings
from genai_core.errors import InterruptedRunError
from genai_core.storage.collect import record_run
from tasks.figures import figures
from tasks.outbox import send_waiting
from tasks.session import OnEvent, Session, StageRow, open_session

LOG_EVERY_SECONDS = 15.0


@dataclass(frozen=True)
class Surroundings:
    """What the process that runs a flow adds to it: a screen, a stop button."""

    on_event: OnEvent = lambda event: None
    should_stop: Callable[[], bool] = lambda: False
    settings: Settings | None = None
    on_session: Callable[[Session], None] = lambda session: None


SURROUNDINGS: ContextVar[Surroundings | None] = ContextVar("genai_surroundings", default=None)


def using_server(api_url: str) -> AbstractContextManager[Any]:
    """Let flows of this process talk to the Prefect API at an address.

    The environment variable would come too late: Prefect has read it when it was imported.
    """
    return temporary_settings({PREFECT_API_URL: api_url})


class PrefectVoice:
    """Mirrors a stage's progress into the flow run's log, at most one line in fifteen seconds a stage."""

    def __init__(self) -> None:
        self._logger = get_run_logger()
        self._last = 0.0

    def hear(self, event: dict[str, Any]) -> None:
        """Say what a person in the UI would want to read of an event."""
        match event["type"]:
            case "stage":
                self._logger.info("%s: started", event["title"])
            case "waiting":
                self._logger.info("%s: another run is computing it (%s); waiting", event["title"], event["holder"])
            case "row":
                self._say_row(event["row"])
            case "journal":
                self._say_journal(event)

    def _say_row(self, row: StageRow) -> None:
        artifact = f" {row.artifact.label()}" if row.artifact else ""
        self._logger.info(
            "%s: %s in %.1f s%s  %s", row.name, row.status, row.seconds, artifact, figures(row.metrics, 6)
        )
        for reason in row.reasons:
            self._logger.info("%s: %s", row.name, reason)

    def _say_journal(self, event: dict[str, Any]) -> None:
        row = event["row"]
        if "e" in row:
            self._logger.info("%s: %s", event.get("title", ""), row["e"])
        elif "p" in row and time.monotonic() - self._last > LOG_EVERY_SECONDS:
            self._last = time.monotonic()
            progress = row["p"]
            rest = ", ".join(
                f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in list(progress.items())[3:]
            )
            self._logger.info(
                "%s: %s of %s %s %s",
                event.get("title", ""),
                progress["done"],
                progress["total"],
                progress["unit"],
                rest,
            )


@contextmanager
def flow_session(recipe: Recipe, refresh: list[str]) -> Iterator[Session]:
    """Open a session for a flow run; at its end show the table in Prefect and close the MLflow run."""
    around = SURROUNDINGS.get() or Surroundings()
    voice = PrefectVoice()

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
        refresh=set(refresh),
        on_event=on_event,
        should_stop=around.should_stop,
    ) as session:
        flow_run_id = str(runtime.flow_run.id or session.flow_run_id)
        session.flow_run_id = flow_run_id
        session.tags["prefect.flow_run_id"] = flow_run_id
        around.on_session(session)
        session.parent()
        send_waiting(session)
        status = "FAILED"
        try:
            yield session
            status = "FINISHED"
        except InterruptedRunError:
            status = "KILLED"
            raise
        finally:
            show_in_prefect(session)
            session.parent().finish(status)


def show_in_prefect(session: Session) -> None:
    """Leave the end table, the gate's reasons and the model's address with the flow run."""
    table = [
        {
            "stage": row.name,
            "status": row.status,
            "seconds": round(row.seconds, 1),
            "artifact": row.artifact.label() if row.artifact else "",
            "figures": figures(row.metrics, 4),
        }
        for row in session.rows
    ]
    if table:
        create_table_artifact(table, key="stages")
    argued = [row for row in session.rows if row.reasons]
    argued.sort(key=lambda row: row.name != "promote")  # what a person looks for first
    parts = [
        "\n".join([f"## {row.name}: {row.status}", "", *(f"- {reason}" for reason in row.reasons)]) for row in argued
    ]
    if session.model is not None:
        parts.insert(0, _model_head(session.model))
    if parts:
        create_markdown_artifact("\n\n".join(parts), key="gate" if session.model is not None else "reasons")


def _model_head(model: dict[str, Any]) -> str:
    verdict = "passed" if model["gate"]["passed"] else "refused: the champion is unchanged"
    alias = f"@{model['alias']}" if model["alias"] else "no alias"
    return f"# `{model['name']}` version {model['version']} ({alias})\n\nThe gate {verdict}."
