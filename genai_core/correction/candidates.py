"""Several answers to one prompt, judged without the right answer: what training-time and generation-time correction share."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from genai_core.data.documents import Pair
from genai_core.evaluation.benchmarks.calls import Judges, passes
from genai_core.feedback.gold import refuse_gold
from genai_core.feedback.types import Feedback
from genai_core.generation.types import Completion, Request


@dataclass(frozen=True, slots=True)
class Candidate:
    """One answer and what was said about it."""

    completion: Completion
    feedback: Feedback

    @property
    def text(self) -> str:
        """Return the answer without white space around it."""
        return self.completion.text.strip()

    @property
    def is_verified(self) -> bool:
        """Return whether it was judged and found good."""
        return passes(self.feedback)

    @property
    def mean_logp(self) -> float:
        """Return the log-probability a token, in nats."""
        return self.completion.logp / max(1, self.completion.n_tokens)


def ask_candidates(
    pair: Pair, count: int, verifier: Judges, *, greedy_first: bool = False
) -> Generator[list[Request], list[Completion], list[Candidate]]:
    """Return `count` judged answers to a pair's prompt. Answer i has row id `<pair_id>/<i>`, so fewer are a prefix of more.

    Args:
        pair: its prompt is asked.
        count: of the answers.
        verifier: judges without gold.
        greedy_first: the first is the answer that is given where nothing is corrected, the others are sampled.
    """
    completions = yield [
        Request(row_id=f"{pair.pair_id}/{index}", prompt=pair.prompt, greedy=greedy_first and index == 0)
        for index in range(count)
    ]
    return [Candidate(completion, judge_blind(verifier, pair, completion.text)) for completion in completions]


def judge_blind(verifier: Judges, pair: Pair, answer: str) -> Feedback:
    """Return feedback that rests on the prompt alone.

    Raises:
        StageFailedError: the verifier looked at the right answer although it was told not to.
    """
    return refuse_gold(verifier.judge(pair, answer, use_gold=False))


def verdict(candidate: Candidate) -> tuple[float, float]:
    """Return what orders answers by feedback alone: the score, then how many single checks passed; malformed is last."""
    feedback = candidate.feedback
    return feedback.score if feedback.valid else -1.0, sum(feedback.step_scores)
