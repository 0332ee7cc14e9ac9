"""Launch the preparation of a corpus alone."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.lifecycle import prepare, report_of
from flows.session import flow_session
from genai_core.config.recipe import Recipe
from tasks.sources import resolve_sources


def walk(recipe: Recipe) -> None:
    """Prepare the corpus."""
    prepare(resolve_sources(recipe), recipe)


@flow(name="augmentation", flow_run_name="augmentation {recipe.name}")
def augmentation(recipe: Recipe, refresh: list[str] = []) -> dict[str, Any]:  # noqa: B006 (a default shown in the form)
    """Clean, deduplicate, split, derive pairs, train the tokenizer and pack.

    Args:
        recipe: what to do; every field is explained beside it.
        refresh: stages to compute again although they were published before.
    """
    with flow_session(recipe, refresh) as session:
        walk(recipe.seeded())
        return report_of(session)
