"""Measure a generation: candidate, parent, generation 0 and the real-only arm, on held-out real data.

report.json    figures of each model, changes with bands, the guard's verdict
cases.jsonl    one row a model and case: documents (nll) and prompts (valid, right)
probes.jsonl   one row a model and probe prompt: the sampled answer
samples.json   the answers of each model to some probe prompts, to look at
metrics.png    the figures as bars

A model is measured once: generation 0, the real-only arm and the parent were measured with the generation before, and
are read from its report (input `measured`) where the same was asked of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genai_core.config.stages import MeasureGenerationStage
from genai_core.data.documents import Document, Pair, read_pairs
from genai_core.evaluation.benchmarks.calls import greedy
from genai_core.evaluation.benchmarks.text import SUITE
from genai_core.evaluation.compare import read_jsonl, write_json, write_jsonl
from genai_core.evaluation.runner import (
    choose,
    choose_documents,
    choose_pairs,
    figures_of,
    measure_text,
    measure_verdicts,
    open_book,
)
from genai_core.feedback.verify import open_verifier
from genai_core.generation.types import Request
from genai_core.recursion.guard import GenerationFigures, GuardVerdict, judge_accepted, judge_generation
from genai_core.recursion.measurement import (
    MIN_PROBES,
    Ruler,
    Samples,
    change_to_json,
    diversity_changes,
    diversity_figures,
    loss_increase,
    right_change,
)
from genai_core.recursion.plot import plot_generation
from genai_core.stages.contract import StageContext, StageResult
from genai_core.stages.evaluate import ask

ROLES = ("origin", "parent", "control", "candidate")
FITTED_ON = 2000
SHOWN_PROBES = 12


@dataclass(frozen=True)
class Measured:
    """What was measured of one model."""

    documents: list[dict[str, Any]]
    answers: list[dict[str, Any]]
    probes: list[str]


def measure_generation(config: MeasureGenerationStage, context: StageContext) -> StageResult:
    """Measure a generation and let the guard judge it; models that are the same are measured once."""
    stats = json.loads((context.inputs["synthetic"] / "stats.json").read_text(encoding="utf-8"))
    if not judge_accepted(stats["accepted"], config.min_accepted).passed:
        # nothing to train on: the candidate is the parent, and there is nothing to measure
        write_json(context.output / "samples.json", [])
        return _publish(config, context, stats, {}, {}, {}, _verdict(config, stats, {}))
    corpus, evaluation = context.inputs["corpus"], config.evaluation
    documents = choose_documents(corpus, "heldout", evaluation)
    # the arms share one architecture, so what one of them holds all of them hold
    pairs = {
        task: ask(context, "origin").fitting(chosen)
        for task, chosen in open_book(choose_pairs(corpus, "heldout", evaluation)).items()
    }
    every = [pair for chosen in pairs.values() for pair in chosen]
    probes = choose(every, lambda pair: pair.pair_id, config.probe_samples, evaluation.seed)
    same = _same_models(context)
    asked = _asked(config, context)
    earlier = read_measured(context.inputs["measured"], asked) if "measured" in context.inputs else {}
    measured: dict[str, Measured] = {}
    for role in ROLES:
        if same[role] == role:
            found = earlier.get(context.refs[role].digest)
            measured[role] = found or _measure(role, config, context, documents, pairs, probes)
    models = {role: measured[same[role]] for role in ROLES}
    figures = {role: _text_figures(model) for role, model in models.items()}
    changes: dict[str, Any] = {
        "loss_increase": loss_increase(
            models["candidate"].documents,
            models["control"].documents,
            draws=evaluation.bootstrap_draws,
            seed=evaluation.seed,
        ),
        "right": right_change(
            *(models[role].answers for role in ("candidate", "control", "parent")),
            draws=evaluation.bootstrap_draws,
            seed=evaluation.seed,
        ),
    }
    if len(probes) >= MIN_PROBES:
        ruler = _fit_ruler(context, probes)
        samples = {role: Samples(model.probes, ruler) for role, model in models.items()}
        budget = min(sum(map(len, one.tokens)) for one in samples.values())
        for role, one in samples.items():
            figures[role] |= diversity_figures(one, ruler, budget)
        changes |= diversity_changes(samples["candidate"], samples["control"], samples["origin"], ruler)
    write_json(context.output / "samples.json", _shown(probes, models))
    return _publish(config, context, stats, measured, figures, changes, _verdict(config, stats, changes))


def _asked(config: MeasureGenerationStage, context: StageContext) -> dict[str, Any]:
    """Return all that decides what is measured of a model."""
    return {
        "corpus": context.refs["corpus"].digest,
        "evaluation": config.evaluation.model_dump(mode="json"),
        "probe_samples": config.probe_samples,
    }


def read_measured(report: Path, asked: Mapping[str, Any]) -> dict[str, Measured]:
    """Return what an earlier generation's report holds of each model, by its digest; nothing if it was asked otherwise."""
    summary = json.loads((report / "report.json").read_text(encoding="utf-8"))
    if summary["asked"] != asked:
        return {}
    cases, probes = read_jsonl(report / "cases.jsonl"), read_jsonl(report / "probes.jsonl")
    found: dict[str, Measured] = {}
    for role in dict.fromkeys(case["model"] for case in cases):
        own = [
            {name: value for name, value in case.items() if name != "model"} for case in cases if case["model"] == role
        ]
        found[summary["digests"][role]] = Measured(
            documents=[case for case in own if case["suite"] == SUITE],
            answers=[case for case in own if case["suite"] != SUITE],
            probes=[row["answer"] for row in probes if row["model"] == role],
        )
    return found


