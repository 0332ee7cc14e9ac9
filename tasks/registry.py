"""Compare, judge, register, move the alias. Pure or idempotent, never cached, in place: no job, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from genai_core.config.recipe import Recipe
from genai_core.config.stages import VerifyStage
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from tasks.session import Session, StageRow, Stopwatch, current_session
from tasks.stage import RETRY, hold, run_stage

if TYPE_CHECKING:
    from genai_core.evaluation.compare import Report
    from genai_core.evaluation.gates import Verdict
    from genai_core.tracking.card import Evidence
    from genai_core.tracking.lineage import Node
    from tasks.approval import Decision


@task(name="verify", cache_policy=NO_CACHE, **RETRY)
def verify(model: ArtifactRef, recipe: Recipe) -> ArtifactRef:
    """Load the published folder in a fresh process with plain transformers and compare logits."""
    config = VerifyStage(max_logit_difference=recipe.promotion.max_logit_difference)
    return run_stage("verify", config, {"model": model}, name=f"{recipe.name}-verified")


def champion_of(recipe: Recipe) -> ArtifactRef | None:
    """Return the present champion's artifact; None if there is none, or if it is in another store."""
    session = current_session()
    from genai_core.tracking.registry import Registry

    found = Registry(session.settings.tracking_uri).champion(recipe.promotion.model_name)
    if found is None or found.artifact is None:
        return None
    return session.store.find(found.artifact.key)


def weigh(
    base_report: ArtifactRef, candidate_report: ArtifactRef, champion_report: ArtifactRef | None, recipe: Recipe
) -> tuple[dict[str, Report], Verdict]:
    """Return the sealed reports by role, and what the gate says of them."""
    from genai_core.evaluation.compare import Report
    from genai_core.evaluation.gates import judge

    session = current_session()
    reports = {
        role: Report.read(session.store.fetch(ref))
        for role, ref in (("candidate", candidate_report), ("base", base_report), ("champion", champion_report))
        if ref is not None
    }
    verdict = judge(
        recipe.promotion.gate,
        reports["candidate"],
        reports["base"],
        reports.get("champion"),
        draws=recipe.evaluation.bootstrap_draws,
        seed=recipe.evaluation.seed,
    )
    return reports, verdict


@task(name="promote", cache_policy=NO_CACHE, **RETRY)
def promote(
    candidate: ArtifactRef,
    base_report: ArtifactRef,
    candidate_report: ArtifactRef,
    champion_report: ArtifactRef | None,
    recipe: Recipe,
    decision: Decision | None = None,
) -> dict[str, Any]:
    """Judge the sealed reports, register the candidate, and make it champion if the gate, and who was asked, let it pass."""
    session = current_session()
    watch = Stopwatch()
    session.on_event({"type": "stage", "title": "promote"})
    reports, verdict = weigh(base_report, candidate_report, champion_report, recipe)
    if decision is not None:
        reasons = (*verdict.reasons, decision.reason)
        verdict = replace(verdict, passed=verdict.passed and decision.promote, reasons=reasons)
    with held_if_new(session, recipe.promotion.model_name, candidate):
        return register(session, candidate, reports, verdict, recipe, watch)


def held_if_new(session: Session, name: str, candidate: ArtifactRef) -> AbstractContextManager[None]:
    """Hold a candidate that is not judged yet: of two runs with it the second finds what the first has registered.

    One that has an alias was judged once, and is again without a claim, whose log would grow with every night without change.
    """
    from genai_core.tracking.registry import Registry

    if Registry(session.settings.tracking_uri).has_alias(name, candidate.digest):
        return nullcontext()
    return hold(session, "promote", {"model": name, "candidate": candidate.digest})


