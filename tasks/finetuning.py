"""Training on instruction pairs: fine-tuning, a generation, its control arm, learning from corrections."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task
from prefect.cache_policies import NO_CACHE

from genai_core.config.recipe import Recipe
from genai_core.config.stages import TuneStage
from genai_core.config.training import TrainingConfig
from genai_core.storage.artifact import ArtifactRef
from tasks.sources import teacher_of
from tasks.stage import RETRY, run_stage


@task(name="tune", task_run_name="{title}", cache_policy=NO_CACHE, **RETRY)
def tune(
    model: ArtifactRef,
    corpus: ArtifactRef,
    extra: Sequence[ArtifactRef],
    training: TrainingConfig,
    min_real_share: float,
    recipe: Recipe,
    title: str,
    max_real_share: float = 1.0,
) -> ArtifactRef:
    """Train `model` on the corpus's pairs and the extra ones, accumulated; a retry resumes from the last checkpoint."""
    numbered = {f"extra-{n}": ref for n, ref in enumerate(extra, 1)}
    inputs = {"model": model, "corpus": corpus, **teacher_of(training), **numbered}
    config = TuneStage(
        training=training,
        min_real_share=min_real_share,
        max_real_share=max_real_share,
        replay_share=recipe.replay_share,
        repeat_share=recipe.repeat_share,
    )
    return run_stage("tune", config, inputs, name=f"{recipe.name}-{title}", title=title)
