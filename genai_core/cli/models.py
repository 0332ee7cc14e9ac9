"""`genai models`: what is registered, where it came from, and the way back."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from genai_core.cli.locate import open_artifacts, split_model
from genai_core.cli.options import settings_of
from tasks.figures import number

HIDDEN_TAGS = {"artifact", "metrics"}  # JSON for the platform; shown in words below


def list_models(mlflow: str) -> None:
    """Print every registered model with its versions' aliases."""
    settings = settings_of(mlflow=mlflow)
    from genai_core.tracking.registry import Registry

    console = Console(highlight=False)
    found = Registry(settings.tracking_uri).list_models()
    if not found:
        console.print("No model is registered yet. `genai run quickstart` makes one.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("model", "version", "alias", "gate", "artifact"):
        table.add_column(heading, no_wrap=True)
    for version in found:
        table.add_row(
            version.model_name,
            version.version,
            ", ".join(version.aliases),
            version.tags.get("gate", ""),
            version.artifact.label() if version.artifact else "",
        )
    console.print(table)


def show_model(model: str, mlflow: str, storage: str) -> None:
    """Print a version, its figures and its lineage."""
    settings = settings_of(storage, mlflow)
    from genai_core.tracking.lineage import lineage
    from genai_core.tracking.registry import Registry

    name, which = split_model(model)
    version = Registry(settings.tracking_uri).describe_model(name, which)
    console = Console(highlight=False)
    aliases = f"  ({', '.join(version.aliases)})" if version.aliases else ""
    console.print(
        Text.assemble((f"{version.model_name} version {version.version}", "bold"), aliases, f"   {version.uri}")
    )
    for tag, value in sorted(version.tags.items()):
        if tag not in HIDDEN_TAGS and not tag.startswith(("mlflow.", "genai.metrics", "genai.ref")):
            console.print(Text.assemble((f"  {tag:<22}", "dim"), value))
    console.print(Text("\nfigures on the sealed split", style="bold"))
    for metric, figure in sorted(version.metrics.items()):
        console.print(Text.assemble((f"  {metric:<34}", "dim"), number(figure)))
    store = open_artifacts(settings)
    if version.artifact is None or store.find(version.artifact.key, verify=False) is None:
        console.print(Text(f"  its artifact is not in {settings.storage_uri}: no lineage to show", style="yellow"))
        return
    console.print(Text("\nlineage", style="bold"))
    for line in lineage(store.manifest, version.artifact).lines():
        console.print(Text(f"  {line}"))


def rollback(model: str, mlflow: str) -> None:
    """Move the champion alias back to the previous version."""
    settings = settings_of(mlflow=mlflow)
    from genai_core.tracking.registry import Registry

    now = Registry(settings.tracking_uri).rollback(model)
    Console(highlight=False).print(
        f"{model}@champion is version {now} again. The other stays registered and is not promoted without force."
    )