def register(
    session: Session,
    candidate: ArtifactRef,
    reports: dict[str, Report],
    verdict: Verdict,
    recipe: Recipe,
    watch: Stopwatch,
) -> dict[str, Any]:
    """Register a judged candidate, move the alias if the gate passed; return the model as the report shows it."""
    from genai_core.tracking.registry import Registry

    registry = Registry(session.settings.tracking_uri)
    name = recipe.promotion.model_name
    before = registry.champion(name)
    told = session.store.manifest(candidate.key)["told"]
    version = registry.promote_version(
        name,
        session.store.fetch(candidate),
        str(told.get("run_id", "")),
        candidate,
        tags={"gate": "passed" if verdict.passed else "refused", "recipe": recipe.name, **session.tags},
        metrics=reports["candidate"].figures,
        card=write_card(session, candidate, reports, verdict, recipe),
    )
    reasons, passed = list(verdict.reasons), verdict.passed
    status = "computed" if passed else "refused"
    if passed:
        move = registry.move_champion(name, version.version, force=recipe.promotion.force)
        passed = move.champion == version.version
        if not move.moved:
            reasons.append(move.reason)
            status = "reused" if passed else "refused"
    elif before is not None and before.version == version.version:
        reasons.append("it is champion already and stays it")
    if not passed:
        registry.name_challenger(name, version.version)
    now = registry.describe_model(name, version.version)
    session.model = {
        "name": name,
        "version": now.version,
        "alias": next((alias for alias in ("champion", "challenger") if alias in now.aliases), ""),
        "uri": now.uri,
        "gate": {"passed": passed, "reasons": reasons},
    }
    session.add(StageRow("promote", status, watch.seconds(), candidate, {}, reasons=tuple(reasons)))
    return session.model


def count_sealed_openings(session: Session, model: ArtifactRef) -> int:
    """Return how many models have been judged on the sealed split of the corpus that this one was trained on.

    Every look at a sealed split makes it a little less sealed; the card tells how many there were.
    """
    corpus = session.store.manifest(model.key)["told"]["inputs"]["corpus"]["digest"]
    reports = [
        session.store.manifest(ref.key)["told"] for ref in session.store.list() if ref.kind == ArtifactKind.REPORT
    ]
    return sum(
        told.get("config", {}).get("split") == "sealed" and told["inputs"]["corpus"]["digest"] == corpus
        for told in reports
        if "corpus" in told.get("inputs", {})
    )


def evidence_of(reports: Mapping[str, Report], recipe: Recipe) -> list[Evidence]:
    """Return every sealed figure of the candidate against base and champion, with its interval."""
    from genai_core.evaluation.compare import compare
    from genai_core.tracking.card import Evidence

    return [
        Evidence(
            figure=difference.metric,
            against=against,
            candidate=difference.candidate,
            baseline=difference.baseline,
            difference=difference.interval.mean,
            low=difference.interval.low,
            high=difference.interval.high,
            cases=difference.interval.n,
        )
        for against in ("base", "champion")
        if against in reports
        for difference in compare(
            reports["candidate"], reports[against], draws=recipe.evaluation.bootstrap_draws, seed=recipe.evaluation.seed
        )
    ]


def write_card(
    session: Session, candidate: ArtifactRef, reports: dict[str, Report], verdict: Verdict, recipe: Recipe
) -> str:
    """Return the model card: data, lineage, evidence against base and champion, the gate's reasons."""
    from genai_core.models.diffusion_folder import read_writer
    from genai_core.tracking.card import CAUSAL, DIFFUSION, model_card
    from genai_core.tracking.licences import licences_of
    from genai_core.tracking.lineage import lineage

    origin = lineage(session.store.manifest, candidate)
    return model_card(
        model_name=recipe.promotion.model_name,
        lineage=origin,
        evidence=evidence_of(reports, recipe),
        figures=reports["candidate"].figures,
        gate_passed=verdict.passed,
        gate_reasons=verdict.reasons,
        sealed_openings=count_sealed_openings(session, candidate),
        licences=licences_of(origin, stated_licences(origin, recipe)),
        base_model="" if recipe.base.kind == "scratch" else str(recipe.base.model_dump().get("repo", recipe.base.kind)),
        tags=[recipe.name, "genai"],
        kind=CAUSAL if read_writer(session.store.fetch(candidate)) is None else DIFFUSION,
    )


def stated_licences(origin: Node, recipe: Recipe) -> dict[str, str]:
    """Return what the recipe says now of its own data and base, by digest, over what was said when they were read."""
    from genai_core.models.licences import read_licence

    corpus = next((node for node in origin.walk() if node.stage == "augment"), None)
    base = next(
        (node.inputs["base"] for node in origin.walk() if node.stage == "pretrain" and "base" in node.inputs), None
    )
    stated = {}
    if corpus is not None and "source" in corpus.inputs:
        stated[corpus.inputs["source"].ref.digest] = recipe.data.source.license
    if base is not None and recipe.base.kind != "scratch":
        stated[base.ref.digest] = recipe.base.license or read_licence(base.ref.uri)
    for node in origin.walk():
        if "teacher" in node.inputs:
            teacher = node.inputs["teacher"].ref
            stated[teacher.digest] = node.config["training"]["objective"]["teacher"]["license"] or read_licence(
                teacher.uri
            )
    return {digest: text for digest, text in stated.items() if text}
