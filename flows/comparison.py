"""Launch the comparison of masked and causal language modelling (arXiv 2405.12630) on a recipe's data."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact

from flows.lifecycle import as_task, prepare, report_of
from flows.session import flow_session
from genai_core.config.recipe import Recipe
from genai_core.storage.artifact import ArtifactRef
from tasks.comparison import arms_of, compose, read_side_by_side, ways_of
from tasks.pretraining import pretrain
from tasks.sources import resolve_sources


def write_with_both(recipe: Recipe) -> dict[str, ArtifactRef]:
    """Train the base model once with each objective and let both write; return the reports by arm and way."""
    arms = arms_of(recipe)
    sources = resolve_sources(recipe)
    corpus = prepare(sources, recipe)
    composed: dict[str, ArtifactRef] = {}
    for name, arm in arms.items():
        model = as_task(pretrain)(sources, corpus, arm, name)
        for way_name, way in ways_of(arm).items():
            composed[f"{name}-{way_name}"] = as_task(compose)(model, corpus, arm, way, f"{name}-{way_name}")
    return composed


@flow(name="comparison", flow_run_name="comparison {recipe.name}")
def comparison(recipe: Recipe, refresh: list[str] = []) -> dict[str, Any]:  # noqa: B006 (a default shown in the form)
    """Train causally and with masks alike, write with both models, and put what the texts are worth side by side.

    Args:
        recipe: what to do; every field is explained beside it.
        refresh: stages to compute again although they were published before.
    """
    with flow_session(recipe, refresh) as session:
        table = read_side_by_side(write_with_both(recipe.seeded()))
        try:
            create_table_artifact(
                table, key="comparison", description="Causal and masked models: what their texts are worth."
            )
        except Exception as error:  # what cannot be shown fails no run: the table is in the result and on the page
            get_run_logger().warning("could not leave the comparison: %s", error)
        return {**report_of(session), "comparison": table}
