"""Revision after the fact: show the model its draft and what the verifier says about it, and ask again.

    draft -> verifier -> accepted? -> no: the model revises, given prompt, draft and remark -> verifier -> ...

Without an outside signal models make their answers worse by revising (Huang et al. 2023, arXiv 2310.01798), so only
drafts that the verifier refuses are revised, and the verifier never sees the right answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal

from genai_core.correction.candidates import Candidate, judge_blind, verdict
from genai_core.data.documents import Pair
from genai_core.evaluation.benchmarks.calls import Judges
from genai_core.generation.types import Completion, Request

StopReason = Literal["accept", "no_change", "max_turns", "too_long"]

UNEXPLAINED = "That is not right. Try again."
"""Said of a draft that the verifier refuses without a word."""


@dataclass(frozen=True, slots=True)
class Episode:
    """All drafts of one prompt in order, and why there is no further one."""

    drafts: tuple[Candidate, ...]
    stop_reason: StopReason

    @property
    def final(self) -> Candidate:
        """Return the draft with the best verdict; of equals the last, which has heard most."""
        return max(reversed(self.drafts), key=verdict)

    @property
    def n_revisions(self) -> int:
        """Return how often the model was asked to revise."""
        return len(self.drafts) - 1

    @property
    def n_tokens(self) -> int:
        """Return the tokens generated, the first draft included."""
        return sum(draft.completion.n_tokens for draft in self.drafts)


def revise(
    pair: Pair,
    verifier: Judges,
    *,
    draft: Completion | None = None,
    max_turns: int = 1,
    fits: Callable[[Request], bool] | None = None,
) -> Generator[list[Request], list[Completion], Episode]:
    """Return the episode of a prompt: a draft and at most `max_turns` revisions.

    Args:
        pair: its prompt is asked; its answer is not read.
        verifier: judges without gold; its text becomes the remark.
        draft: the first answer, if there is one already; else it is asked for.
        max_turns: most revisions.
        fits: whether the model can read a request; a conversation that has grown too long ends. None: always.

    Raises:
        StageFailedError: the verifier used the right answer.
    """
    if draft is None:
        (draft,) = yield [Request(row_id=pair.pair_id, prompt=pair.prompt)]
    drafts = [Candidate(draft, judge_blind(verifier, pair, draft.text))]
    while not drafts[-1].is_verified:
        if len(drafts) > max_turns:
            return Episode(tuple(drafts), "max_turns")
        request = Request(
            row_id=f"{pair.pair_id}/revision-{len(drafts)}",
            prompt=pair.prompt,
            draft=drafts[-1].text,
            remark=drafts[-1].feedback.text or UNEXPLAINED,
        )
        if fits is not None and not fits(request):
            return Episode(tuple(drafts), "too_long")
        (completion,) = yield [request]
        unchanged = completion.text.strip() == drafts[-1].text
        drafts.append(Candidate(completion, judge_blind(verifier, pair, completion.text)))
        if unchanged:
            return Episode(tuple(drafts), "no_change")
    return Episode(tuple(drafts), "accept")
