"""Recursive synthetic data: write, verify, and measure what training on it did."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from prefect import task
from prefect.cache_policies import NO_CACHE

from genai_core.config.base import Config
from genai_core.config.recipe import Recipe
from genai_core.config.stages import MeasureGenerationStage, SynthesizeStage
from genai_core.storage.artifact import ArtifactRef
from tasks.session import StageRow, current_session, refuse_last
from tasks.stage import RETRY, run_stage


class GuardVerdict(Config):
    """What the guard says of a generation: pass, refuse (the parent stays) or stop (the loop ends)."""

    decision: Literal["pass", "refuse", "stop"]
    reasons: tuple[str, ...] = ()
    tail_ratio: float = 1.0
    """Tail coverage as a share of generation 0's; 1 where it was not measured."""


@task(name="synthesize", task_run_name="synthesize-g{generation}", cache_policy=NO_CACHE, **RETRY)
def synthesize(
    model: ArtifactRef, corpus: ArtifactRef, earlier: Sequence[ArtifactRef], generation: int, recipe: Recipe
) -> ArtifactRef:
    """Let the model write pairs about real documents; publish the verified and new ones."""
    inputs = {"model": model, "corpus": corpus, **{f"extra-{n}": ref for n, ref in enumerate(earlier, 1)}}
    config = SynthesizeStage(synthesis=recipe.recursion.synthesis, generation=generation)
    title = f"synthesize-g{generation}"
    return run_stage("synthesize", config, inputs, name=f"{recipe.name}-{title}", title=title)


@task(name="measure-generation", task_run_name="measure-g{generation}", cache_policy=NO_CACHE, **RETRY)
def measure_generation(
    candidate: ArtifactRef,
    parent: ArtifactRef,
    origin: ArtifactRef,
    control: ArtifactRef,
    corpus: ArtifactRef,
    synthetic: ArtifactRef,
    before: ArtifactRef | None,
    generation: int,
    recipe: Recipe,
) -> ArtifactRef:
    """Measure a generation against its parent, generation 0 and a real-only arm; the report holds the guard's verdict.

    `before` is the report of the generation before: what it says of the same models is not measured again.
    """
    config = MeasureGenerationStage(
        evaluation=recipe.evaluation,
        guard=recipe.recursion.guard,
        probe_samples=recipe.recursion.probe_samples,
        generation=generation,
        min_accepted=recipe.recursion.synthesis.min_accepted,
    )
    inputs = {
        "candidate": candidate,
        "parent": parent,
        "origin": origin,
        "control": control,
        "corpus": corpus,
        "synthetic": synthetic,
        **({"measured": before} if before else {}),
    }
    title = f"measure-g{generation}"
    return run_stage("measure-generation", config, inputs, name=f"{recipe.name}-{title}", title=title)


@task(name="guard", cache_policy=NO_CACHE)
def read_verdict(report: ArtifactRef) -> GuardVerdict:
    """Return the guard's verdict of a generation's report, and show a refusal in the table."""
    session = current_session()
    if not report.key:  # a plan: nothing measured yet
        return GuardVerdict(decision="pass")
    found = json.loads((session.store.fetch(report) / "report.json").read_text(encoding="utf-8"))
    tails = found["changes"].get("tail_coverage")
    ratio = tails["candidate"]["mean"] if tails else None
    verdict = GuardVerdict(
        decision=found["verdict"]["decision"],
        reasons=shown_reasons(found["verdict"]),
        tail_ratio=1.0 if ratio is None else ratio,
    )
    if verdict.decision == "pass":
        session.rows[-1].reasons = verdict.reasons
    else:
        refuse_last(session, verdict.reasons)
    return verdict


def shown_reasons(verdict: Mapping[str, Any]) -> tuple[str, ...]:
    """Return why the guard refused, the rules that passed left out; all rules of a generation that passed.

    Args:
        verdict: of a report, its refusing rules first (recursion/guard.py).
    """
    reasons, failed = tuple(verdict["reasons"]), len(verdict["failed"])
    return reasons[:failed] if failed else reasons


def say_stopped(reason: str) -> None:
    """Say in the table why there is no further generation."""
    row = current_session().rows[-1]
    row.reasons = (*row.reasons, f"no further generation: {reason}")


def refuse_for_want_of_data(generation: int, accepted: int, wanted: int) -> None:
    """Show in the table that a generation was refused before training: too few pairs were accepted."""
    reason = f"only {accepted} synthetic pairs were accepted, {wanted} are wanted: the parent stays"
    current_session().add(StageRow(f"train-g{generation}", "refused", reasons=(reason,)))
