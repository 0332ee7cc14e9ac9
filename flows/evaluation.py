"""Launch evaluation and promotion alone; what they stand on is found again if it is there."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.lifecycle import argue_and_promote, correct, end_of, grow, learn_instructions, learn_text
from flows.session import flow_session
from genai_core.config.recipe import Recipe
from tasks.sources import resolve_writer


def walk(recipe: Recipe) -> None:
    """Go all the way, whatever the base can write."""
    corpus, base = learn_text(resolve_writer(recipe), recipe)
    grown = grow(learn_instructions(base, corpus, recipe), corpus, recipe)
    argue_and_promote(base, correct(grown, corpus, recipe), corpus, recipe)


@flow(name="evaluation", flow_run_name="evaluation {recipe.name}")
def evaluation(recipe: Recipe, refresh: list[str] = []) -> dict[str, Any] | State[dict[str, Any]]:  # noqa: B006 (a default shown in the form)
    """Measure candidate, base and champion alike; register the candidate and let the gate decide.

    Args:
        recipe: what to do; every field is explained beside it.
        refresh: stages to compute again although they were published before.
    """
    with flow_session(recipe, refresh) as session:
        walk(recipe.seeded())
        return end_of(session)
