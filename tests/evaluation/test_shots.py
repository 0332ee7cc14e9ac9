"""Solved examples before a question, and when a tuning has paid for itself."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tiny_world import make_context

from genai_core.config.lifecycle import EvaluationConfig
from genai_core.config.stages import EvaluateStage
from genai_core.data.documents import Pair, read_pairs
from genai_core.errors import DataError
from genai_core.evaluation.compare import Report
from genai_core.evaluation.shots import Cost, calls_until_paid, with_shots
from genai_core.stages.evaluate import evaluate

SMALL = EvaluationConfig(max_documents=4, max_prompts=6, max_new_tokens=8, bootstrap_draws=50)


def pair(number: int, task: str = "call") -> Pair:
    return Pair(
        pair_id=f"{task}:{number}",
        task=task,
        group="g",
        doc_id="d",
        prompt=f"question {number}",
        completion=f"{number}",
    )


def test_examples_are_of_the_task_and_differ_from_question_to_question():
    solved = [*(pair(number) for number in range(10, 30)), *(pair(number, "name") for number in range(5))]
    asked = with_shots([pair(1), pair(2)], solved, 2, seed=0)
    first, second, question = asked[0].prompt.split("\n\n")
    assert question == "question 1" and asked[0].completion == "1"
    for example in (first, second):
        number = example.removeprefix("question ").split("\n")[0]
        assert example == f"question {number}\n{number}" and 10 <= int(number) < 30
    assert asked[0].prompt.split("\n\n")[:2] != asked[1].prompt.split("\n\n")[:2]
    assert with_shots([pair(1), pair(2)], solved, 2, seed=0) == asked
    # what else is asked does not matter
    assert with_shots([pair(2)], solved, 2, seed=0)[0] == asked[1]


def test_too_few_examples_are_refused():
    with pytest.raises(DataError, match="shots=3, but there are 2 training pairs of 'call'"):
        with_shots([pair(1)], [pair(2), pair(3)], 3, seed=0)


def test_the_stage_measures_answers_with_examples_and_no_text(small_world: Path, tmp_path: Path):
    reports = {}
    for shots in (0, 1):
        config = EvaluateStage(evaluation=SMALL, split="heldout", shots=shots)
        inputs = {"model": small_world / "m60", "corpus": small_world / "corpus"}
        context = make_context(tmp_path / str(shots), "evaluate", config, inputs)
        evaluate(config, context)
        reports[shots] = Report.read(context.output)
    assert "text" in reports[0].suites() and "text" not in reports[1].suites()
    assert "name" not in reports[1].suites()  # closed book: examples would not hold the answer either
    costs = {shots: Cost.of(report.figures, "call") for shots, report in reports.items()}
    assert costs[0] is not None and costs[1] is not None
    assert costs[1].prompt_tokens > 1.7 * costs[0].prompt_tokens
    assert Cost.of(reports[0].figures, "nothing") is None
    wanted = {one.pair_id for one in read_pairs(small_world / "corpus" / "pairs" / "heldout.parquet")}
    assert {row["case_id"] for row in reports[1].rows} <= wanted


def test_a_training_pays_by_what_its_prompts_save():
    few, tuned = Cost(0.5, 300.0, 20.0), Cost(0.8, 100.0, 20.0)
    assert few.per_call == 320 and few.per_right == 640 and tuned.per_right == 150
    # 6 N T operations of training against 2 N of every token saved
    assert calls_until_paid(1000, few.per_call, tuned.per_call) == pytest.approx(3 * 1000 / 200)
    assert calls_until_paid(1000, tuned.per_call, few.per_call) == math.inf
    never = Cost(0.0, 300.0, 20.0)
    assert never.per_right == math.inf
    assert calls_until_paid(1000, never.per_right, tuned.per_right) == 0.0
