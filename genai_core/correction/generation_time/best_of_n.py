"""Best of n: of the greedy answer and n - 1 samples, keep the one that the verifier likes best (self_improvement.md 1.5.2).

    answer = argmax_i (score(y_i), checks passed by y_i, log p(y_i) / |y_i|)       the verifier sees the prompt, never the right answer

The greedy answer is among them because a model may be far better at temperature 0 than at the one that gives variety: then
the best of n samples is worse than the one answer that costs a quarter. With n = 1 nothing is sampled. Of n samples a verifier
that knows all keeps pass@n = 1 - C(n - c, k) / C(n, k) right ones (Chen et al. 2021, arXiv 2107.03374, eq. 1).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from genai_core.correction.candidates import Candidate, ask_candidates, verdict
from genai_core.data.documents import Pair
from genai_core.evaluation.benchmarks.calls import Judges
from genai_core.generation.types import Completion, Request


@dataclass(frozen=True, slots=True)
class Chosen:
    """The answer that was kept, and all that it was chosen from."""

    best: Candidate
    candidates: tuple[Candidate, ...]

    @property
    def sampled(self) -> Candidate:
        """Return the first candidate that was sampled; the greedy one if there is no other."""
        return self.candidates[min(1, len(self.candidates) - 1)]

    @property
    def n_tokens(self) -> int:
        """Return the tokens generated for the choice."""
        return sum(candidate.completion.n_tokens for candidate in self.candidates)


def best_of_n(pair: Pair, n: int, verifier: Judges) -> Generator[list[Request], list[Completion], Chosen]:
    """Return the best of n answers; of equals the first.

    Args:
        pair: its prompt is asked; its answer is not read.
        n: answers, the greedy one included.
        verifier: judges without gold.

    Raises:
        StageFailedError: the verifier used the right answer.
    """
    candidates = yield from ask_candidates(pair, n, verifier, greedy_first=True)
    best = max(candidates, key=lambda candidate: (*verdict(candidate), candidate.mean_logp))
    return Chosen(best, tuple(candidates))
