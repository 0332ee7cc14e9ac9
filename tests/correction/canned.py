"""Answers and verdicts without a model: pairs, completions and verifiers that do what a test says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from genai_core.data.documents import Pair
from genai_core.feedback.types import Feedback
from genai_core.generation.types import Completion, Request


def pair_of(name: str, gold: str = "right") -> Pair:
    return Pair(name, "quote", "g", "d", f"prompt of {name}", gold, {"kind": "quote", "gold": gold})


def completion_of(row_id: str, text: str, logp: float = -1.0, n_tokens: int = 2, reason: str = "stop") -> Completion:
    return Completion(row_id, text, tuple(range(n_tokens)), logp, reason, 3)  # type: ignore[arg-type]


class Canned:
    """Completes requests with `say(request)`; remembers what it was asked."""

    def __init__(self, say: Callable[[Request], str]) -> None:
        self.say = say
        self.asked: list[Request] = []

    def __call__(self, requests: list[Request]) -> list[Completion]:
        self.asked += requests
        return [completion_of(request.row_id, self.say(request)) for request in requests]


class Verdicts:
    """Judges with `score(pair, answer)` when blind, and against the pair's completion with gold."""

    def __init__(self, score: Callable[[Pair, str], float], uses_gold: bool = False) -> None:
        self.score = score
        self.uses_gold = uses_gold

    def judge(self, pair: Pair, answer: str, *, use_gold: bool) -> Feedback:
        if use_gold:
            return Feedback(float(answer.strip() == pair.completion), uses_gold=True, source="canned")
        score = self.score(pair, answer)
        return Feedback(score, "" if score >= 0.5 else f"remark on {answer}", source="canned", uses_gold=self.uses_gold)


ALWAYS = Verdicts(lambda pair, answer: 1.0)
NEVER = Verdicts(lambda pair, answer: 0.0)
ORACLE = Verdicts(lambda pair, answer: float(answer == pair.completion))
"""Knows the right answer and does not say so: what a perfect verifier would be."""


def chance(*parts: object) -> float:
    """Return a number in [0, 1) that depends on the parts alone."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6], "big") / 2**48
