"""The approval: a deployed run is suspended before the champion moves, and goes on as a person decides."""

from __future__ import annotations

from typing import Literal

from prefect import runtime
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from genai_core.config.recipe import Recipe
from genai_core.storage.artifact import ArtifactRef
from tasks.approval import Decision, lay_out_evidence


class Approval(RunInput):
    """The form of a suspended run."""

    decision: Literal["reject", "promote"] = Field(
        default="reject",
        title="Decision",
        description="promote: the candidate becomes champion, the present one the previous. reject: the champion stays.",
    )
    note: str = Field(
        default="", title="Note", description="Why; it goes on the model card and into the run's reasons."
    )


def ask(
    candidate: ArtifactRef,
    base_report: ArtifactRef,
    candidate_report: ArtifactRef,
    champion_report: ArtifactRef | None,
    recipe: Recipe,
) -> Decision | None:
    """Return what a person decides; None where nobody is to be asked. Suspends a deployed run until then.

    The run that goes on is a new process: it finds all stages again, comes here a second time, and is given the answer.
    """
    if not recipe.promotion.approval:
        return None
    evidence = lay_out_evidence(candidate, base_report, candidate_report, champion_report, recipe)
    if not evidence:
        return None
    if runtime.deployment.id is None:
        return Decision(
            False,
            "promotion.approval asks a person, and only a deployed run has a form to ask with: run the deployment "
            "(`genai deploy`), which reuses everything, or set promotion.approval=false",
        )
    answer = suspend_flow_run(
        wait_for_input=Approval.with_initial_data(description=evidence),
        timeout=int(recipe.promotion.approval_hours * 3600),
        key=f"approve-{candidate.digest[:16]}",
    )
    words = "promoted" if answer.decision == "promote" else "rejected"
    return Decision(answer.decision == "promote", f"{words} by a person" + (f": {answer.note}" if answer.note else ""))
