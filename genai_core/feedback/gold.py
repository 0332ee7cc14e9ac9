"""The right answer: where it may be read, and where feedback that has seen it is refused."""

from __future__ import annotations

from genai_core.data.documents import Pair
from genai_core.errors import DataError, StageFailedError
from genai_core.feedback.types import Feedback


def read_gold(pair: Pair) -> str:
    """Return the pair's right answer. Raises DataError if it has none: None never equals an answer."""
    gold = pair.check.get("gold")
    if not isinstance(gold, str) or not gold.strip():
        raise DataError(
            f"Pair {pair.pair_id} has no right answer in its check (gold={gold!r}). Judge it without gold, or build the "
            "pairs again."
        )
    return gold


def refuse_gold(feedback: Feedback) -> Feedback:
    """Return the feedback as it is; used by every correction loop that is measured (DESIGN 7).

    Raises:
        StageFailedError: the feedback has seen the right answer. A loop that stops or chooses by it measures the
            oracle, not the model (Huang et al. 2023, arXiv 2310.01798).
    """
    if feedback.uses_gold:
        raise StageFailedError(
            f"Feedback of {feedback.source!r} has seen the right answer; inside a loop that is measured this would count "
            "the oracle as the model's skill. Judge with use_gold=False there."
        )
    return feedback
