"""What a flow run leaves behind: its table, evidence and links in Prefect, its page and charts in MLflow.

Nothing here may fail a run: what cannot be shown is told in the log and left out.
"""

from __future__ import annotations

import base64
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from genai_core.config.recipe import Recipe
from genai_core.stages.forecast import forecast_stage
from genai_core.tracking.secrets import shown
from tasks.figures import figures, number
from tasks.page import describe, render
from tasks.session import Session, report_of_run

LOCAL_MLFLOW = "http://127.0.0.1:5000"
"""Where `genai ui` serves a local MLflow."""


def leave_behind(session: Session, recipe: Recipe, status: str, ended: str) -> None:
    """Show a flow run that has ended (completed, refused, failed, interrupted, suspended) in Prefect and MLflow, and end its record.

    The page is made where something was computed; who presses Ctrl-C does not wait for it.
    """
    page: dict[str, Any] = {}
    if status not in {"interrupted", "suspended"} and any(
        row.status in {"computed", "refused"} for row in session.rows
    ):
        page = _attempt("describe the run", lambda: _describe(session, recipe, status)) or {}
    _attempt("leave the table", lambda: _leave_table(session))
    _attempt("leave the evidence", lambda: _leave_evidence(session, page))
    _attempt("leave the links", lambda: _leave_links(session))
    with ExitStack() as stack:
        files = _attempt("write the page", lambda: _write_files(page, stack)) if page else None
        session.parent().finish(ended, files=files)
    session.parent().remove_told()


def _attempt(what: str, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except Exception as error:
        get_run_logger().warning("could not %s: %s", what, error)
        return None


def _describe(session: Session, recipe: Recipe, status: str) -> dict[str, Any]:
    forecasts = {row.name: forecast_stage(row.name, recipe) for row in session.rows if row.status == "computed"}
    seconds = time.monotonic() - session.started
    report = report_of_run(session.recipe_name, status, seconds, session.rows, session.model, forecasts)
    return describe(report, session.store, session.settings)


def _write_files(page: Mapping[str, Any], stack: ExitStack) -> dict[str, list[Path]]:
    """Return the page and the charts as files, by their folder in the run; the stack deletes them."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="genai-page-")))
    charts = {f"{name}.svg": chart.encode() for name, chart in page["charts"].items()}
    if page["correction"] and page["correction"]["chart"]:
        charts["correction-transitions.svg"] = page["correction"]["chart"].encode()
    for one in page["generations"]:
        if one["picture"]:
            charts[f"generation-{one['number']}.png"] = base64.b64decode(one["picture"])
    (folder / "report.html").write_text(render(page), encoding="utf-8")
    for name, content in charts.items():
        (folder / name).write_bytes(content)
    return {"": [folder / "report.html"], "figures": [folder / name for name in charts]}


def _leave_table(session: Session) -> None:
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
        create_table_artifact(
            table, key="stages", description="What was computed, reused or refused, and how long it took."
        )


def _leave_evidence(session: Session, page: Mapping[str, Any]) -> None:
    argued = [row for row in session.rows if row.reasons]
    argued.sort(key=lambda row: row.name != "promote")  # what a person looks for first
    parts = [
        "\n".join([f"## {row.name}: {row.status}", "", *(f"- {reason}" for reason in row.reasons)]) for row in argued
    ]
    if session.model is not None:
        parts.insert(0, _model_head(session.model))
    parts += tell_evidence(page)
    if parts:
        key, about = (
            ("gate", "The registered version, the gate's reasons, and the evidence before them.")
            if session.model is not None
            else ("reasons", "Why stages were refused, skipped or ended.")
        )
        create_markdown_artifact("\n\n".join(parts), key=key, description=about)


def tell_evidence(page: Mapping[str, Any]) -> list[str]:
    """Return the generations and the comparisons of correction as Markdown tables; none where there are none."""
    parts = []
    if generations := [one for one in page.get("generations", ()) if one["figures"]]:
        rows = [
            [
                one["number"],
                one["decision"],
                number(one["accepted"] or 0),
                *(_by_role(one["figures"], name) for name in ("text/bits_per_byte", "open_book/right")),
            ]
            for one in generations
        ]
        head = ["generation", "guard", "accepted pairs", "bits per byte", "right"]
        parts.append(f"## Generations\n\n{' / '.join(SHOWN_ROLES)}\n\n{_table(head, rows)}")
    if correction := page.get("correction"):
        head = ["moment", "compared", "difference in right", "right to wrong", "wrong to right", "tokens a prompt"]
        rows = [
            [one["moment"], f"{one['arm']} with {one['baseline']}", *(one[name] for name in SHOWN_CHANGES)]
            for one in correction["comparisons"]
        ]
        parts.append(f"## Self-correction\n\n{_table(head, rows)}")
    return parts


SHOWN_ROLES = ("parent", "control", "candidate")
SHOWN_CHANGES = ("difference", "lost", "won", "tokens")


def _by_role(figures_of: Mapping[str, Mapping[str, float]], name: str) -> str:
    """Return a figure of parent, control arm and candidate; - where it was not measured."""
    found = [figures_of.get(role, {}).get(name) for role in SHOWN_ROLES]
    return " / ".join("-" if value is None else number(value) for value in found)


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _model_head(model: Mapping[str, Any]) -> str:
    verdict = "passed" if model["gate"]["passed"] else "refused: the champion is unchanged"
    alias = f"@{model['alias']}" if model["alias"] else "no alias"
    return f"# `{model['name']}` version {model['version']} ({alias})\n\nThe gate {verdict}."


def _leave_links(session: Session) -> None:
    """Link the MLflow run and the registered version; a local database has pages while `genai ui` runs."""
    uri = session.settings.tracking_uri
    is_served = uri.startswith(("http://", "https://"))
    base = shown(uri).rstrip("/") if is_served else LOCAL_MLFLOW
    where = "" if is_served else " `genai ui` serves the page."
    if path := session.parent().page():
        about = f"Params, metrics, the page of the run and its charts.{where}"
        create_link_artifact(f"{base}{path}", key="mlflow-run", link_text="the run in MLflow", description=about)
    if session.model is not None:
        name, version = session.model["name"], session.model["version"]
        link = f"{base}/#/models/{name}/versions/{version}"
        about = f"{name} version {version} with its card.{where}"
        create_link_artifact(link, key="model-version", link_text=f"{name} version {version}", description=about)
