"""The commands of `genai storage`."""

from __future__ import annotations

from typing import Annotated

import typer

from genai_core.cli.arguments import StorageUri, TrackingUri

storage_app = typer.Typer(no_args_is_help=True, help="Look at, verify and clean the artifact store.")


@storage_app.command("ls")
def storage_ls(storage: StorageUri = "") -> None:
    """List the published artifacts."""
    from genai_core.cli.storage import list_artifacts

    list_artifacts(storage)


@storage_app.command("verify")
def storage_verify(storage: StorageUri = "") -> None:
    """Read every byte of every artifact and compare it with its manifest."""
    from genai_core.cli.storage import verify_artifacts

    raise typer.Exit(verify_artifacts(storage))


@storage_app.command("mirror")
def storage_mirror(
    destination: Annotated[str, typer.Argument(help="Another store: a folder or s3://bucket/prefix.")],
    storage: StorageUri = "",
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Also the state of stages that were cut.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be copied.")] = False,
) -> None:
    """Copy the store to another place; what is there is not copied again. Cut short, run it again."""
    from genai_core.cli.storage import mirror_artifacts

    raise typer.Exit(mirror_artifacts(storage, destination, unfinished, dry_run))


@storage_app.command("gc")
def storage_gc(
    storage: StorageUri = "",
    mlflow: TrackingUri = "",
    keep_runs: Annotated[int, typer.Option(help="Flow runs whose artifacts are kept.")] = 10,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
) -> None:
    """Delete artifacts that no registered model, recent run, pin or live claim needs."""
    from genai_core.cli.storage import collect_garbage

    collect_garbage(storage, mlflow, keep_runs, dry_run)
