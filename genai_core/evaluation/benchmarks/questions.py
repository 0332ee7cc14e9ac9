"""The recipe's own questions: is what is asked for found in the greedy answer?

They are few and chosen by a person, so they show what a figure hides and decide nothing at the gate.
"""

from __future__ import annotations

from typing import Any

from genai_core.config.lifecycle import EvaluationConfig
from genai_core.evaluation.asking import AskedModel
from genai_core.evaluation.benchmarks.calls import greedy
from genai_core.generation.types import Request

SUITE = "question"


def ask_questions(model: AskedModel, config: EvaluationConfig) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return one case a question, and one row a question to look at."""
    requests = [Request(row_id=str(number), prompt=one.ask) for number, one in enumerate(config.questions, 1)]
    answers = model.complete(requests, greedy(config), f"{SUITE}-answers")
    cases: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for question, answer in zip(config.questions, answers, strict=True):
        right = question.accepts(answer.text)
        case_id = f"{SUITE}:{answer.row_id}"
        cases.append(
            {
                "suite": SUITE,
                "case_id": case_id,
                "right": float(right),
                "generated_tokens": float(answer.n_tokens),
                "stopped": float(answer.finish_reason == "stop"),
            }
        )
        shown.append(
            {
                "suite": SUITE,
                "case_id": case_id,
                "prompt": question.ask,
                "gold": " | ".join(question.accept),
                "answer": answer.text,
                "valid": True,
                "right": right,
                "verdict": "right" if right else "what is asked for is not in the answer",
            }
        )
    return cases, shown
