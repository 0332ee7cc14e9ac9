"""`genai recipe`: list, show, check, schema."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from genai_core.augmentation.outlook import Outlook, look_ahead, worries
from genai_core.cli.options import settings_of
from genai_core.cli.screen import STATUS_STYLE
from genai_core.config.load import find_recipe, list_recipes, load_recipe, recipe_schema
from genai_core.config.recipe import Recipe
from genai_core.config.reference import recipe_reference
from genai_core.errors import ConfigError
from tasks.figures import clock

if TYPE_CHECKING:
    from flows.plan import PlannedStage

SURELY_TOO_LARGE = 1.5
"""Times the machine's memory: a forecast is an estimate, and swap helps a little."""


def show_list() -> None:
    """Print the recipes that come with the package, with one sentence each."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 3, 0, 0))
    for path in list_recipes():
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        table.add_row(Text(path.stem, style="bold"), values.get("description", ""))
    Console(highlight=False).print(table)


def show_recipe(name: str, overrides: Sequence[str]) -> None:
    """Print the validated recipe with every default filled in."""
    recipe = load_recipe(name, overrides)
    yaml.safe_dump(recipe.model_dump(mode="json"), sys.stdout, sort_keys=False, width=110)


def show_schema(markdown: bool) -> None:
    """Print the schema, as JSON or as the page of all keys."""
    if markdown:
        sys.stdout.write(recipe_reference())
    else:
        print(json.dumps(recipe_schema(), indent=1))


def human_bytes(size: float) -> str:
    """Return a size as people write it: 12 MB, 1.4 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def check(name: str, overrides: Sequence[str], storage: str, flow: str = "lifecycle") -> None:
    """Print what a run would do, and what it would cost. Raises what a run would raise before its first stage."""
    recipe = load_recipe(name, overrides)
    settings = settings_of(storage)
    from flows.plan import plan
    from flows.registry import find_flow
    from tasks.sources import resolve_sources

    _, walk = find_flow(flow)
    console = Console(highlight=False)
    sources = resolve_sources(recipe)
    console.print(Text.assemble(("recipe   ", "dim"), (recipe.name, "bold"), f"   {find_recipe(name)}"))
    console.print(Text.assemble(("text     ", "dim"), f"{sources.text.label()}   {sources.text.uri}"))
    base = f"{sources.base.label()}   {sources.base.uri}" if sources.base else f"{recipe.base.kind}, random weights"
    console.print(Text.assemble(("base     ", "dim"), base))
    console.print(Text.assemble(("store    ", "dim"), settings.storage_uri), soft_wrap=True)
    outlook = look_ahead(recipe.data, sources.text)
    if outlook is not None:
        console.print(Text.assemble(("holds    ", "dim"), describe(outlook)))
    planned = plan(recipe, settings, [], outlook, walk)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading, justify in (
        ("stage", "left"),
        ("would be", "left"),
        ("time", "right"),
        ("memory", "right"),
        ("disk", "right"),
    ):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in planned:
        status = "computed" if row.status == "compute" else row.status
        cost = row.forecast
        table.add_row(
            row.name,
            Text(status, style=STATUS_STYLE.get(row.status, "")),
            clock(cost["seconds"]) if cost else "",
            human_bytes(cost["memory_bytes"]) if cost else "",
            human_bytes(cost["disk_bytes"]) if cost else "",
        )
    console.print()
    console.print(table)
    costs = [row.forecast for row in planned if row.forecast]
    if costs:
        console.print(
            f"\n{len(costs)} to compute: about {clock(sum(cost['seconds'] for cost in costs))}, "
            f"{human_bytes(max(cost['memory_bytes'] for cost in costs))} of memory at the peak, "
            f"{human_bytes(sum(cost['disk_bytes'] for cost in costs))} on disk"
        )
    else:
        console.print("\nEverything is there already.")
    warn(console, outlook, recipe)
    refuse_what_cannot_fit(planned, recipe.compute.ray_address or settings.ray_address)


def refuse_what_cannot_fit(planned: Sequence[PlannedStage], ray_address: str) -> None:
    """Raise ConfigError where a stage needs far more memory than this machine has; clusters and GPUs are not known here."""
    if ray_address or Path("/dev/nvidia0").exists():
        return
    there = psutil.virtual_memory().total
    for row in planned:
        if row.forecast and row.forecast["memory_bytes"] > SURELY_TOO_LARGE * there:
            raise ConfigError(
                f"{row.name} would need about {human_bytes(row.forecast['memory_bytes'])} of memory; this machine has "
                f"{human_bytes(there)}. Make the model smaller (base.n_layers, base.d_model, base.d_ff, "
                "vocab_size), or give compute.ray_address of a cluster that is large enough."
            )


def describe(outlook: Outlook) -> str:
    """Return what a source holds, in a line."""
    sides = outlook.documents
    if not outlook.whole:
        return f"about {human_bytes(outlook.text_bytes)} of text; its first {outlook.read:,} rows were looked at"
    dropped = f", {sum(outlook.dropped.values()):,} dropped" if outlook.dropped else ""
    return (
        f"{human_bytes(outlook.text_bytes)} of text: {sides['train']:,} documents to train on, {sides['heldout']:,} "
        f"held out, {sides['sealed']:,} sealed{dropped}; about {sum(outlook.pairs.values()):,} instruction pairs"
    )


def warn(console: Console, outlook: Outlook | None, recipe: Recipe) -> None:
    """Print what should be known before a training is paid for."""
    from genai_core.stages.forecast import BUSY, busy_with_others

    found = worries(outlook, recipe) if outlook is not None else []
    if (load := busy_with_others()) > BUSY:
        found.append(f"other programs use this machine ({load:.1f} for each core): it will take longer than forecast.")
    for worry in found:
        console.print(Text.assemble(("note: ", "bold yellow"), worry))
