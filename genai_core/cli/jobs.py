"""`genai jobs`: what of ours runs on a Ray cluster, and the jobs that nobody waits for any more."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from genai_core.cli.flow_worker import call
from genai_core.cli.options import settings_of
from genai_core.cli.services import known_prefect, known_ray
from genai_core.config.settings import Settings
from genai_core.errors import ConfigError, GenaiCoreError
from genai_core.launch.head import job_server
from genai_core.launch.left_jobs import AskFlow, ClusterJob, FlowState, list_jobs, stop_jobs
from tasks.figures import clock

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
PATIENCE_SECONDS = 5.0


def show_jobs(ray: str, storage: str) -> None:
    """Print every job of ours that waits or runs: its stage, since when, and what became of the flow run it is for."""
    settings, address = _places(ray, storage)
    jobs = list_jobs(address, settings, flow_asker(settings))
    console = Console(highlight=False)
    if not jobs:
        console.print(f"No job of genai waits or runs at {address}.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("stage", "status", "since", "its flow run", "job"):
        table.add_column(heading, justify="right" if heading == "since" else "left", overflow="fold")
    for job in jobs:
        table.add_row(job.stage, job.status.lower(), clock(job.seconds), says_flow(job), job.name)
    console.print(table)
    if dead := sum(job.is_dead(0) for job in jobs):
        console.print(f"{dead} of {len(jobs)} run for flow runs that have ended: `genai jobs clean` stops them.")


def clean_jobs(ray: str, storage: str, minutes: float, dry_run: bool) -> None:
    """Stop the jobs of this store whose flow run ended so many minutes ago."""
    settings, address = _places(ray, storage)
    jobs = list_jobs(address, settings, flow_asker(settings))
    dead = [job for job in jobs if job.is_dead(minutes)]
    if not dry_run:
        stop_jobs(address, [job.name for job in dead])
    console = Console(highlight=False)
    for job in dead:
        console.print(f"{job.name}  {job.stage}, {says_flow(job)}", markup=False)
    verb = "would be stopped" if dry_run else "stopped"
    console.print(f"{len(dead)} of {len(jobs)} jobs {verb}; what they had saved is kept.")


def stop_named(names: Sequence[str], ray: str) -> None:
    """Stop jobs by name, whoever waits for them: a flow run that does tries again."""
    _, address = _places(ray)
    stop_jobs(address, names)
    Console(highlight=False).print(f"{len(names)} jobs stopped; what they had saved is kept.")


def says_flow(job: ClusterJob) -> str:
    """Return what a person should know of the flow run that a job is for."""
    if not job.is_of_store:
        return "of another store"
    if job.flow is None:
        return "unknown to Prefect"
    return f"{job.flow.name.lower()} {clock(job.flow.ended_seconds)} ago" if job.flow.ended else job.flow.name.lower()


def flow_asker(settings: Settings) -> AskFlow:
    """Return what asks Prefect for a flow run's state; it knows of none where no server is there."""
    api = known_prefect(settings.home)

    def ask_flow(flow_run: str) -> FlowState | None:
        run = None
        with suppress(GenaiCoreError):  # not an id of Prefect's, or no answer
            run = call(api, f"/flow_runs/{flow_run}", seconds=PATIENCE_SECONDS) if api else None
        if not run:
            return None
        ended = run["state_type"] in ENDED
        at = datetime.fromisoformat(run["end_time"] or run["state"]["timestamp"]) if ended else datetime.now(UTC)
        return FlowState(str(run["state_name"]), ended, max(0.0, (datetime.now(UTC) - at).total_seconds()))

    return ask_flow


def _places(ray: str, storage: str = "") -> tuple[Settings, str]:
    settings = settings_of(storage, ray=ray)
    address = known_ray(settings)
    if not address:
        raise ConfigError("No Ray cluster is named: give --ray http://HOST:8265, or set GENAI_RAY_ADDRESS.")
    return settings, job_server(address)
