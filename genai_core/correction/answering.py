"""One question, corrected: what the moments of correction bring together for an answer that somebody waits for.

with a verifier     n candidates -> the one it likes best -> refused? -> one revision with its remark
without             n candidates -> the most frequent answer; where all differ, the likeliest a token
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal

from genai_core.correction.candidates import Candidate
from genai_core.correction.generation_time.best_of_n import best_of_n
from genai_core.correction.generation_time.self_consistency import self_consistency
from genai_core.correction.post_hoc.revise import revise
from genai_core.data.documents import Pair
from genai_core.evaluation.benchmarks.calls import Judges
from genai_core.generation.types import Completion, Request

How = Literal["verified", "refused", "voted", "likeliest"]


@dataclass(frozen=True, slots=True)
class Corrected:
    """The answer, how it was come by, and what it cost."""

    answer: Completion
    how: How
    candidates: int
    agreed: int
    """Candidates that the verifier accepted; without one, those that gave this answer."""

    remark: str
    """What the verifier says of the best candidate, '' = nothing."""

    revised: bool
    """Whether the answer is a revision."""

    n_tokens: int
    """Tokens generated in all."""


def answer_corrected(
    pair: Pair, n: int, verifier: Judges | None, fits: Callable[[Request], bool] | None = None
) -> Generator[list[Request], list[Completion], Corrected]:
    """Return the corrected answer to a pair's prompt.

    Args:
        pair: its prompt is asked; with a verifier, its check says what is checked. Its answer is not read.
        n: candidates to sample.
        verifier: judges without gold; None: there is nothing to check.
        fits: whether the model can read a request; a revision that it cannot read is left out.
    """
    if verifier is None:
        vote = yield from self_consistency(pair, n)
        agreed = round(vote.share * len(vote.ballots))
        how: How = "voted" if agreed > 1 or n == 1 else "likeliest"
        return Corrected(vote.answer, how, len(vote.ballots), agreed, "", False, vote.n_tokens)
    chosen = yield from best_of_n(pair, n, verifier)
    episode = yield from revise(pair, verifier, draft=chosen.best.completion, fits=fits)
    final: Candidate = episode.final
    return Corrected(
        answer=final.completion,
        how="verified" if final.is_verified else "refused",
        candidates=n,
        agreed=sum(candidate.is_verified for candidate in chosen.candidates),
        remark=chosen.best.feedback.text,
        revised=final is not episode.drafts[0],
        n_tokens=chosen.n_tokens + episode.n_tokens - chosen.best.completion.n_tokens,
    )
