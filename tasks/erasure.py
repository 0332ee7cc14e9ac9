"""Concept erasure: erasers for a model, and what erasing did to it."""

from __future__ import annotations

from collections.abc import Mapping

from prefect import task
from prefect.cache_policies import NO_CACHE

from genai_core.config.erasure import LabelledConcept
from genai_core.config.recipe import Recipe
from genai_core.config.stages import EraseStage
from genai_core.storage.artifact import ArtifactRef
from tasks.stage import RETRY, run_stage


def resolve_erasure(recipe: Recipe) -> dict[str, ArtifactRef]:
    """Return the digests of the labelled texts and benchmarks that are named, by role. Raises DataError before anything runs."""
    from genai_core.config.data import JsonlSource
    from genai_core.data.resolve import resolve_source

    erasure, found = recipe.erasure, {}
    if isinstance(erasure.concept, LabelledConcept):
        found["labelled"] = resolve_source(erasure.concept.source(), fields=(erasure.concept.label_field,))
    for role, path, text_field in (("crows_pairs", erasure.crows_pairs, "sent_more"), ("gap", erasure.gap, "text")):
        if path:
            found[role] = resolve_source(JsonlSource(path=path, text_field=text_field))
    return found


@task(name="erase", cache_policy=NO_CACHE, **RETRY)
def erase(model: ArtifactRef, corpus: ArtifactRef, sources: Mapping[str, ArtifactRef], recipe: Recipe) -> ArtifactRef:
    """Fit erasers in every layer of a model; probe and measure it before, after, and with as many random directions gone."""
    inputs = {"model": model, "corpus": corpus, **sources}
    return run_stage("erase", EraseStage(erasure=recipe.erasure), inputs, name=f"{recipe.name}-erasers")
