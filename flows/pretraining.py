"""Launch pre-training alone; the corpus is found again if it is there."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.lifecycle import learn_text, report_of
from flows.session import flow_session
from genai_core.config.recipe import Recipe
from tasks.sources import resolve_sources


def walk(recipe: Recipe) -> None:
    """Go as far as the base model."""
    learn_text(resolve_sources(recipe), recipe)


@flow(name="pretraining", flow_run_name="pretraining {recipe.name}")
def pretraining(recipe: Recipe, refresh: list[str] = []) -> dict[str, Any]:  # noqa: B006 (a default shown in the form)
    """Train the base model on the recipe's text.

    Args:
        recipe: what to do; every field is explained beside it.
        refresh: stages to compute again although they were published before.
    """
    with flow_session(recipe, refresh) as session:
        walk(recipe.seeded())
        return report_of(session)
