"""Evaluate: one model on one split of one corpus, or what it can from examples in the prompt alone.

report.json     figures, intervals, baselines, number of cases
cases.jsonl     one row a case: what every comparison is computed from
answers.jsonl   prompt, gold, answer, verdict: to look at
"""

from __future__ import annotations

from pathlib import Path

from genai_core.config.stages import EvaluateStage
from genai_core.data.documents import read_pairs
from genai_core.evaluation.asking import AskedModel
from genai_core.evaluation.benchmarks.questions import ask_questions
from genai_core.evaluation.compare import write_jsonl
from genai_core.evaluation.runner import (
    choose_documents,
    choose_pairs,
    make_report,
    measure_baselines,
    measure_pairs,
    measure_text,
    open_book,
)
from genai_core.evaluation.shots import with_shots
from genai_core.feedback.baselines import fit_baselines
from genai_core.feedback.verify import open_verifier
from genai_core.stages.contract import StageContext, StageResult


def evaluate(config: EvaluateStage, context: StageContext) -> StageResult:
    """Measure `model` on the split of `corpus`; the sealed split is read only where the config says so."""
    corpus = context.inputs["corpus"]
    verifier = open_verifier(corpus)
    model = ask(context, "model")
    wanted = choose_pairs(corpus, config.split, config.evaluation)
    if config.shots:
        solved = read_pairs(corpus / "pairs" / "train.parquet")
        wanted = {
            task: with_shots(chosen, solved, config.shots, config.evaluation.seed)
            for task, chosen in open_book(wanted).items()
        }
        cases = []
    else:
        cases = measure_text(model, choose_documents(corpus, config.split, config.evaluation), config.evaluation)
    shown = []
    pairs = {task: model.fitting(chosen) for task, chosen in wanted.items()}
    for task, chosen in pairs.items():
        context.check()
        measured, answers = measure_pairs(model, task, chosen, verifier, config.evaluation)
        cases += measured
        shown += answers
    if config.evaluation.questions and config.split == "heldout" and not config.shots:
        measured, answers = ask_questions(model, config.evaluation)
        cases += measured
        shown += answers
    baselines = measure_baselines(fit_baselines(corpus), pairs, verifier)
    report = make_report(config.split, context.refs["model"].label(), cases, baselines, config.evaluation)
    report.write(context.output)
    write_jsonl(context.output / "answers.jsonl", shown)
    too_long = sum(len(chosen) for chosen in wanted.values()) - sum(len(chosen) for chosen in pairs.values())
    if too_long:
        context.journal.event(f"{too_long} prompts and answers are longer than the model holds and are not measured")
    metrics = {f"eval/{name}": value for name, value in report.figures.items()}
    return StageResult(metrics={**metrics, "eval/too_long": float(too_long)})


def ask(context: StageContext, role: str, path: Path | None = None) -> AskedModel:
    """Return the model of a role as the evaluation asks it, on the stage's workers."""
    return AskedModel(role, path or context.inputs[role], context.workers.map_shards, context.job.compute)
