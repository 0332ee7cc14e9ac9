"""Classification by exemplars: which of the candidates that a prompt shows does the model find likeliest?

    chosen            the likeliest candidate as a whole string, its end of turn included, is the right one
    chosen_by_token   the likeliest by the mean over its tokens: symbols have different numbers of them
    chance            1 / candidates: what guessing would reach

Of several equally likely ones each counts for its share, so that a model that knows nothing is at chance. Beside both stands
*right* of the greedy answer, exactly matched: the strictest (objectives.md 7.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genai_core.data.documents import Pair

SUITES = ("symbols", "symbols_instructed", "labels", "labels_instructed", "flipped")


def candidates_of(pair: Pair) -> list[str]:
    """Return the answers that a pair's prompt offers, none if it offers none."""
    return list(pair.check.get("candidates", ()))


def candidate_rows(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Return a row to be scored for every candidate of every pair, in order."""
    return [
        {"row_id": f"{pair.pair_id}#{number}", "prompt": pair.prompt, "completion": candidate}
        for pair in pairs
        for number, candidate in enumerate(candidates_of(pair))
    ]


def choices(pairs: Sequence[Pair], scored: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Return chosen, chosen_by_token and chance of every pair.

    Args:
        pairs: with candidates.
        scored: `candidate_rows` with their nll in nats and n_tokens.
    """
    found, at = [], 0
    for pair in pairs:
        candidates = candidates_of(pair)
        rows = scored[at : at + len(candidates)]
        at += len(candidates)
        right = candidates.index(pair.completion)
        found.append(
            {
                "chosen": _share([float(row["nll"]) for row in rows], right),
                "chosen_by_token": _share([float(row["nll"]) / float(row["n_tokens"]) for row in rows], right),
                "chance": 1.0 / len(candidates),
            }
        )
    return found


def _share(losses: Sequence[float], right: int) -> float:
    """Return 1 if the right one alone has the least loss, 1 / n if n share it with it, 0 if it has not."""
    least = min(losses)
    return 1.0 / losses.count(least) if losses[right] == least else 0.0
