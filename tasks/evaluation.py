"""One report per model and suite."""

from __future__ import annotations

from typing import Literal

from prefect import task
from prefect.cache_policies import NO_CACHE

from genai_core.config.recipe import Recipe
from genai_core.config.stages import EvaluateStage
from genai_core.storage.artifact import ArtifactRef
from tasks.stage import RETRY, run_stage


@task(name="evaluate", task_run_name="evaluate-{who}-{split}", cache_policy=NO_CACHE, **RETRY)
def evaluate(
    model: ArtifactRef,
    corpus: ArtifactRef,
    recipe: Recipe,
    who: str,
    split: Literal["heldout", "sealed"] = "heldout",
    shots: int = 0,
) -> ArtifactRef:
    """Measure a model on held-out data, with solved examples in the prompt if asked; only promotion opens the sealed split."""
    config = EvaluateStage(evaluation=recipe.evaluation, split=split, shots=shots)
    title = f"evaluate-{who}" if split == "heldout" else f"seal-{who}"
    return run_stage("evaluate", config, {"model": model, "corpus": corpus}, name=f"{recipe.name}-{title}", title=title)
