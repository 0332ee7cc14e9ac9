"""The whole mission: text in, a registered model out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.approval import ask
from flows.session import flow_session
from genai_core.config.recipe import Recipe
from genai_core.recursion.generations import Generations
from genai_core.storage.artifact import ArtifactRef
from tasks.augmentation import augment
from tasks.correction import measure_correction, refuse_if_worse, sample_corrections
from tasks.evaluation import evaluate
from tasks.events import REFUSED
from tasks.finetuning import tune
from tasks.pretraining import pretrain
from tasks.registry import champion_of, promote, verify
from tasks.session import Session, StageRow, current_session
from tasks.sources import Sources, resolve_sources, why_no_writer
from tasks.stage import metrics_of
from tasks.synthesis import measure_generation, read_verdict, refuse_for_want_of_data, say_stopped, synthesize

Step = Callable[..., Any]


def as_task(task: Any) -> Step:
    """Call a task as Prefect runs it; a plan calls the bare function instead, with no server."""
    step: Step = task.fn if current_session().planning else task
    return step


def prepare(sources: Sources, recipe: Recipe) -> ArtifactRef:
    """Prepare the corpus."""
    corpus: ArtifactRef = as_task(augment)(sources, recipe)
    return corpus


def learn_text(sources: Sources, recipe: Recipe) -> tuple[ArtifactRef, ArtifactRef]:
    """Prepare the corpus and train the base model on it."""
    corpus = prepare(sources, recipe)
    return corpus, as_task(pretrain)(sources, corpus, recipe)


def learn_instructions(base: ArtifactRef, corpus: ArtifactRef, recipe: Recipe) -> ArtifactRef:
    """Fine-tune the base model on the corpus's instruction pairs."""
    tuned: ArtifactRef = as_task(tune)(base, corpus, [], recipe.finetuning, 0.0, recipe, "finetune")
    return tuned


def grow(origin: ArtifactRef, corpus: ArtifactRef, recipe: Recipe) -> ArtifactRef:
    """Run the generations; return the last model that the guard let pass.

    Each is trained from its parent, on other rows first than the parent saw last. The real-only arm has as many
    trainings behind it as the candidate that it is compared with.
    """
    recursion = recipe.recursion
    wanted = recursion.synthesis.min_accepted
    state = Generations[ArtifactRef, ArtifactRef].start(origin)
    controls = [origin]
    report: ArtifactRef | None = None
    for generation in range(1, recursion.generations + 1):
        parent, level = state.parent, len(state.kept) + 1
        synthetic = as_task(synthesize)(parent, corpus, state.kept, generation, recipe)
        accepted = int(metrics_of(synthetic).get("accepted", wanted))
        if accepted < wanted:
            refuse_for_want_of_data(generation, accepted, wanted)
            break
        training = recursion.training.model_copy(update={"seed": recursion.training.seed + level})
        if len(controls) == level:  # a refused generation leaves its control arm to the next
            controls.append(as_task(tune)(controls[-1], corpus, [], training, 0.0, recipe, f"train-control-{level}"))
        pairs = [*state.kept, synthetic]
        title = f"train-g{generation}"
        candidate = as_task(tune)(
            parent, corpus, pairs, training, recursion.min_real_share, recipe, title, recursion.max_real_share
        )
        report = as_task(measure_generation)(
            candidate, parent, origin, controls[level], corpus, synthetic, report, generation, recipe
        )
        verdict = read_verdict.fn(report)
        state = state.after(verdict.decision, candidate, synthetic, verdict.tail_ratio)
        if state.stopped:
            if generation < recursion.generations:
                say_stopped(state.stopped)
            break
    return state.parent


def correct(model: ArtifactRef, corpus: ArtifactRef, recipe: Recipe) -> ArtifactRef:
    """Let the model learn from its own verified answers; keep what it was if nothing was verified or it got worse."""
    samples = as_task(sample_corrections)(model, corpus, recipe)
    if metrics_of(samples).get("accepted", 1) == 0:
        reason = "no sampled answer was verified: the model stays as it is"
        current_session().add(StageRow("train-corrected", "skipped", reasons=(reason,)))
        return model
    correction = recipe.correction
    corrected: ArtifactRef = as_task(tune)(
        model, corpus, [samples], correction.training, 0.0, recipe, "train-corrected", correction.max_real_share
    )
    report = as_task(measure_correction)(model, corrected, corpus, recipe)
    return model if refuse_if_worse(report) else corrected


def argue_and_promote(base: ArtifactRef, candidate: ArtifactRef, corpus: ArtifactRef, recipe: Recipe) -> None:
    """Measure candidate, base and champion alike; register the candidate and let the gate decide."""
    measure = as_task(evaluate)
    measure(base, corpus, recipe, "base")
    if shots := recipe.evaluation.shots:
        measure(base, corpus, recipe, f"base-{shots}-shot", shots=shots)
    measure(candidate, corpus, recipe, "candidate")
    as_task(verify)(candidate, recipe)
    base_report = measure(base, corpus, recipe, "base", "sealed")
    candidate_report = measure(candidate, corpus, recipe, "candidate", "sealed")
    if current_session().planning:
        return
    champion = champion_of(recipe)
    champion_report = None
    if champion is not None and champion.digest != candidate.digest:
        champion_report = measure(champion, corpus, recipe, "champion", "sealed")
    decision = ask(candidate, base_report, candidate_report, champion_report, recipe)
    promote(candidate, base_report, candidate_report, champion_report, recipe, decision)


def live(recipe: Recipe) -> None:
    """Go through the whole mission; that of an encoder ends with its pre-training."""
    recipe = recipe.seeded()
    sources = resolve_sources(recipe)
    corpus, base = learn_text(sources, recipe)
    if reason := why_no_writer(sources, recipe):
        current_session().add(StageRow("finetune", "skipped", reasons=(reason,)))
        return
    tuned = learn_instructions(base, corpus, recipe)
    grown = grow(tuned, corpus, recipe)
    corrected = correct(grown, corpus, recipe)
    argue_and_promote(base, corrected, corpus, recipe)


@flow(name="lifecycle", flow_run_name="{recipe.name}", validate_parameters=True)
def lifecycle(recipe: Recipe, refresh: list[str] = []) -> dict[str, Any] | State[dict[str, Any]]:  # noqa: B006 (a default shown in the form)
    """Take text through every stage and leave a registered model behind.

    Args:
        recipe: what to do; every field is explained beside it.
        refresh: stages to compute again although they were published before.
    """
    with flow_session(recipe, refresh) as session:
        live(recipe)
        return end_of(session)


def report_of(session: Session) -> dict[str, Any]:
    """Return the stages and the model of a session as JSON."""
    return {"stages": [row.to_json() for row in session.rows], "model": session.model}


def end_of(session: Session) -> dict[str, Any] | State[dict[str, Any]]:
    """Return the report, in a state that says so if the gate has refused: the run is done, the champion unchanged."""
    report = report_of(session)
    if session.model is None or session.model["gate"]["passed"]:
        return report
    reasons = "; ".join(session.model["gate"]["reasons"])
    return Completed(
        name=REFUSED, message=f"The gate refused, the champion is unchanged: {reasons}"[:2000], data=report
    )
