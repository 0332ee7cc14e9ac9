"""What a run would do: a flow walked without computing anything, with a forecast for what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flows.lifecycle import live
from flows.registry import Walk
from genai_core.augmentation.outlook import Outlook
from genai_core.config.recipe import Recipe
from genai_core.config.settings import Settings
from genai_core.stages.forecast import forecast_stage
from genai_core.storage.artifact import ArtifactRef
from tasks.session import open_session


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a plan."""

    name: str
    status: str  # reused, compute
    artifact: ArtifactRef | None  # its kind is known also where it is still to be computed
    forecast: dict[str, Any] | None


def plan(
    recipe: Recipe, settings: Settings, refresh: list[str], outlook: Outlook | None = None, walk: Walk = live
) -> list[PlannedStage]:
    """Return what would be reused and what computed. Resolves data and model first: raises DataError or ModelError.

    Args:
        recipe: the whole.
        settings: which store is looked into.
        refresh: stages that would be computed again.
        outlook: of the data, for forecasts.
        walk: of the flow that would run (flows/registry.py).
    """
    with open_session(recipe.name, recipe.compute, settings=settings, refresh=set(refresh), planning=True) as session:
        walk(recipe.seeded())
        return [
            PlannedStage(
                row.name,
                row.status,
                row.artifact,
                forecast_stage(row.name, recipe, outlook) if row.status == "compute" else None,
            )
            for row in session.rows
        ]