def _same_models(context: StageContext) -> dict[str, str]:
    """Return for each role the first role that has the same content."""
    first: dict[str, str] = {}
    return {role: first.setdefault(context.refs[role].digest, role) for role in ROLES}


def _measure(
    role: str,
    config: MeasureGenerationStage,
    context: StageContext,
    documents: Sequence[Document],
    pairs: Mapping[str, list[Pair]],
    probes: Sequence[Pair],
) -> Measured:
    context.check()
    model, evaluation = ask(context, role), config.evaluation
    verifier = open_verifier(context.inputs["corpus"])
    answers = [
        case for task, chosen in pairs.items() for case in measure_verdicts(model, task, chosen, verifier, evaluation)
    ]
    # training data was sampled at temperature 1 with nothing cut off, so this is how diversity is looked at
    sampling = greedy(evaluation).model_copy(update={"temperature": 1.0})
    requests = [Request(row_id=pair.pair_id, prompt=pair.prompt) for pair in probes]
    completions = model.complete(requests, sampling, "probes") if requests else []
    return Measured(
        measure_text(model, documents, evaluation), answers, [completion.text.strip() for completion in completions]
    )


def _text_figures(model: Measured) -> dict[str, float]:
    figures = figures_of([*model.documents, *model.answers])
    pooled = figures_of([{**case, "suite": "open_book"} for case in model.answers])
    return {**figures, **pooled}


def _fit_ruler(context: StageContext, probes: Sequence[Pair]) -> Ruler:
    train = [pair for pair in read_pairs(context.inputs["corpus"] / "pairs" / "train.parquet") if pair.origin == "real"]
    tasks = {pair.task for pair in probes}
    fitted = choose([pair for pair in train if pair.task in tasks], lambda pair: pair.pair_id, FITTED_ON, 0)
    return Ruler.fit(
        [pair.prompt for pair in probes],
        [pair.completion for pair in probes],
        [pair.completion for pair in fitted],
    )


def _verdict(config: MeasureGenerationStage, stats: Mapping[str, Any], changes: Mapping[str, Any]) -> GuardVerdict:
    judged = ("loss_increase", "distinct_2", "self_bleu", "tail_coverage", "vendi", "right")
    figures = GenerationFigures(
        accepted=stats["accepted"],
        duplicate_share=stats["duplicate_share"],
        **{name: changes.get(name) for name in judged},
    )
    return judge_generation(figures, config.guard, config.min_accepted)


def _shown(probes: Sequence[Pair], models: Mapping[str, Measured]) -> list[dict[str, Any]]:
    return [
        {
            "prompt": pair.prompt,
            "gold": pair.completion,
            "answers": {role: model.probes[index] for role, model in models.items()},
        }
        for index, pair in enumerate(probes[:SHOWN_PROBES])
    ]


def _publish(
    config: MeasureGenerationStage,
    context: StageContext,
    stats: Mapping[str, Any],
    measured: Mapping[str, Measured],
    figures: Mapping[str, Mapping[str, float]],
    changes: Mapping[str, Any],
    verdict: GuardVerdict,
) -> StageResult:
    """Write the files and return the key figures."""
    report = {
        "generation": config.generation,
        "synthetic": dict(stats),
        "models": {role: context.refs[role].label() for role in ROLES},
        "digests": {role: context.refs[role].digest for role in ROLES},
        "asked": _asked(config, context),
        "figures": figures,
        "changes": {name: change_to_json(change) for name, change in changes.items()},
        "verdict": verdict.to_json(),
    }
    write_json(context.output / "report.json", report)
    rows = [{"model": role, **case} for role, model in measured.items() for case in [*model.documents, *model.answers]]
    write_jsonl(context.output / "cases.jsonl", rows)
    answers = [
        {"model": role, "probe": index, "answer": answer}
        for role, model in measured.items()
        for index, answer in enumerate(model.probes)
    ]
    write_jsonl(context.output / "probes.jsonl", answers)
    if figures:
        title = f"Generation {config.generation}: {verdict.decision}"
        plot_generation(context.output / "metrics.png", figures, title)
    # figures of a benchmark are named suite/metric, those of the samples are not
    metrics = {
        f"eval/{name}" if "/" in name else f"collapse/{name}": value
        for name, value in figures.get("candidate", {}).items()
    }
    metrics |= {"collapse/accepted": float(stats["accepted"]), "collapse/passed": float(verdict.passed)}
    return StageResult(metrics=metrics)
