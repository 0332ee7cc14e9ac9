"""Learning the domain's text."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from genai_core.config.recipe import Recipe
from genai_core.config.stages import PretrainStage
from genai_core.storage.artifact import ArtifactRef
from tasks.sources import Sources, teacher_of
from tasks.stage import RETRY, run_stage


@task(name="pretrain", cache_policy=NO_CACHE, **RETRY)
def pretrain(sources: Sources, corpus: ArtifactRef, recipe: Recipe, arm: str = "") -> ArtifactRef:
    """Train the base model on the packed rows; a retry resumes from the last checkpoint. `arm`: one of several trainings."""
    inputs = {"corpus": corpus, **teacher_of(recipe.pretraining)}
    if sources.base is not None:
        inputs["base"] = sources.base
    config = PretrainStage(base=recipe.base, training=recipe.pretraining, repeat_share=recipe.repeat_share)
    name = f"{recipe.name}-{arm or 'base'}"
    return run_stage("pretrain", config, inputs, name=name, title=f"pretrain-{arm}" if arm else "")
