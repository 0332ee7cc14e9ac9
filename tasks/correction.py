"""Self-correction: sample and verify, learn from the verified, measure at all three moments."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from genai_core.config.recipe import Recipe
from genai_core.config.stages import MeasureCorrectionStage, SampleCorrectionsStage
from genai_core.storage.artifact import ArtifactRef
from tasks.session import current_session, refuse_last
from tasks.stage import RETRY, metrics_of, run_stage


@task(name="sample-corrections", cache_policy=NO_CACHE, **RETRY)
def sample_corrections(model: ArtifactRef, corpus: ArtifactRef, recipe: Recipe) -> ArtifactRef:
    """Sample several answers to each training prompt; publish the verified ones."""
    correction = recipe.correction
    config = SampleCorrectionsStage(
        prompts=correction.prompts,
        samples_per_prompt=correction.samples_per_prompt,
        invented_names=correction.invented_names,
        sampling=correction.sampling,
        seed=correction.seed,
    )
    inputs = {"model": model, "corpus": corpus}
    return run_stage("sample-corrections", config, inputs, name=f"{recipe.name}-corrections")


@task(name="measure-correction", cache_policy=NO_CACHE, **RETRY)
def measure_correction(before: ArtifactRef, after: ArtifactRef, corpus: ArtifactRef, recipe: Recipe) -> ArtifactRef:
    """Measure what correction did at training time, at generation time and after the fact, with its cost in tokens."""
    correction = recipe.correction
    config = MeasureCorrectionStage(
        best_of=correction.best_of,
        measure_prompts=correction.measure_prompts,
        sampling=correction.sampling,
        evaluation=recipe.evaluation,
        seed=correction.seed,
    )
    inputs = {"before": before, "after": after, "corpus": corpus}
    return run_stage("measure-correction", config, inputs, name=f"{recipe.name}-correction-report")


def refuse_if_worse(report: ArtifactRef) -> bool:
    """Return whether learning from corrections is shown to have cost right answers, and say so in the table."""
    figures = metrics_of(report)
    moment = "correction/training_time"
    if figures.get(f"{moment}/high", 0.0) >= 0:  # a plan has measured nothing yet
        return False
    reason = (
        f"right answers {figures['correction/before/right']:.3f} before learning from corrections, "
        f"{figures['correction/after/right']:.3f} after: {figures[f'{moment}/mean']:+.3f} "
        f"[{figures[f'{moment}/low']:+.3f}, {figures[f'{moment}/high']:+.3f}], "
        f"n={figures['correction/prompts']:.0f}; the model stays as it was"
    )
    refuse_last(current_session(), (reason,))
    return True
