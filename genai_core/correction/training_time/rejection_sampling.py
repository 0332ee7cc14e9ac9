"""Rejection sampling: sample k answers a prompt, keep verified ones, learn from them (self_improvement.md 1.4.2).

RAFT (Dong et al. 2023, arXiv 2304.06767) keeps the best of each prompt; best here is: verified, then most often
sampled, then likeliest a token. The verifier reads the prompt only, so the data it passes may be valid and still not
right; how much of it is right is measured afterwards, beside a random choice of the same size, and steers nothing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from genai_core.correction.candidates import Candidate
from genai_core.correction.generation_time.self_consistency import canonical
from genai_core.data.documents import Pair

ORIGIN = "corrected"


def select_verified(candidates: Sequence[Candidate], max_per_prompt: int = 1) -> list[Candidate]:
    """Return the verified answers of one prompt, distinct, best first, at most `max_per_prompt`.

    An answer that was cut off by the token limit is never kept: the model would learn not to stop.
    """
    votes = Counter(canonical(candidate.text) for candidate in candidates)
    kept: dict[str, Candidate] = {}
    verified = [c for c in candidates if c.is_verified and c.completion.finish_reason == "stop" and c.text]
    for candidate in sorted(verified, key=lambda c: (votes[canonical(c.text)], c.mean_logp), reverse=True):
        kept.setdefault(canonical(candidate.text), candidate)
    return list(kept.values())[:max_per_prompt]


def select_random(candidates: Sequence[Candidate], count: int, seed: str) -> list[Candidate]:
    """Return `count` answers of one prompt chosen without looking: the matched control of `select_verified`."""
    return random.Random(seed).sample(list(candidates), min(count, len(candidates)))


def corrected_pairs(pairs: Sequence[Pair], chosen: Sequence[Sequence[Candidate]]) -> list[Pair]:
    """Return the training pairs of the chosen answers, in order; the same prompt with the same answer once.

    Args:
        pairs: what was asked.
        chosen: the answers kept for each.
    """
    written: dict[tuple[str, str], Pair] = {}
    for pair, answers in zip(pairs, chosen, strict=True):
        for number, answer in enumerate(answers):
            corrected = replace(
                pair, pair_id=f"{pair.pair_id}/{ORIGIN}-{number}", completion=answer.text, origin=ORIGIN
            )
            written.setdefault((pair.prompt, answer.text), corrected)
    return list(written.values())
