"""A recipe's own questions with graded answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from tiny_world import make_context

from genai_core.config.base import canonical
from genai_core.config.lifecycle import EvaluationConfig, Question
from genai_core.config.stages import EvaluateStage
from genai_core.evaluation.compare import Report
from genai_core.stages.evaluate import evaluate

QUESTIONS = (Question(ask="Write anything.", accept=(".",)), Question(ask="Say nothing known.", accept=("zzqx$",)))


def run(root: Path, world: Path, split: str) -> Path:
    config = EvaluateStage(
        evaluation=EvaluationConfig(
            max_documents=2, max_prompts=2, max_new_tokens=8, bootstrap_draws=50, questions=QUESTIONS
        ),
        split=split,
    )
    context = make_context(root, "evaluate", config, {"model": world / "m60", "corpus": world / "corpus"})
    evaluate(config, context)
    return context.output


def test_each_is_asked_and_graded_on_held_out_data_only(small_world: Path, tmp_path: Path) -> None:
    output = run(tmp_path / "heldout", small_world, "heldout")
    assert Report.read(output).figures["question/right"] == 0.5
    rows = [json.loads(line) for line in (output / "answers.jsonl").read_text().splitlines()]
    asked = [row for row in rows if row["suite"] == "question"]
    assert [(row["prompt"], row["right"]) for row in asked] == [
        ("Write anything.", True),
        ("Say nothing known.", False),
    ]
    # the gate reads the sealed report: a person's few questions must not decide there
    assert "question" not in Report.read(run(tmp_path / "sealed", small_world, "sealed")).suites()


def test_an_answer_is_right_if_one_expression_is_in_it() -> None:
    question = Question(ask="Capital of France?", accept=(r"\bparis\b", "lutetia"))
    assert question.accepts("It is PARIS.") and question.accepts("Lutetia") and not question.accepts("Parisian")


def test_no_question_leaves_every_key_as_it_was() -> None:
    assert "questions" not in canonical(EvaluationConfig()) and "shots" not in canonical(EvaluationConfig(shots=3))
    assert "questions" in canonical(EvaluationConfig(questions=QUESTIONS))


def test_a_broken_expression_is_named() -> None:
    with pytest.raises(ValidationError, match=r"'\(' is no regular expression"):
        Question(ask="?", accept=("(",))
