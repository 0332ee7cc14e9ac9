"""Self-consistency: sample answers, return the most frequent (Wang et al. 2022, arXiv 2203.11171).

It needs no verifier, so it is the baseline that any generation-time correction has to beat at the same number of
samples. The first ballot is greedy: where all differ, the answer is then most often the one given without a vote. Sampling stops as soon as the leader cannot be overtaken or tied; the answer is then that of the full vote.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from genai_core.data.documents import Pair
from genai_core.generation.types import Completion, Request


@dataclass(frozen=True, slots=True)
class Vote:
    """The elected answer, its share of the votes given, and the ballots."""

    answer: Completion
    share: float
    ballots: tuple[Completion, ...]

    @property
    def n_tokens(self) -> int:
        """Return the tokens generated for the vote."""
        return sum(ballot.n_tokens for ballot in self.ballots)


def self_consistency(pair: Pair, n: int, step: int = 0) -> Generator[list[Request], list[Completion], Vote]:
    """Return the vote of up to n samples.

    Args:
        pair: its prompt is asked.
        n: most ballots, the greedy one included.
        step: samples asked at a time; 0 = all n at once, without early stop.
    """
    ballots: list[Completion] = []
    while len(ballots) < n and not _is_decided(ballots, n):
        count = min(step or n, n - len(ballots))
        numbers = range(len(ballots), len(ballots) + count)
        ballots += yield [
            Request(row_id=f"{pair.pair_id}/{index}", prompt=pair.prompt, greedy=index == 0) for index in numbers
        ]
    return count_votes(ballots)


def count_votes(ballots: Sequence[Completion]) -> Vote:
    """Return the vote. A tie goes to the answer whose likeliest sample is likelier a token; order never matters."""
    groups: dict[str, list[Completion]] = defaultdict(list)
    for ballot in ballots:
        groups[canonical(ballot.text)].append(ballot)
    leader = max(groups, key=lambda name: (len(groups[name]), max(map(_likelihood, groups[name]))))
    return Vote(max(groups[leader], key=_likelihood), len(groups[leader]) / len(ballots), tuple(ballots))


def canonical(text: str) -> str:
    """Return what makes two answers one vote: the text with its white space collapsed."""
    return " ".join(text.split())


def _likelihood(ballot: Completion) -> tuple[float, str]:
    return ballot.logp / max(1, ballot.n_tokens), ballot.text


def _is_decided(ballots: Sequence[Completion], n: int) -> bool:
    """Return whether no answer can still catch up with the leader."""
    counts = [count for _, count in Counter(canonical(ballot.text) for ballot in ballots).most_common(2)]
    if not counts:
        return False
    return counts[0] - (counts[1] if len(counts) > 1 else 0) > n - len(ballots)
