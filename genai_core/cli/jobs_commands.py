"""The commands of `genai jobs`."""

from __future__ import annotations

from typing import Annotated

import typer

from genai_core.cli.arguments import RayAddress, StorageUri

jobs_app = typer.Typer(
    invoke_without_command=True, help="Jobs on a Ray cluster: list them, stop those nobody waits for."
)


@jobs_app.callback()
def jobs(context: typer.Context, ray: RayAddress = "", storage: StorageUri = "") -> None:
    """List the jobs that wait or run, and what became of the flow run that each is for."""
    from genai_core.cli.jobs import show_jobs

    if context.invoked_subcommand is None:
        show_jobs(ray, storage)


@jobs_app.command("clean")
def jobs_clean(
    ray: RayAddress = "",
    storage: StorageUri = "",
    minutes: Annotated[
        float, typer.Option("--minutes", min=0, help="Since the flow run's end: one that crashed may soon be resumed.")
    ] = 10.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be stopped.")] = False,
) -> None:
    """Stop the jobs of this store whose flow run has ended; what they had saved is kept."""
    from genai_core.cli.jobs import clean_jobs

    clean_jobs(ray, storage, minutes, dry_run)


@jobs_app.command("stop")
def jobs_stop(
    names: Annotated[list[str], typer.Argument(help="As `genai jobs` lists them.")],
    ray: RayAddress = "",
) -> None:
    """Stop jobs by name, whoever waits for them."""
    from genai_core.cli.jobs import stop_named

    stop_named(names, ray)
