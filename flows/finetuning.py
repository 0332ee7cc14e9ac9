"""Launch fine-tuning alone; corpus and base are found again if they are there."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.lifecycle import learn_instructions, learn_text, report_of
from flows.session import flow_session
from genai_core.config.recipe import Recipe
from tasks.sources import resolve_writer


def walk(recipe: Recipe) -> None:
    """Go as far as the fine-tuned model."""
    corpus, base = learn_text(resolve_writer(recipe), recipe)
    learn_instructions(base, corpus, recipe)


@flow(name="finetuning", flow_run_name="finetuning {recipe.name}")
def finetuning(recipe: Recipe, refresh: list[str] = []) -> dict[str, Any]:  # noqa: B006 (a default shown in the form)
    """Teach the base model to follow instructions.

    Args:
        recipe: what to do; every field is explained beside it.
        refresh: stages to compute again although they were published before.
    """
    with flow_session(recipe, refresh) as session:
        walk(recipe.seeded())
        return report_of(session)
