"""Launch the generations alone; what they stand on is found again if it is there."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.lifecycle import grow, learn_instructions, learn_text, report_of
from flows.session import flow_session
from genai_core.config.recipe import Recipe
from tasks.sources import resolve_writer


def walk(recipe: Recipe) -> None:
    """Go as far as the last generation."""
    corpus, base = learn_text(resolve_writer(recipe), recipe)
    grow(learn_instructions(base, corpus, recipe), corpus, recipe)


@flow(name="recursion", flow_run_name="recursion {recipe.name}")
def recursion(recipe: Recipe, refresh: list[str] = []) -> dict[str, Any]:  # noqa: B006 (a default shown in the form)
    """Write, verify, mix, train, measure: generation after generation, each judged by the guard.

    Args:
        recipe: what to do; every field is explained beside it.
        refresh: stages to compute again although they were published before.
    """
    with flow_session(recipe, refresh) as session:
        walk(recipe.seeded())
        return report_of(session)
