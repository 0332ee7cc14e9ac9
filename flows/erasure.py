"""Launch concept erasure alone; what it stands on is found again if it is there."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.lifecycle import as_task, correct, grow, learn_instructions, learn_text, report_of
from flows.session import flow_session
from genai_core.config.recipe import Recipe
from genai_core.storage.artifact import ArtifactRef
from tasks.erasure import erase, resolve_erasure
from tasks.sources import is_encoder, resolve_sources


def scrub(recipe: Recipe) -> ArtifactRef:
    """Erase the recipe's concept from the model that the lifecycle would register; of an encoder, from the pre-trained one."""
    sources, labelled = resolve_sources(recipe), resolve_erasure(recipe)
    corpus, model = learn_text(sources, recipe)
    if not is_encoder(sources, recipe):
        grown = grow(learn_instructions(model, corpus, recipe), corpus, recipe)
        model = correct(grown, corpus, recipe)
    erasers: ArtifactRef = as_task(erase)(model, corpus, labelled, recipe)
    return erasers


@flow(name="erasure", flow_run_name="erasure {recipe.name}")
def erasure(recipe: Recipe, refresh: list[str] = []) -> dict[str, Any]:  # noqa: B006 (a default shown in the form)
    """Fit erasers of a concept for the trained model; measure it before and after.

    Args:
        recipe: what to do; every field is explained beside it.
        refresh: stages to compute again although they were published before.
    """
    with flow_session(recipe, refresh) as session:
        scrub(recipe.seeded())
        return report_of(session)
