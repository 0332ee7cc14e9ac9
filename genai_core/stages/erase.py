"""Erase: fit a map after every norm of a model that leaves no linear trace of a concept, and say what that cost.

erasers.safetensors, erasers.json   loads with the model: representations.eraser_files.load_scrubbed
report.json                         probes, losses, stereotypes: before, after, and with a random projection of the same rank
cases.jsonl                         what the losses, CrowS-Pairs and GAP figures are computed from
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from genai_core.config.data import JsonlSource
from genai_core.config.erasure import ErasureConfig
from genai_core.config.lifecycle import EvaluationConfig
from genai_core.config.stages import EraseStage
from genai_core.data.sources.registry import read_documents
from genai_core.errors import DataError, StageFailedError
from genai_core.evaluation import erasure_report as reporting
from genai_core.evaluation.benchmarks import crows_pairs, gap
from genai_core.evaluation.compare import write_json, write_jsonl
from genai_core.evaluation.labelled_texts import BAD_ROW_SHARE, LabelledTexts, read_labelled
from genai_core.evaluation.runner import choose_documents
from genai_core.evaluation.scrubbed_model import ScrubbedModel
from genai_core.models.families import Family, load_any
from genai_core.representations.eraser_files import ErasedPoint, digest_weights, write_erasers
from genai_core.representations.erasers import (
    Eraser,
    change,
    fit_leace,
    fit_orthogonal,
    fit_random,
    residual_correlation,
)
from genai_core.representations.moments import Moments
from genai_core.representations.scrubbing import points_of
from genai_core.representations.worker import erasers_from_json, erasers_to_json
from genai_core.stages.contract import StageContext, StageResult

BEFORE, AFTER, RANDOM = reporting.BEFORE, reporting.AFTER, reporting.RANDOM

MOST_RESIDUAL = 1e-6
"""Correlation left on what was fitted on; more means that the fit failed, whatever its flags say."""

Fit = Callable[[Moments, int], Eraser]


def erase(config: EraseStage, context: StageContext) -> StageResult:
    """Fit erasers of a concept on `model`, layer after layer, and measure the model before and after.

    Raises:
        DataError: the concept's labels are missing or too few; a benchmark's file has not its fields.
        ModelError: the model's layers are of no layout that can be scrubbed.
        StageFailedError: a fitted eraser leaves a linear trace.
    """
    erasure, folder = config.erasure, context.inputs["model"]
    texts = read_labelled(erasure, context.inputs["corpus"], context.inputs.get("labelled"))
    model = ScrubbedModel(folder, erasure.max_tokens, context.workers.map_shards, context.job.compute)
    loaded, family = load_any(folder)
    points, everywhere = points_of(loaded, final=erasure.final), points_of(loaded, final=True)
    del loaded
    fitted = _fit_in_order(AFTER, points, _method(erasure), model, texts, context)
    erasers = {point: found.eraser for point, found in fitted.items()}
    ranks = [eraser.rank for eraser in erasers.values()]
    control = _fit_in_order(
        RANDOM, points, lambda moments, at: fit_random(moments, ranks[at], erasure.seed + at), model, texts, context
    )
    arms = {BEFORE: {}, AFTER: erasers, RANDOM: {point: found.eraser for point, found in control.items()}}
    write_erasers(
        context.output,
        fitted,
        {
            "concept": erasure.concept.model_dump(mode="json", exclude={"path"}),
            "labels": list(texts.labels),
            "label_counts": texts.counts(),
            "method": erasure.method,
            "model": context.refs["model"].label(),
            "model_weights": digest_weights(folder),
            "data": (context.refs.get("labelled") or context.refs["corpus"]).digest,
            "max_tokens": erasure.max_tokens,
            "dtype": "float32",
        },
    )
    probed = _probe(model, texts, arms, points, everywhere, erasure)
    context.check()
    measured, cases = _measure(model, family, arms, erasure, context)
    report = {
        "model": context.refs["model"].label(),
        "concept": erasure.concept.model_dump(mode="json", exclude={"path"}),
        "labels": texts.counts(),
        "left_out": texts.left_out,
        "points": len(points),
        "rank": sum(ranks),
        "residual": max(found.residual for found in fitted.values()),
        "change": {
            name: [round(f.change, 6) for f in arm.values()] for name, arm in ((AFTER, fitted), (RANDOM, control))
        },
        "probes": probed,
        **measured,
    }
    write_json(context.output / "report.json", report)
    write_jsonl(context.output / "cases.jsonl", cases)
    figures = {"rank": float(sum(ranks)), "points": float(len(points)), "labels": float(len(texts.labels))}
    return StageResult(metrics={**figures, **reporting.flat(report)})


def _method(erasure: ErasureConfig) -> Fit:
    if erasure.method == "orthogonal":
        return lambda moments, _: fit_orthogonal(moments)
    return lambda moments, _: fit_leace(moments, shrinkage=erasure.shrinkage)


def _fit_in_order(
    arm: str, points: Sequence[str], fit: Fit, model: ScrubbedModel, texts: LabelledTexts, context: StageContext
) -> dict[str, ErasedPoint]:
    """Return an eraser for each point, each fitted while all before it are active; a finished one is kept through a crash."""
    found: dict[str, ErasedPoint] = {}
    for at, point in enumerate(points):
        context.check()
        kept = context.workspace.path / f"erasers-{arm}" / f"{at:04d}.json"
        if kept.exists():
            found[point] = _read_point(kept, point)
            continue
        part = f"moments-{arm}-{at:04d}"
        erasers = {name: earlier.eraser for name, earlier in found.items()}
        moments = model.moments(texts.fitted, len(texts.labels), point, erasers, part)
        eraser = fit(moments, at)
        residual = residual_correlation(eraser, moments)
        if arm == AFTER and not residual <= MOST_RESIDUAL:
            raise StageFailedError(
                f"The eraser of {point} leaves a correlation of {residual:.2g} with the labels it was fitted on. Its states "
                "are not finite or vary by less than their rounding: look at the model."
            )
        variance = float(moments.cov_xx.trace())
        found[point] = ErasedPoint(eraser, moments.n, residual, change(eraser, moments) / variance if variance else 0.0)
        _keep_point(kept, point, found[point], context)
        context.workspace.forget(f"shards/{part}")  # (d, d) a shard and point: more than is worth keeping
        context.journal.progress(at + 1, len(points), "points", part=arm)
    return found


def _keep_point(path: Path, point: str, found: ErasedPoint, context: StageContext) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    value = {"eraser": erasers_to_json({point: found.eraser}), "n": found.n, "residual": found.residual}
    draft = path.with_suffix(f".{os.getpid()}.part")
    draft.write_text(json.dumps({**value, "change": found.change}), encoding="utf-8")
    draft.rename(path)
    context.workspace.save(str(path.relative_to(context.workspace.path)))


def _read_point(path: Path, point: str) -> ErasedPoint:
    value = json.loads(path.read_text(encoding="utf-8"))
    return ErasedPoint(erasers_from_json(value["eraser"])[point], value["n"], value["residual"], value["change"])


def _probe(
    model: ScrubbedModel,
    texts: LabelledTexts,
    arms: dict[str, dict[str, Eraser]],
    points: Sequence[str],
    everywhere: Sequence[str],
    erasure: ErasureConfig,
) -> list[dict[str, Any]]:
    """Return what probes know of mean-pooled texts: at the first, a middle and the last erased point, and before the head."""
    places = {"first": points[0], "middle": points[len(points) // 2], "last": points[-1], "head": everywhere[-1]}
    wanted = [point for point in everywhere if point in places.values()]
    labels = [reporting.labels_of(side) for side in (texts.fitted, texts.heldout)]
    rows = []
    for arm, erasers in arms.items():
        sides = [
            model.pooled(side, wanted, erasers, f"pooled-{arm}-{name}") if side else {}
            for name, side in (("fitted", texts.fitted), ("heldout", texts.heldout))
        ]
        for place, point in places.items():
            features = [side.get(point, labels[at].new_zeros(0, 1)) for at, side in enumerate(sides)]
            fitted, heldout = zip(features, labels, strict=True)
            for row in reporting.probe_rows(fitted, heldout, len(texts.labels), erasure.probe_hidden, erasure.seed):
                guarantee = reporting.guarantee_of(row, erased=arm == AFTER and point in erasers)
                rows.append({"arm": arm, "place": place, "point": point, **row, "guarantee": guarantee})
    return rows


def _measure(
    model: ScrubbedModel,
    family: Family,
    arms: dict[str, dict[str, Eraser]],
    erasure: ErasureConfig,
    context: StageContext,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the losses and the benchmarks of every arm, and their cases; nothing of a model without a head."""
    if family == "encoder":
        context.journal.event("the model has no head: no loss is measured, only probes")
        return {"text": {}}, []
    draws, seed = erasure.bootstrap_draws, erasure.seed
    choice = EvaluationConfig(max_documents=erasure.max_documents, seed=seed)
    documents = choose_documents(context.inputs["corpus"], "heldout", choice)
    rows = [{"row_id": document.doc_id, "text": document.text} for document in documents]
    losses = {arm: model.losses(rows, erasers, f"losses-{arm}") for arm, erasers in arms.items()}
    metric = reporting.BITS if family == "causal" else reporting.NATS
    report: dict[str, Any] = {"text": reporting.text_rows(losses, metric, draws, seed)}
    cases = [{"suite": "text", "arm": arm, **row} for arm, found in losses.items() for row in found]
    context.check()
    if pairs := _benchmark(context, "crows_pairs", crows_pairs.FIELDS):
        crows = {arm: model.crows_pairs(pairs, erasers, f"crows-{arm}") for arm, erasers in arms.items()}
        report["crows_pairs"] = reporting.crows_pairs_rows(crows, draws, seed)
        cases += [{"arm": arm, **row} for arm, found in crows.items() for row in found]
    context.check()
    if snippets := _benchmark(context, "gap", gap.FIELDS):
        measured = [row for row in snippets if gap.is_measured(row, erasure.gap_split)]
        gaps = {arm: model.gap(measured, erasers, f"gap-{arm}") for arm, erasers in arms.items()}
        report["gap"] = reporting.gap_rows(gaps, draws, seed)
        cases += [{"arm": arm, **row} for arm, found in gaps.items() for row in found]
    return report, cases


def _benchmark(context: StageContext, role: str, fields: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of a benchmark's file, none where it is not asked for. Raises DataError for a missing field."""
    if role not in context.inputs:
        return []
    path = context.inputs[role]
    found = read_documents(JsonlSource(path=str(path), text_field=fields[0]), path, BAD_ROW_SHARE)
    rows = []
    for document in found.documents:
        row = {"id": document.doc_id, **document.meta["fields"]}
        if missing := [name for name in fields if name not in row]:
            raise DataError(
                f"{path.name}, {document.doc_id}: no field {missing[0]!r}, which {role} has. Give its own file."
            )
        rows.append(row)
    return rows
