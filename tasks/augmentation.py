"""Raw text -> documents, pairs, a tokenizer and packed rows."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from genai_core.config.recipe import Recipe
from genai_core.config.stages import AugmentStage
from genai_core.storage.artifact import ArtifactRef
from tasks.sources import Sources
from tasks.stage import RETRY, run_stage


@task(name="augment", cache_policy=NO_CACHE, **RETRY)
def augment(sources: Sources, recipe: Recipe) -> ArtifactRef:
    """Clean, deduplicate, split, derive pairs, train the tokenizer and pack; publish the corpus."""
    inputs = {"source": sources.text}
    if sources.base is not None and recipe.data.tokenizer.kind == "base":
        inputs["base"] = sources.base
    return run_stage("augment", AugmentStage(augmentation=recipe.data), inputs, name=f"{recipe.name}-corpus")
