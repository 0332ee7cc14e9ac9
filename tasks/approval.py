"""What a person is shown before the champion moves, and what comes of the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from genai_core.config.recipe import Recipe
from genai_core.storage.artifact import ArtifactRef
from tasks.registry import champion_of, evidence_of, weigh

if TYPE_CHECKING:
    from genai_core.evaluation.gates import Verdict
    from genai_core.tracking.card import Evidence


@dataclass(frozen=True)
class Decision:
    """What a person has decided about a candidate that the gate let pass."""

    promote: bool
    reason: str


@task(name="lay-out-evidence", cache_policy=NO_CACHE)
def lay_out_evidence(
    candidate: ArtifactRef,
    base_report: ArtifactRef,
    candidate_report: ArtifactRef,
    champion_report: ArtifactRef | None,
    recipe: Recipe,
) -> str:
    """Return the evidence as Markdown; '' if nothing is to be decided: the gate refuses, or the candidate is champion."""
    champion = champion_of(recipe)
    if champion is not None and champion.digest == candidate.digest:
        return ""
    reports, verdict = weigh(base_report, candidate_report, champion_report, recipe)
    if not verdict.passed:
        return ""
    return say_evidence(candidate.label(), recipe.promotion.model_name, verdict, evidence_of(reports, recipe))


def say_evidence(candidate: str, model_name: str, verdict: Verdict, evidence: list[Evidence]) -> str:
    """Return the question with the gate's reasons and the table that they rest on."""
    from genai_core.tracking.card import evidence_table

    return "\n".join(
        [
            f"Shall `{candidate}` become champion of `{model_name}`? The gate would let it pass:",
            "",
            *(f"- {reason}" for reason in verdict.reasons),
            "",
            "On the sealed split; differences are candidate minus baseline, with a 95 % interval:",
            "",
            evidence_table(evidence),
        ]
    )
