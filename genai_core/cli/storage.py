"""`genai storage`: list, verify, mirror, collect garbage."""

from __future__ import annotations

import os

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from genai_core.cli.locate import open_artifacts
from genai_core.cli.options import settings_of
from genai_core.cli.recipes import human_bytes
from genai_core.config.settings import Settings, read_settings
from genai_core.storage.open import open_store


def list_artifacts(storage: str) -> None:
    """Print every published artifact: kind, name, size, when."""
    store = open_artifacts(settings_of(storage))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("kind", "artifact", "size", "made", "digest"):
        table.add_column(heading, justify="right" if heading == "size" else "left", no_wrap=True)
    total, count = 0, 0
    for ref in store.list():
        manifest = store.manifest(ref.key)
        size = sum(entry["size"] for entry in manifest["files"])
        total, count = total + size, count + 1
        table.add_row(
            ref.kind.value, ref.label(), human_bytes(size), manifest["told"].get("created_at", ""), ref.digest[:12]
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(f"{count} artifacts, {human_bytes(total)} in {store.objects.uri}")


def verify_artifacts(storage: str) -> int:
    """Print every damage found; return 1 if there is any."""
    store = open_artifacts(settings_of(storage))
    console = Console(highlight=False)
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("reading", total=None)

        def advance(done: int, total: int, label: str) -> None:
            progress.update(bar, completed=done, total=total, description=label)

        problems = store.verify_all(advance)
    for problem in problems:
        console.print(Text(str(problem), style="bold red"))
    checked = sum(1 for _ in store.list())
    console.print(f"{checked} artifacts, {len(problems)} damaged")
    return 1 if problems else 0


def mirror_artifacts(storage: str, destination: str, unfinished: bool, dry_run: bool) -> int:
    """Copy the store to another place; return 1 if something was not copied."""
    from genai_core.storage.mirror import mirror

    store = open_artifacts(settings_of(storage))
    target = open_store(destination, mirror_settings(), probe=not dry_run)
    console = Console(highlight=False)
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("looking", total=None)

        def advance(done: int, total: int, label: str) -> None:
            progress.update(bar, completed=done, total=total, description=label)

        result = mirror(store, target, unfinished=unfinished, dry_run=dry_run, progress=advance)
    for problem in result.problems:
        console.print(Text(problem, style="bold red"))
    verb = "would be copied" if dry_run else "copied"
    console.print(
        f"{result.copied} artifacts ({human_bytes(result.bytes)}) and {result.records} records {verb}, {result.there} were "
        f"there, {len(result.problems)} refused: {store.objects.uri} -> {target.uri}"
    )
    return 1 if result.problems else 0


def mirror_settings() -> Settings:
    """Return the settings of this installation, with GENAI_MIRROR_S3_... in the place of GENAI_S3_..., where they are set."""
    names = [name for name in Settings.model_fields if name.startswith("s3_")]
    given = {
        name: os.environ[f"GENAI_MIRROR_{name.upper()}"]
        for name in names
        if f"GENAI_MIRROR_{name.upper()}" in os.environ
    }
    return read_settings(**given)


def collect_garbage(storage: str, mlflow: str, keep_runs: int, dry_run: bool) -> None:
    """Delete what nothing needs; with dry_run only tell."""
    settings = settings_of(storage, mlflow)
    from genai_core.storage.collect import collect
    from genai_core.tracking.registry import Registry

    store = open_artifacts(settings)
    versions = Registry(settings.tracking_uri).list_models()
    registered = {version.artifact.key for version in versions if version.artifact is not None}
    removed = collect(store, roots=registered, keep_runs=keep_runs, dry_run=dry_run)
    console = Console(highlight=False)
    for item in removed.removed:
        console.print(Text(f"{item.path}  {human_bytes(item.size)}  {item.reason}", style="dim"))
    verb = "would free" if dry_run else "freed"
    console.print(f"{len(removed.removed)} removed, {verb} {human_bytes(removed.size)}")
