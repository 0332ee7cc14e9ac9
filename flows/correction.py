"""Launch self-correction alone; what it stands on is found again if it is there."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.lifecycle import correct, grow, learn_instructions, learn_text, report_of
from flows.session import flow_session
from genai_core.config.recipe import Recipe
from tasks.sources import resolve_writer


def walk(recipe: Recipe) -> None:
    """Go as far as the corrected model."""
    corpus, base = learn_text(resolve_writer(recipe), recipe)
    grown = grow(learn_instructions(base, corpus, recipe), corpus, recipe)
    correct(grown, corpus, recipe)


@flow(name="correction", flow_run_name="correction {recipe.name}")
def correction(recipe: Recipe, refresh: list[str] = []) -> dict[str, Any]:  # noqa: B006 (a default shown in the form)
    """Sample, verify, learn from the verified, measure at all three moments.

    Args:
        recipe: what to do; every field is explained beside it.
        refresh: stages to compute again although they were published before.
    """
    with flow_session(recipe, refresh) as session:
        walk(recipe.seeded())
        return report_of(session)
