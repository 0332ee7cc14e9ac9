"""Run the benchmarks of a corpus on one model: cases, and the figures that follow from them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from genai_core.config.lifecycle import EvaluationConfig
from genai_core.data.documents import Document, Pair, read_documents_file, read_pairs
from genai_core.errors import DataError
from genai_core.evaluation.asking import AskedModel
from genai_core.evaluation.benchmarks import text
from genai_core.evaluation.benchmarks.calls import Judges, answer_requests, answer_rows, greedy, judged_case, pair_cases
from genai_core.evaluation.benchmarks.names import is_closed_book
from genai_core.evaluation.benchmarks.symbols import candidate_rows, candidates_of, choices
from genai_core.evaluation.compare import (
    METRICS,
    Interval,
    Report,
    percentile_interval,
    resampled_sums,
    wilson_interval,
)

# metrics that count cases: their interval is Wilson's, which stays right at 0 and 1
RATES = ("right", "valid", "stopped", "unparsable", "hallucinated", "error", "oracle_shown")
# a share of answers not seen before has no resampling interval: a resample repeats cases by construction
WITHOUT_INTERVAL = ("distinct",)

T = TypeVar("T")


def choose(items: Sequence[T], name: Callable[[T], str], limit: int, seed: int) -> list[T]:
    """Return at most `limit` items, in their order; which ones depends on each item's own name and the seed.

    Adding an item to the corpus changes at most one of the chosen, so reports of neighbouring corpora share cases.
    """
    ranked = sorted(range(len(items)), key=lambda index: (_rank(name(items[index]), seed), index))
    return [items[index] for index in sorted(ranked[:limit])]


def choose_documents(corpus: Path, split: str, config: EvaluationConfig) -> list[Document]:
    """Return the documents of a split that are measured."""
    documents = read_documents_file(_existing(corpus / "documents" / f"{split}.parquet"))
    documents = [document for document in documents if document.text.strip()]
    return choose(documents, lambda document: document.doc_id, config.max_documents, config.seed)


def choose_pairs(corpus: Path, split: str, config: EvaluationConfig) -> dict[str, list[Pair]]:
    """Return the pairs of a split that are measured, by task, tasks in name order."""
    pairs = read_pairs(_existing(corpus / "pairs" / f"{split}.parquet"))
    return {
        task: choose([pair for pair in pairs if pair.task == task], _pair_id, config.max_prompts, config.seed)
        for task in sorted({pair.task for pair in pairs})
    }


def measure_text(model: AskedModel, documents: Sequence[Document], config: EvaluationConfig) -> list[dict[str, Any]]:
    """Return a case for every document."""
    return text.text_cases(model.score(text.text_rows(documents), "text", config.bound_samples)) if documents else []


def measure_pairs(
    model: AskedModel, task: str, pairs: Sequence[Pair], verifier: Judges, config: EvaluationConfig
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a case for every pair of a task, and the answers to look at."""
    answers = model.complete(answer_requests(pairs), greedy(config), f"{task}-answers")
    scored = model.score(answer_rows(pairs), f"{task}-gold", config.bound_samples)
    cases, shown = pair_cases(pairs, answers, scored, verifier)
    if pairs and all(candidates_of(pair) for pair in pairs):
        found = choices(pairs, model.score(candidate_rows(pairs), f"{task}-candidates", config.bound_samples))
        cases = [{**case, **chosen} for case, chosen in zip(cases, found, strict=True)]
    return cases, shown


def measure_verdicts(
    model: AskedModel, task: str, pairs: Sequence[Pair], verifier: Judges, config: EvaluationConfig
) -> list[dict[str, Any]]:
    """Return a case for every pair of a task, valid and right only: no gold answer is scored."""
    answers = model.complete(answer_requests(pairs), greedy(config), f"{task}-answers")
    return [judged_case(pair, answer.text, verifier) for pair, answer in zip(pairs, answers, strict=True)]


def measure_baselines(
    baselines: Mapping[str, Callable[[Pair], str]], pairs: dict[str, list[Pair]], verifier: Judges
) -> dict[str, dict[str, float]]:
    """Return the figures of answers that no model wrote, by baseline."""
    chosen = [pair for task in pairs.values() for pair in task]
    return {
        name: figures_of([judged_case(pair, answer(pair), verifier) for pair in chosen])
        for name, answer in sorted(baselines.items())
    }


def figures_of(cases: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return every metric of every suite, named `suite/metric`, and of a bound its standard error, `suite/metric_error`."""
    figures: dict[str, float] = {}
    for suite, metric, rows in _measured(cases):
        parts = metric.parts(rows)
        figures[f"{suite}/{metric.name}"] = float(parts[:, 0].sum() / parts[:, 1].sum())
        if metric.error and all(metric.error in row for row in rows):  # a bound, estimated by Monte Carlo
            squares = sum((metric.scale * row[metric.error]) ** 2 for row in rows)
            figures[f"{suite}/{metric.name}_error"] = math.sqrt(squares) / float(parts[:, 1].sum())
    return figures


def intervals_of(cases: Sequence[dict[str, Any]], *, draws: int, seed: int) -> dict[str, Interval]:
    """Return the 95 % interval of every metric: Wilson's for a rate, a bootstrap over cases for the others."""
    intervals: dict[str, Interval] = {}
    for suite, metric, rows in _measured(cases):
        if metric.name in WITHOUT_INTERVAL:
            continue
        parts = metric.parts(rows)
        if metric.name in RATES:
            intervals[f"{suite}/{metric.name}"] = wilson_interval(float(parts[:, 0].sum()), len(rows))
            continue
        sums = resampled_sums(parts, draws, seed)
        estimate = parts[:, 0].sum() / parts[:, 1].sum()
        intervals[f"{suite}/{metric.name}"] = percentile_interval(estimate, sums[:, 0] / sums[:, 1], len(rows))
    return intervals


def make_report(
    split: str,
    model: str,
    cases: Sequence[dict[str, Any]],
    baselines: dict[str, dict[str, float]],
    config: EvaluationConfig,
) -> Report:
    """Return the report of some cases."""
    return Report(
        split=split,
        model=model,
        rows=tuple(cases),
        figures=figures_of(cases),
        intervals=intervals_of(cases, draws=config.bootstrap_draws, seed=config.seed),
        baselines=baselines,
    )


def open_book(pairs: dict[str, list[Pair]]) -> dict[str, list[Pair]]:
    """Return the tasks whose prompts hold what is needed."""
    return {task: chosen for task, chosen in pairs.items() if not is_closed_book(task)}


def _measured(cases: Sequence[dict[str, Any]]) -> Any:
    for suite in dict.fromkeys(case["suite"] for case in cases):
        rows = [case for case in cases if case["suite"] == suite]
        for metric in METRICS:
            if all(metric.fits(row) for row in rows):
                yield suite, metric, rows


def _pair_id(pair: Pair) -> str:
    return pair.pair_id


def _rank(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"The corpus has no {path.parent.name}/{path.name}. Run augmentation again.")
    return path
