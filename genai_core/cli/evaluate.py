"""`genai evaluate`: a model's figures on a recipe's held-out data, found again if they were measured before."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markdown import Markdown

from genai_core.cli.locate import locate_ref
from genai_core.cli.options import settings_of
from genai_core.cli.screen import Screen
from genai_core.config.load import load_recipe
from genai_core.config.stages import AugmentStage, EvaluateStage


def evaluate_model(model: str, recipe_name: str, overrides: Sequence[str], mlflow: str, storage: str) -> None:
    """Print the figures of a model beside the baselines."""
    recipe = load_recipe(recipe_name, overrides).seeded()
    settings = settings_of(storage, mlflow)
    ref = locate_ref(model, settings)
    from genai_core.evaluation.compare import Report
    from genai_core.evaluation.report import figures_table
    from tasks.session import open_session
    from tasks.sources import resolve_sources
    from tasks.stage import run_stage

    console = Console(highlight=False)
    sources = resolve_sources(recipe)
    with (
        Screen(console) as screen,
        open_session(recipe.name, recipe.compute, settings=settings, on_event=screen.hear) as session,
    ):
        inputs = {"source": sources.text}
        if sources.base is not None and recipe.data.tokenizer.kind == "base":
            inputs["base"] = sources.base
        corpus = run_stage("augment", AugmentStage(augmentation=recipe.data), inputs, name=f"{recipe.name}-corpus")
        report = run_stage(
            "evaluate",
            EvaluateStage(evaluation=recipe.evaluation, split="heldout", shots=recipe.evaluation.shots),
            {"model": ref, "corpus": corpus},
            name=f"{recipe.name}-evaluate",
        )
        measured = Report.read(session.store.fetch(report))
        session.parent().finish("FINISHED")
    console.print(Markdown(figures_table(measured)))
