"""Solved examples before a question (Brown et al. 2020, arXiv 2005.14165, "few-shot"), and what tuning saves of them.

    {prompt}\n{answer}\n\n ... {prompt}\n{answer}\n\n{question}          one user's turn

The examples are training pairs of the same task, drawn anew for every question: no one lucky choice decides.

A tuned model needs no examples. Where a forward pass costs 2 N operations a token and a training step 6 N (Kaplan et al.
2020, arXiv 2001.08361, table 1), training on T tokens has paid after

    calls = 3 T / (tokens a call with examples - tokens a call of the tuned model)

For the cost of a right answer, tokens a call are divided by the share that is right.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from genai_core.data.documents import Pair
from genai_core.errors import DataError
from genai_core.evaluation.benchmarks.names import base_task


def with_shots(pairs: Sequence[Pair], solved: Sequence[Pair], shots: int, seed: int) -> list[Pair]:
    """Return the pairs with `shots` solved ones of the same task before each prompt.

    Raises:
        DataError: fewer solved pairs of a task than shots.
    """
    known: dict[str, list[Pair]] = {}
    for pair in solved:
        known.setdefault(pair.task, []).append(pair)
    found: list[Pair] = []
    for pair in pairs:
        examples = known.get(base_task(pair.task), [])
        if len(examples) < shots:
            raise DataError(f"evaluation.shots={shots}, but there are {len(examples)} training pairs of {pair.task!r}.")
        chosen = random.Random(f"{seed}/{pair.pair_id}").sample(examples, shots)
        before = "".join(f"{one.prompt}\n{one.completion}\n\n" for one in chosen)
        found.append(replace(pair, prompt=before + pair.prompt))
    return found


@dataclass(frozen=True, slots=True)
class Cost:
    """What answers of one task cost."""

    right: float
    prompt_tokens: float
    """A call."""

    generated_tokens: float
    """A call."""

    @staticmethod
    def of(figures: Mapping[str, float], task: str) -> Cost | None:
        """Return the cost of a task's answers from the figures of a report; None if they have not been measured."""
        names = [f"{task}/{name}" for name in ("right", "prompt_tokens", "generated_tokens")]
        return Cost(*(figures[name] for name in names)) if all(name in figures for name in names) else None

    @property
    def per_call(self) -> float:
        """Return the tokens of a call."""
        return self.prompt_tokens + self.generated_tokens

    @property
    def per_right(self) -> float:
        """Return the tokens of a right answer, infinite if none is."""
        return self.per_call / self.right if self.right else float("inf")


def calls_until_paid(trained_tokens: float, with_examples: float, tuned: float) -> float:
    """Return after how many calls (or right answers) the training has paid; infinite if it never does.

    Args:
        trained_tokens: of the fine-tuning.
        with_examples: tokens of a call (or a right answer) with examples in the prompt.
        tuned: tokens of one of the tuned model.
    """
    if with_examples == float("inf"):
        return 0.0 if tuned < with_examples else float("inf")
    saved = with_examples - tuned
    return 3.0 * trained_tokens / saved if saved > 0 else float("inf")
