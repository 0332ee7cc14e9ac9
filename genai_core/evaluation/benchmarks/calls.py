"""Open-book tasks: the prompt holds what is needed for the answer.

    call    description + documentation -> a call that binds (pydocs)
    quote   passage + the beginning of a sentence -> the sentence
    answer  the user's own pairs

Of every prompt: is the greedy answer *valid* (checks from the prompt alone), is it *right* (agrees with gold), what loss
does the gold answer have, how long is the greedy answer, did it stop by itself, was the same answer given before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from genai_core.config.generation import SamplingConfig
from genai_core.config.lifecycle import EvaluationConfig
from genai_core.data.documents import Pair
from genai_core.feedback.types import Feedback
from genai_core.generation.types import Completion, Request

OPEN_BOOK = ("call", "quote", "answer")


class Judges(Protocol):
    """What judges an answer; `feedback.verify.Verifier`."""

    def judge(self, pair: Pair, answer: str, *, use_gold: bool) -> Feedback:
        """Return feedback: `valid` never looks at gold; `score` 1.0 with gold is *right*."""
        ...


def passes(feedback: Feedback) -> bool:
    """Return whether an answer was judged and found good: with gold this is *right*, without it all checks passed."""
    return feedback.valid and feedback.score >= 1.0


def greedy(config: EvaluationConfig) -> SamplingConfig:
    """Return how answers are written when they are measured."""
    return SamplingConfig(
        temperature=0.0, max_new_tokens=config.max_new_tokens, seed=config.seed, unmasking=config.unmasking
    )


def answer_requests(pairs: Sequence[Pair]) -> list[Request]:
    """Return one request a pair, without its answer."""
    return [Request(row_id=pair.pair_id, prompt=pair.prompt) for pair in pairs]


def answer_rows(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Return the rows whose gold answers are to be scored."""
    return [{"row_id": pair.pair_id, "prompt": pair.prompt, "completion": pair.completion} for pair in pairs]


def judged_case(pair: Pair, answer: str, verifier: Judges) -> dict[str, Any]:
    """Return the verdicts on one answer: valid (which never looks at gold) and right, 0 or 1."""
    said = verifier.judge(pair, answer, use_gold=True)
    case = {
        "suite": pair.task,
        "case_id": pair.pair_id,
        "valid": float(said.valid),
        "right": float(passes(said)),
    }
    return case | _outcome(pair, answer, verifier, said) if "retrieved" in pair.check else case


def _outcome(pair: Pair, answer: str, verifier: Judges, said: Feedback) -> dict[str, Any]:
    """Return what is counted beside *right* of a retrieved prompt; unparsable + hallucinated + error + right = 1.

    A hallucination reads well and is of nothing that exists (or does not bind to it); an error is of another thing.
    """
    parsed = said.valid or verifier.judge(pair, answer, use_gold=False).step_scores[:1] != (0.0,)
    return {
        "unparsable": float(not parsed),
        "hallucinated": float(parsed and not said.valid),
        "error": float(said.valid and not passes(said)),
        "oracle_shown": float(pair.check["is_oracle_in_context"]),
    }


def pair_cases(
    pairs: Sequence[Pair], answers: Sequence[Completion], scored: Sequence[dict[str, Any]], verifier: Judges
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return one case a pair, and one row a pair to look at (prompt, gold, answer, what the verifier said)."""
    cases: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    seen: set[str] = set()
    for pair, answer, row in zip(pairs, answers, scored, strict=True):
        text = answer.text.strip()
        cases.append(
            {
                **judged_case(pair, answer.text, verifier),
                "answer_nll": float(row["nll"]),
                "answer_tokens": float(row["n_tokens"]),
                "answer_bytes": float(len(pair.completion.encode())),
                "prompt_tokens": float(answer.n_prompt_tokens),
                "generated_tokens": float(answer.n_tokens),
                "stopped": float(answer.finish_reason == "stop"),
                "first_seen": float(text not in seen),
                **({"answer_nll_error": float(row["nll_error"])} if "nll_error" in row else {}),
            }
        )
        seen.add(text)
        shown.append(
            {
                "suite": pair.task,
                "case_id": pair.pair_id,
                "prompt": pair.prompt,
                "gold": pair.completion,
                "answer": answer.text,
                "valid": bool(cases[-1]["valid"]),
                "right": bool(cases[-1]["right"]),
                "verdict": verifier.judge(pair, answer.text, use_gold=True).text,
            }
        )
    return cases, shown
