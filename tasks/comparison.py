"""Masked against causal language modelling: two recipes that differ in the objective alone, and the texts of both models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from genai_core.config.comparison import Continue, Refill
from genai_core.config.load import validate
from genai_core.config.objectives import CausalLm, MaskedLm
from genai_core.config.recipe import Recipe
from genai_core.config.stages import ComposeStage
from genai_core.storage.artifact import ArtifactRef
from tasks.session import current_session
from tasks.side_by_side import COMPOSE, side_by_side
from tasks.stage import RETRY, run_stage


def arms_of(recipe: Recipe) -> dict[str, Recipe]:
    """Return the recipe once with each objective; the masked one's own settings are kept where the recipe has them.

    Raises:
        ConfigError: the base or the tokenizer does not allow one of the two.
    """
    own = recipe.pretraining.objective
    objectives = (CausalLm(), own if isinstance(own, MaskedLm) else MaskedLm())
    values = recipe.model_dump()
    return {
        objective.kind: validate(
            {**values, "pretraining": {**values["pretraining"], "objective": objective.model_dump()}},
            f"The recipe with pretraining.objective.kind={objective.kind!r}, which the comparison trains,",
        )
        for objective in objectives
    }


def ways_of(arm: Recipe) -> dict[str, Continue | Refill]:
    """Return how an arm's model writes, by name: both go on from a beginning, a masked model also fills in."""
    ways: dict[str, Continue | Refill] = {"continue": arm.comparison.continuing}
    if isinstance(arm.pretraining.objective, MaskedLm):
        ways |= {f"refill-{way.strategy}-{way.rate:g}": way for way in arm.comparison.refills}
    return ways


@task(name="compose", task_run_name="compose-{name}", cache_policy=NO_CACHE, **RETRY)
def compose(model: ArtifactRef, corpus: ArtifactRef, arm: Recipe, way: Continue | Refill, name: str) -> ArtifactRef:
    """Let an arm's model write texts from training documents, and measure them beside these."""
    objective = arm.pretraining.objective
    reads, mask = (objective.reads, objective.mask_token) if isinstance(objective, MaskedLm) else ("left", "")
    config = ComposeStage(reads=reads, mask_token=mask, way=way, composing=arm.comparison.composing)
    title = f"{COMPOSE}{name}"
    return run_stage("compose", config, {"model": model, "corpus": corpus}, name=f"{arm.name}-{title}", title=title)


def read_side_by_side(composed: Mapping[str, ArtifactRef]) -> list[dict[str, str]]:
    """Return the table of some reports, by the name of the column; what a plan has not computed is left out."""
    store = current_session().store
    reports: dict[str, dict[str, Any]] = {
        name: json.loads((store.fetch(ref) / "report.json").read_text(encoding="utf-8"))
        for name, ref in composed.items()
        if ref.key
    }
    return side_by_side(reports)
