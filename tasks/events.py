"""What the flows tell the rest of the world through Prefect's events: automations wait for them."""

from __future__ import annotations

import logging
from typing import Any

from prefect.context import FlowRunContext
from prefect.events import emit_event

from genai_core.config.recipe import Recipe
from genai_core.storage.artifact import ArtifactKind, ArtifactRef

log = logging.getLogger(__name__)

DATASET_PUBLISHED = "genai.dataset.published"
"""A dataset that was not there before has been published. Labels: what made it, in which flow, of which recipe."""

REFUSED = "Refused"
"""Name of the state in which a flow run ends whose gate has refused: completed, and the champion is unchanged."""


def dataset_event(ref: ArtifactRef, *, stage: str, flow: str, recipe_name: str, recipe: Any) -> dict[str, Any]:
    """Return the event of a published dataset, as `emit_event` takes it.

    Args:
        ref: the dataset.
        stage: what made it.
        flow: the flow that it was made in.
        recipe_name: short name of the recipe.
        recipe: all of it as JSON, so that what is started by the event works with this dataset and no other.
    """
    return {
        "event": DATASET_PUBLISHED,
        "resource": {
            "prefect.resource.id": f"genai.dataset.{ref.name}",
            "prefect.resource.name": ref.label(),
            "genai.stage": stage,
            "genai.flow": flow,
            "genai.recipe": recipe_name,
        },
        "payload": {"dataset": ref.model_dump(mode="json"), "recipe": recipe},
    }


def tell_published(ref: ArtifactRef, *, stage: str, recipe_name: str) -> None:
    """Tell of an artifact that a flow run has just published, if it is a dataset. Nothing here may fail a run."""
    context = FlowRunContext.get()
    if ref.kind is not ArtifactKind.DATASET or context is None or context.flow is None:
        return
    try:
        recipe: Any = (context.parameters or {}).get("recipe")
        values = recipe.model_dump(mode="json") if isinstance(recipe, Recipe) else recipe
        emit_event(**dataset_event(ref, stage=stage, flow=context.flow.name, recipe_name=recipe_name, recipe=values))
    except Exception as error:
        log.warning("the event of %s was not sent: %s", ref.label(), error)
